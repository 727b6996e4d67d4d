/* SPDX-License-Identifier: MIT
 * The image's I/O: order, data, and errors that must not be lost.
 */
#include "usb/disk-io.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/test.h"

#define SIZE 1048576

struct rig {
	sd_event *event;
	struct disk_io *io;
	int fd; /* another of the image */
	unsigned done;
};

/* A request and what became of it. */
struct job {
	struct disk_io_request r;
	struct rig *rig;
	unsigned order; /* from 1; 0: not done */
	int error;
};

static void start(struct rig *r, int fd, bool writable)
{
	*r = (struct rig){.fd = fd};
	assert_true(fd >= 0);
	assert_true(sd_event_new(&r->event) >= 0);
	assert_int_equal(
		disk_io_create(fcntl(fd, F_DUPFD_CLOEXEC, 3), SIZE, writable, r->event, &r->io), 0);
}

static void stop(struct rig *r)
{
	disk_io_destroy(r->io);
	sd_event_unref(r->event);
	close(r->fd);
}

static int image(void)
{
	int fd = memfd_create("image", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert_int_equal(ftruncate(fd, SIZE), 0);
	return fd;
}

/* Where RWF_NOWAIT works, unlike on a memfd. */
static int image_on_disk(void)
{
	char path[] = "./devbroker-test-disk-io-XXXXXX";
	int fd = mkostemp(path, O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(ftruncate(fd, SIZE), 0);
	return fd;
}

static void job_done(struct disk_io_request *r, int error)
{
	struct job *j = r->userdata;

	assert_int_equal(j->order, 0);
	j->order = ++j->rig->done;
	j->error = error;
}

static void submit(
	struct rig *r, struct job *j, enum disk_io_op op, uint64_t at, uint64_t n, void *data)
{
	*j = (struct job){
		.r = {.op = op,
			.offset = at,
			.length = n,
			.data = data,
			.done = job_done,
			.userdata = j},
		.rig = r,
	};
	disk_io_submit(r->io, &j->r);
}

static int wait_for(struct rig *r, const struct job *j)
{
	for (int i = 0; i < 500 && !j->order; i++) {
		assert_true(sd_event_run(r->event, 10000) >= 0);
	}
	assert_true(j->order > 0);
	return j->error;
}

static int one(struct rig *r, enum disk_io_op op, uint64_t at, uint64_t n, void *data)
{
	struct job j;

	submit(r, &j, op, at, n, data);
	return wait_for(r, &j);
}

/* The queue filled with writes and reads of one place, in turn: each read sees the write before
 * it, and all come back in order. */
static void reads_see_the_writes_before_them(void **state)
{
	static uint8_t data[DISK_IO_QUEUE_MAX][8192];
	struct job j[DISK_IO_QUEUE_MAX];
	struct rig r;

	start(&r, image_on_disk(), true);
	for (int round = 0; round < 50; round++) {
		for (int i = 0; i < DISK_IO_QUEUE_MAX; i++) {
			bool write = i % 2 == 0;

			assert_false(disk_io_full(r.io));
			memset(data[i], write ? round + i : 0xee, sizeof(data[i]));
			submit(&r, &j[i], write ? DISK_IO_WRITE : DISK_IO_READ, 4096,
				sizeof(data[i]), data[i]);
		}
		assert_true(disk_io_full(r.io));
		r.done = 0;
		assert_int_equal(wait_for(&r, &j[DISK_IO_QUEUE_MAX - 1]), 0);
		for (int i = 0; i < DISK_IO_QUEUE_MAX; i++) {
			assert_int_equal(j[i].order, i + 1);
			assert_int_equal(j[i].error, 0);
			assert_int_equal(data[i][0], (uint8_t)(round + i - i % 2));
			assert_memory_equal(data[i], data[i] + 1, sizeof(data[i]) - 1);
		}
		assert_false(disk_io_full(r.io));
	}
	stop(&r);
}

/* On a file system whose page cache can be asked (RWF_NOWAIT), a read of what was just written
 * never leaves the loop. */
static void cached_reads_need_no_thread(void **state)
{
	int fd = image_on_disk();
	uint8_t data[65536];
	struct iovec v = {data, sizeof(data)};
	struct job j;
	struct rig r;

	memset(data, 0x5a, sizeof(data));
	assert_int_equal(pwrite(fd, data, sizeof(data), 4096), sizeof(data));
	if (preadv2(fd, &v, 1, 4096, RWF_NOWAIT) != sizeof(data)) {
		close(fd);
		skip();
	}
	memset(data, 0, sizeof(data));
	start(&r, fd, true);
	submit(&r, &j, DISK_IO_READ, 4096, sizeof(data), data);
	assert_int_equal(j.order, 1); /* before the loop ran */
	assert_int_equal(j.error, 0);
	assert_int_equal(data[0], 0x5a);
	assert_memory_equal(data, data + 1, sizeof(data) - 1);
	stop(&r);
}

static void compare_and_verify(void **state)
{
	static uint8_t data[300000];
	struct rig r;

	start(&r, image(), true);
	memset(data, 7, sizeof(data));
	assert_int_equal(one(&r, DISK_IO_WRITE, 512, sizeof(data), data), 0);
	assert_int_equal(one(&r, DISK_IO_COMPARE, 512, sizeof(data), data), 0);
	data[sizeof(data) - 1] = 8;
	assert_int_equal(one(&r, DISK_IO_COMPARE, 512, sizeof(data), data), DISK_IO_MISCOMPARE);
	assert_int_equal(one(&r, DISK_IO_VERIFY, 0, SIZE, NULL), 0);
	assert_int_equal(ftruncate(r.fd, SIZE - 1), 0);
	assert_int_equal(one(&r, DISK_IO_VERIFY, 0, SIZE, NULL), -EIO);
	assert_int_equal(one(&r, DISK_IO_READ, SIZE - 512, 512, data), -EIO);
	stop(&r);
}

static void an_aborted_verify_ends(void **state)
{
	struct job a, b;
	struct rig r;
	uint8_t x[512];

	start(&r, image(), true);
	submit(&r, &b, DISK_IO_WRITE, 0, 512, x); /* whether it has run by then or not */
	submit(&r, &a, DISK_IO_VERIFY, 0, SIZE, NULL);
	disk_io_abort_verify(r.io);
	wait_for(&r, &a);
	assert_true(a.error == -ECANCELED || a.error == 0);
	assert_int_equal(b.error, 0);
	/* Only what was submitted before. */
	assert_int_equal(one(&r, DISK_IO_VERIFY, 0, SIZE, NULL), 0);
	stop(&r);
}

static void discard_reads_as_zeroes(void **state)
{
	static uint8_t data[65536];
	struct stat before, after;
	struct rig r;

	start(&r, image(), true);
	assert_true(disk_io_can_discard(r.io)); /* a memfd can */
	memset(data, 7, sizeof(data));
	assert_int_equal(one(&r, DISK_IO_WRITE, 0, sizeof(data), data), 0);
	assert_int_equal(fstat(r.fd, &before), 0);
	assert_int_equal(one(&r, DISK_IO_DISCARD, 0, sizeof(data), NULL), 0);
	assert_int_equal(one(&r, DISK_IO_DISCARD, 0, 0, NULL), 0);
	assert_int_equal(fstat(r.fd, &after), 0);
	assert_true(after.st_blocks < before.st_blocks);
	assert_int_equal(after.st_size, SIZE);
	assert_int_equal(one(&r, DISK_IO_READ, 0, sizeof(data), data), 0);
	assert_int_equal(data[1000], 0);
	stop(&r);
	start(&r, image(), false);
	assert_false(disk_io_can_discard(r.io));
	assert_int_equal(one(&r, DISK_IO_FLUSH, 0, 0, NULL), 0);
	stop(&r);
}

/* SIGXFSZ must not end us; the error comes back. */
static void a_file_size_limit(void **state)
{
	struct rlimit before, now;
	uint8_t data[4096] = {0};
	struct rig r;

	start(&r, image(), true);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	now = before;
	now.rlim_cur = 8192;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &now), 0);
	assert_int_equal(one(&r, DISK_IO_WRITE, 65536, 4096, data), -EFBIG);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	assert_int_equal(one(&r, DISK_IO_WRITE, 65536, 4096, data), 0);
	stop(&r);
}

