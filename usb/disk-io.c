/* SPDX-License-Identifier: MIT
 *
 * One ring, three positions, each written by one thread only and only ever growing:
 *
 *	reaped (loop) <= finished (thread) <= submitted (loop)
 *
 * The thread sleeps on a semaphore that counts submissions. Completions reach the loop by an
 * eventfd that is written only when the loop has not been told yet, so a burst costs one write.
 * The order is that of submission: a read behind a write sees it, a flush covers all before it.
 *
 * A failed fdatasync is remembered: Linux drops the dirty mark of the pages it could not write, so
 * that a second fdatasync would succeed although the data is lost. From then on every flush fails
 * (as QEMU does), because what the guest is told is on the disk must be on the disk.
 */
#include "usb/disk-io.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/fd.h"

const bool disk_io_is_nbd = false;

#define SCRATCH_SIZE (128 * 1024)
#define STACK_SIZE   (256 * 1024) /* of which the kernel gives what is touched */

struct disk_io {
	int fd;
	int eventfd;
	uint64_t size;
	bool writable;
	bool block_device;
	bool can_discard;
	bool nowait; /* RWF_NOWAIT works on this file */
	sd_event_source *source;

	struct disk_io_request *ring[DISK_IO_QUEUE_MAX];
	/* 64 bits: they never wrap. */
	uint64_t reaped;
	_Atomic uint64_t finished;
	_Atomic uint64_t submitted;
	atomic_bool told;                /* eventfd is written and not yet read */
	_Atomic uint64_t verify_aborted; /* requests before this position end early */
	bool stop;                       /* ordered by the semaphore */
	sem_t work;
	bool work_valid;
	pthread_t thread;
	bool thread_valid;

	/* The thread's own. */
	int flush_error;
	uint8_t *scratch;
};

/* 0 when all of length was transferred; the file ending before that is an I/O error. */
static int read_full(int fd, uint8_t *data, uint64_t length, uint64_t offset)
{
	while (length > 0) {
		ssize_t n = pread(fd, data, length, (off_t)offset);

		if (n < 0 && errno == EINTR) {
			continue;
		}
		if (n <= 0) {
			return n < 0 ? -errno : -EIO;
		}
		data += n;
		offset += (uint64_t)n;
		length -= (uint64_t)n;
	}
	return 0;
}

static int write_full(int fd, const uint8_t *data, uint64_t length, uint64_t offset)
{
	while (length > 0) {
		ssize_t n = pwrite(fd, data, length, (off_t)offset);

		if (n < 0 && errno == EINTR) {
			continue;
		}
		if (n <= 0) {
			return n < 0 ? -errno : -EIO;
		}
		data += n;
		offset += (uint64_t)n;
		length -= (uint64_t)n;
	}
	return 0;
}

/* VERIFY may span the whole medium: between two pieces it looks whether anybody still wants it. */
static int verify(struct disk_io *io, const struct disk_io_request *r, uint64_t position)
{
	for (uint64_t at = 0; at < r->length; at += SCRATCH_SIZE) {
		uint64_t n = MIN(r->length - at, (uint64_t)SCRATCH_SIZE);
		int e;

		if (atomic_load(&io->verify_aborted) > position) {
			return -ECANCELED;
		}
		e = read_full(io->fd, io->scratch, n, r->offset + at);
		if (e < 0) {
			return e;
		}
	}
	return 0;
}

static int compare(struct disk_io *io, const struct disk_io_request *r)
{
	for (uint64_t at = 0; at < r->length; at += SCRATCH_SIZE) {
		uint64_t n = MIN(r->length - at, (uint64_t)SCRATCH_SIZE);
		int e = read_full(io->fd, io->scratch, n, r->offset + at);

		if (e) {
			return e;
		}
		if (memcmp(io->scratch, r->data + at, n) != 0) {
			return DISK_IO_MISCOMPARE;
		}
	}
	return 0;
}

static int discard(struct disk_io *io, const struct disk_io_request *r)
{
	int e;

	if (r->length == 0) {
		return 0;
	}
	if (io->block_device) {
		uint64_t range[2] = {r->offset, r->length};

		e = ioctl(io->fd, BLKDISCARD, range);
	} else {
		e = fallocate(io->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)r->offset,
			(off_t)r->length);
	}
	return e < 0 ? -errno : 0;
}

