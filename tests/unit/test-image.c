/* SPDX-License-Identifier: MIT */
#include "broker/image.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/test.h"

struct dir {
	char path[64];
	char image[96];
};

static int set_up(void **state)
{
	struct dir *d = calloc(1, sizeof(*d));
	int fd;

	strcpy(d->path, "/tmp/devbroker-test-image-XXXXXX");
	assert_non_null(mkdtemp(d->path));
	snprintf(d->image, sizeof(d->image), "%s/disk.img", d->path);
	fd = open(d->image, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 1024 * 1024 + 100), 0);
	close(fd);
	*state = d;
	return 0;
}

static int tear_down(void **state)
{
	struct dir *d = *state;

	unlink(d->image);
	assert_int_equal(rmdir(d->path), 0);
	free(d);
	return 0;
}

static void a_good_image(void **state)
{
	struct dir *d = *state;
	struct refusal_text text;
	struct image_info rw, ro;
	int a = open(d->image, O_RDWR | O_CLOEXEC), b = open(d->image, O_RDONLY | O_CLOEXEC);
	int other = memfd_create("other", MFD_CLOEXEC);

	assert_int_equal(image_check(a, false, "disk.img", &rw, &text), 0);
	assert_int_equal(rw.size, 1024 * 1024);
	assert_false(rw.block_device);
	assert_int_equal(image_check(b, true, "disk.img", &ro, &text), 0);
	assert_true(image_same(&rw, &ro));
	assert_int_equal(ftruncate(other, 4096), 0);
	assert_int_equal(image_check(other, false, "other", &ro, &text), 0);
	assert_false(image_same(&rw, &ro));
	close(a);
	close(b);
	close(other);
}

static void refused(int fd, bool read_only, const char *why)
{
	struct image_info info = {.size = 42};
	struct refusal_text text = {.sentence = ""};

	assert_true(fd >= 0);
	assert_int_equal(
		image_check(fd, read_only, "x\n.img", &info, &text), REFUSAL_IMAGE_INVALID);
	assert_int_equal(info.size, 42); /* untouched on failure */
	assert_non_null(strstr(text.sentence, why));
	assert_non_null(strstr(text.sentence, "x\\x0a.img"));
	assert_true(strlen(text.remedy) > 0);
	close(fd);
}

static void what_is_no_image(void **state)
{
	struct dir *d = *state;
	int p[2], s[2];

	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s), 0);
	refused(open(d->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), true, "is a directory");
	refused(p[0], true, "is a FIFO");
	refused(open("/dev/zero", O_RDWR | O_CLOEXEC), false, "is a character device");
	refused(s[0], false, "is a socket");
	refused(memfd_create("empty", MFD_CLOEXEC), false, "is empty");
	refused(open(d->image, O_RDONLY | O_CLOEXEC), false, "for reading only");
	refused(open(d->image, O_WRONLY | O_CLOEXEC), true, "not opened for reading");
	refused(open(d->image, O_PATH | O_CLOEXEC), true, "not opened for reading");
	refused(open(d->image, O_RDWR | O_APPEND | O_CLOEXEC), false, "for appending");
	close(p[1]);
	close(s[1]);
}

static void less_than_a_sector(void **state)
{
	int fd = memfd_create("small", MFD_CLOEXEC);

	assert_int_equal(ftruncate(fd, 511), 0);
	refused(fd, false, "511 bytes");
	fd = memfd_create("sector", MFD_CLOEXEC);
	assert_int_equal(ftruncate(fd, 512), 0);
	assert_int_equal(image_check(fd, false, "sector", &(struct image_info){0}, NULL), 0);
	close(fd);
}