/* A full file system, in a mount namespace of a child's own; root only. */
static int full_disk(void)
{
	static uint8_t data[262144];
	char dir[] = "/tmp/devbroker-test-full-XXXXXX";
	struct job j[8];
	struct rig r;
	int fd, failed = 0;

	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
		!mkdtemp(dir) || mount("none", dir, "tmpfs", 0, "size=512k") < 0) {
		return 77;
	}
	if (chdir(dir) < 0) {
		return 77;
	}
	fd = open("disk.img", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (ftruncate(fd, SIZE) < 0) {
		return 77;
	}
	start(&r, fd, true);
	for (unsigned i = 0; i < 4; i++) {
		submit(&r, &j[i], DISK_IO_WRITE, i * sizeof(data), sizeof(data), data);
	}
	for (unsigned i = 0; i < 4; i++) {
		wait_for(&r, &j[i]);
		if (j[i].error) {
			assert_int_equal(j[i].error, -ENOSPC);
			failed++;
		}
	}
	assert_int_equal(failed, 2);
	/* What is discarded is room again. */
	assert_int_equal(one(&r, DISK_IO_DISCARD, 0, sizeof(data), NULL), 0);
	assert_int_equal(one(&r, DISK_IO_WRITE, 2 * sizeof(data), sizeof(data), data), 0);
	stop(&r);
	umount2(dir, MNT_DETACH);
	return chdir("/") == 0 && rmdir(dir) == 0 ? 0 : 1;
}