static int flush(struct disk_io *io)
{
	if (io->flush_error == 0 && io->writable && fdatasync(io->fd) < 0) {
		io->flush_error = -errno;
	}
	return io->flush_error;
}

static int carry_out(struct disk_io *io, struct disk_io_request *r, uint64_t position)
{
	switch (r->op) {
	case DISK_IO_READ:
		if (r->progress == r->length) { /* nothing, into no buffer */
			return 0;
		}
		return read_full(io->fd, r->data + r->progress, r->length - r->progress,
			r->offset + r->progress);
	case DISK_IO_WRITE:
		return write_full(io->fd, r->data, r->length, r->offset);
	case DISK_IO_COMPARE:
		return compare(io, r);
	case DISK_IO_VERIFY:
		return verify(io, r, position);
	case DISK_IO_DISCARD:
		return discard(io, r);
	default:
		return flush(io);
	}
}

static void *thread_main(void *userdata)
{
	struct disk_io *io = userdata;

	for (;;) {
		uint64_t at = atomic_load_explicit(&io->finished, memory_order_relaxed);
		struct disk_io_request *r;

		while (sem_wait(&io->work) < 0) {
		}
		if (at == atomic_load(&io->submitted)) {
			if (io->stop) {
				return NULL;
			}
			continue;
		}
		r = io->ring[at % DISK_IO_QUEUE_MAX];
		r->error = carry_out(io, r, at);
		atomic_store(&io->finished, at + 1);
		if (!atomic_exchange(&io->told, true)) {
			eventfd_write(io->eventfd, 1);
		}
	}
}

static int handle_finished(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	struct disk_io *io = userdata;
	uint64_t finished;
	eventfd_t count;

	eventfd_read(fd, &count);
	/* Before looking: what finishes after the look tells again. */
	atomic_store(&io->told, false);
	finished = atomic_load(&io->finished);
	while (io->reaped != finished) {
		struct disk_io_request *r = io->ring[io->reaped % DISK_IO_QUEUE_MAX];

		/* First, because done may submit. */
		io->reaped++;
		r->done(r, r->error);
	}
	return 0;
}

bool disk_io_full(const struct disk_io *io)
{
	return atomic_load_explicit(&io->submitted, memory_order_relaxed) - io->reaped >=
	       DISK_IO_QUEUE_MAX;
}

/* Reads what the page cache has, without waiting. True when that is all of it; the thread reads the
 * rest otherwise, and finds out about errors. */
static bool read_cached(struct disk_io *io, struct disk_io_request *r)
{
	while (r->progress < r->length) {
		struct iovec v = {r->data + r->progress, r->length - r->progress};
		ssize_t n = preadv2(io->fd, &v, 1, (off_t)(r->offset + r->progress), RWF_NOWAIT);

		if (n < 0 && (errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL)) {
			io->nowait = false;
		}
		if (n <= 0) {
			return false;
		}
		r->progress += (uint64_t)n;
	}
	return true;
}

void disk_io_submit(struct disk_io *io, struct disk_io_request *r)
{
	uint64_t at = atomic_load_explicit(&io->submitted, memory_order_relaxed);

	assert(!disk_io_full(io));
	assert(r->op == DISK_IO_FLUSH ||
		(r->offset <= io->size && r->length <= io->size - r->offset));
	r->progress = 0;
	if (r->op == DISK_IO_READ && io->nowait && at == io->reaped && read_cached(io, r)) {
		r->done(r, 0);
		return;
	}
	io->ring[at % DISK_IO_QUEUE_MAX] = r;
	atomic_store(&io->submitted, at + 1);
	sem_post(&io->work);
}

void disk_io_abort_verify(struct disk_io *io)
{
	atomic_store(
		&io->verify_aborted, atomic_load_explicit(&io->submitted, memory_order_relaxed));
}

bool disk_io_can_discard(const struct disk_io *io)
{
	return io->can_discard;
}