static int open_mode(const struct dir *d, bool read_only)
{
	int fd = open(d->image, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

/* One image, two open file descriptions, every combination of modes. */
static void locks_keep_apart(void **state)
{
	static const struct {
		bool first, second;
		int want;
	} cases[] = {
		{false, false, REFUSAL_IMAGE_BUSY},
		{false, true, REFUSAL_IMAGE_BUSY},
		{true, false, REFUSAL_IMAGE_BUSY},
		{true, true, 0},
	};
	struct dir *d = *state;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		int a = open_mode(d, cases[i].first), b = open_mode(d, cases[i].second);
		struct refusal_text text = {.sentence = ""};

		assert_int_equal(image_probe(b, cases[i].second, d->image, &text), 0);
		assert_int_equal(image_lock(a, cases[i].first, d->image, &text), 0);
		/* What is ours is not in our way. */
		assert_int_equal(image_probe(a, cases[i].first, d->image, &text), 0);
		assert_int_equal(image_probe(b, cases[i].second, d->image, &text), cases[i].want);
		assert_int_equal(image_lock(b, cases[i].second, d->image, &text), cases[i].want);
		/* The failed attempt left nothing behind, and took nothing from the first. */
		image_unlock(b);
		assert_int_equal(image_probe(b, cases[i].second, d->image, &text), cases[i].want);
		image_unlock(a);
		assert_int_equal(image_lock(b, cases[i].second, d->image, &text), 0);
		close(a);
		close(b);
	}
}

/* A failed lock must not keep others out. */
static void a_refused_lock_leaves_nothing(void **state)
{
	struct dir *d = *state;
	int a = open_mode(d, true), b = open_mode(d, false), c = open_mode(d, true);

	assert_int_equal(image_lock(a, true, d->image, NULL), 0);
	assert_int_equal(image_lock(b, false, d->image, NULL), REFUSAL_IMAGE_BUSY);
	assert_int_equal(image_lock(c, true, d->image, NULL), 0);
	close(a);
	close(b);
	close(c);
}

static void locks_live_with_the_last_duplicate(void **state)
{
	struct dir *d = *state;
	int a = open_mode(d, false), b = open_mode(d, false);
	int copy = fcntl(a, F_DUPFD_CLOEXEC, 3);

	assert_int_equal(image_lock(a, false, d->image, NULL), 0);
	close(a);
	assert_int_equal(image_probe(b, false, d->image, NULL), REFUSAL_IMAGE_BUSY);
	close(copy);
	assert_int_equal(image_probe(b, false, d->image, NULL), 0);
	close(b);
}

/* A child locks the image; we are told its pid and name, and not that of the process that we got
 * our fd from. */
static void the_holder_is_named(void **state)
{
	struct dir *d = *state;
	int fd = open_mode(d, false), ready[2], go[2];
	struct refusal_text text = {.sentence = ""};
	char want[64], c;
	pid_t pid;

	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	assert_int_equal(pipe2(go, O_CLOEXEC), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		int own = open(d->image, O_RDWR | O_CLOEXEC);
		_unused_ ssize_t n;

		close(go[1]);
		if (image_lock(own, false, d->image, NULL) != 0) {
			_exit(1);
		}
		n = write(ready[1], "x", 1);
		n = read(go[0], &c, 1);
		_exit(0);
	}
	assert_int_equal(read(ready[0], &c, 1), 1);
	assert_int_equal(image_lock(fd, false, d->image, &text), REFUSAL_IMAGE_BUSY);
	snprintf(want, sizeof(want), "is in use by test-image (pid %d).", (int)pid);
	assert_non_null(strstr(text.sentence, want));
	close(go[1]);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_int_equal(image_lock(fd, false, d->image, &text), 0);
	close(fd);
	close(go[0]);
	close(ready[0]);
	close(ready[1]);
}

static void opening_by_path(void **state)
{
	struct dir *d = *state;
	struct refusal_text text;
	char fifo[128];
	int fd = -1;

	assert_int_equal(image_open(d->image, false, &fd, &text), 0);
	assert_int_equal(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDWR);
	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	close(fd);
	assert_int_equal(image_open(d->image, true, &fd, &text), 0);
	assert_int_equal(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY);
	close(fd);
	fd = -1;
	snprintf(fifo, sizeof(fifo), "%s/fifo", d->path);
	assert_int_equal(image_open(fifo, false, &fd, &text), REFUSAL_IMAGE_INVALID);
	assert_non_null(strstr(text.sentence, "No such file"));
	assert_int_equal(mkfifo(fifo, 0600), 0);
	assert_int_equal(image_open(fifo, false, &fd, &text), REFUSAL_IMAGE_INVALID);
	assert_non_null(strstr(text.sentence, "is a FIFO"));
	unlink(fifo);
	assert_int_equal(image_open(d->path, true, &fd, &text), REFUSAL_IMAGE_INVALID);
	assert_non_null(strstr(text.sentence, "is a directory"));
	assert_int_equal(image_open("/dev/null", false, &fd, &text), REFUSAL_IMAGE_INVALID);
	assert_int_equal(fd, -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_good_image),
		cmocka_unit_test(what_is_no_image),
		cmocka_unit_test(less_than_a_sector),
		cmocka_unit_test(locks_keep_apart),
		cmocka_unit_test(a_refused_lock_leaves_nothing),
		cmocka_unit_test(locks_live_with_the_last_duplicate),
		cmocka_unit_test(the_holder_is_named),
		cmocka_unit_test(opening_by_path),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