static void a_full_disk(void **state)
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		_exit(full_disk());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
		skip();
	}
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* A pipe end can't be fdatasync'ed (EINVAL): it stands for a disk that fails, because nothing else
 * does so on every machine. After the first failure every flush fails, even if the disk is well. */
static void a_failed_flush_is_remembered(void **state)
{
	int fd = image(), p[2], io_fd = fcntl(fd, F_DUPFD_CLOEXEC, 3), good;
	struct rig r = {.fd = fd};

	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	good = fcntl(io_fd, F_DUPFD_CLOEXEC, 3);
	assert_true(sd_event_new(&r.event) >= 0);
	assert_int_equal(disk_io_create(io_fd, SIZE, true, r.event, &r.io), 0);
	assert_int_equal(one(&r, DISK_IO_FLUSH, 0, 0, NULL), 0);
	assert_int_equal(dup3(p[1], io_fd, O_CLOEXEC), io_fd); /* the disk breaks */
	assert_int_equal(one(&r, DISK_IO_FLUSH, 0, 0, NULL), -EINVAL);
	assert_int_equal(dup3(good, io_fd, O_CLOEXEC), io_fd); /* and seems to be well */
	assert_int_equal(one(&r, DISK_IO_FLUSH, 0, 0, NULL), -EINVAL);
	close(p[0]);
	close(p[1]);
	close(good);
	stop(&r);
}

static void destroy_with_work_left(void **state)
{
	static uint8_t data[DISK_IO_QUEUE_MAX][4096];
	struct job j[DISK_IO_QUEUE_MAX];
	uint8_t b;
	struct rig r;

	start(&r, image(), true);
	memset(data, 9, sizeof(data));
	for (unsigned i = 0; i < DISK_IO_QUEUE_MAX; i++) {
		submit(&r, &j[i], DISK_IO_WRITE, i * 4096, 4096, data[i]);
	}
	disk_io_destroy(r.io);
	r.io = NULL;
	assert_int_equal(r.done, 0);
	assert_int_equal(pread(r.fd, &b, 1, DISK_IO_QUEUE_MAX * 4096 - 1), 1);
	assert_int_equal(b, 9);
	stop(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_see_the_writes_before_them),
		cmocka_unit_test(cached_reads_need_no_thread),
		cmocka_unit_test(compare_and_verify),
		cmocka_unit_test(an_aborted_verify_ends),
		cmocka_unit_test(discard_reads_as_zeroes),
		cmocka_unit_test(a_file_size_limit),
		cmocka_unit_test(a_full_disk),
		cmocka_unit_test(a_failed_flush_is_remembered),
		cmocka_unit_test(destroy_with_work_left),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