int disk_io_size(int fd, uint64_t *size_out)
{
	struct stat st;

	if (fstat(fd, &st) < 0) {
		return -errno;
	}
	if (S_ISREG(st.st_mode)) {
		*size_out = (uint64_t)st.st_size;
		return 0;
	}
	if (S_ISBLK(st.st_mode)) {
		return ioctl(fd, BLKGETSIZE64, size_out) < 0 ? -errno : 0;
	}
	return -ENOTSUP;
}

/* Asks for a discard that can't change anything, and looks how it is refused: behind the end of a
 * regular file; at an odd byte of a block device, which the kernel refuses with EINVAL only after
 * it found that the device can discard (block/ioctl.c). */
static bool probe_discard(const struct disk_io *io)
{
	if (!io->writable) {
		return false;
	}
	if (io->block_device) {
		uint64_t range[2] = {1, 1};

		return ioctl(io->fd, BLKDISCARD, range) < 0 && errno == EINVAL;
	}
	/* An offset that is aligned to any block size. */
	return fallocate(io->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		       (off_t)((io->size + 0xfffff) & ~(uint64_t)0xfffff), 0x100000) == 0;
}

static int start_thread(struct disk_io *io)
{
	pthread_attr_t attr;
	sigset_t all, before;
	int e;

	e = pthread_attr_init(&attr);
	if (e) {
		return -e;
	}
	/* All signals go to the loop thread. SIGXFSZ, which pwrite raises here, must not end the
	 * worker: blocked, it is EFBIG. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	e = pthread_create(&io->thread, &attr, thread_main, io);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	io->thread_valid = e == 0;
	return -e;
}

static int init(struct disk_io *io, sd_event *event)
{
	struct stat st;
	int e;

	if (fstat(io->fd, &st) < 0) {
		return -errno;
	}
	io->block_device = S_ISBLK(st.st_mode);
	io->nowait = true;
	io->can_discard = probe_discard(io);
	io->scratch = malloc(SCRATCH_SIZE);
	if (!io->scratch) {
		return -ENOMEM;
	}
	io->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (io->eventfd < 0) {
		return -errno;
	}
	if (sem_init(&io->work, 0, 0) < 0) {
		return -errno;
	}
	io->work_valid = true;
	e = sd_event_add_io(event, &io->source, io->eventfd, EPOLLIN, handle_finished, io);
	if (e < 0) {
		return e;
	}
	return start_thread(io);
}

int disk_io_create(int fd, uint64_t size, bool writable, sd_event *event, struct disk_io **out)
{
	struct disk_io *io = calloc(1, sizeof(*io));
	int e;

	if (!io) {
		safe_close(fd);
		return -ENOMEM;
	}
	io->fd = fd;
	io->eventfd = -1;
	io->size = size;
	io->writable = writable;
	e = init(io, event);
	if (e < 0) {
		disk_io_destroy(io);
		return e;
	}
	*out = io;
	return 0;
}

int disk_io_start(const struct disk_io_options *o, struct disk_io **out)
{
	uint64_t size = 0;
	int e = disk_io_size(o->fd, &size);

	if (e < 0) {
		safe_close(o->fd);
		return e;
	}
	return disk_io_create(o->fd, size, o->writable, o->event, out);
}

int disk_io_open(
	struct disk_io *io, uint32_t block, struct disk_io_medium *out, char *why, size_t why_size)
{
	if (io->size < block) {
		snprintf(why, why_size, "the image is smaller than a block of %u bytes", block);
		return -EINVAL;
	}
	*out = (struct disk_io_medium){.size = io->size, .writable = io->writable};
	return 0;
}

void disk_io_destroy(struct disk_io *io)
{
	if (!io) {
		return;
	}
	if (io->thread_valid) {
		disk_io_abort_verify(io);
		io->stop = true;
		sem_post(&io->work);
		pthread_join(io->thread, NULL);
	}
	sd_event_source_disable_unref(io->source);
	if (io->work_valid) {
		sem_destroy(&io->work);
	}
	safe_close(io->eventfd);
	safe_close(io->fd);
	free(io->scratch);
	free(io);
}
