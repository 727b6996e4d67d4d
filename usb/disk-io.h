/* SPDX-License-Identifier: MIT
 * The image behind a virtual stick: a file or block device, with the one I/O thread that may wait
 * for its disk (disk-io.c); or, in devbroker-usb-nbd, what an NBD server exports (disk-io-nbd.c).
 *
 * Requests are carried out in the order of submission. Of a file, a read that the page cache can
 * answer at once, with nothing before it, is done on the loop, without a thread; everything else
 * goes to the thread and comes back to the loop through an eventfd. The caller owns the requests:
 * nothing is allocated or copied per request.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "base/cleanup.h"

/* Requests submitted and not done. A power of two. */
#define DISK_IO_QUEUE_MAX 64

enum disk_io_op {
	DISK_IO_READ,    /* length bytes into data */
	DISK_IO_WRITE,   /* length bytes from data: into the page cache */
	DISK_IO_COMPARE, /* length bytes of data with the image; DISK_IO_MISCOMPARE if they differ
			  */
	DISK_IO_VERIFY,  /* reads length bytes for the errors only */
	DISK_IO_DISCARD, /* the range is no longer needed; what it reads as is undefined */
	DISK_IO_FLUSH,   /* everything written before is on the disk */
};

/* Beside 0 and -errno. */
#define DISK_IO_MISCOMPARE 1

struct disk_io_request {
	uint8_t op; /* enum disk_io_op */
	uint64_t offset;
	uint64_t length;
	uint8_t *data; /* borrowed until done */
	/* On the loop thread, exactly once; maybe from within disk_io_submit. error is 0,
	 * -errno or DISK_IO_MISCOMPARE. */
	void (*done)(struct disk_io_request *r, int error);
	void *userdata;
	int error;         /* private */
	uint64_t progress; /* private: bytes the loop has read already */
};

struct disk_io;

/* Which of the two this program is linked with. */
extern const bool disk_io_is_nbd;

struct disk_io_options {
	int fd;             /* taken even on error: the image, or a socket to an NBD server */
	const char *export; /* borrowed; of an NBD server: the name */
	bool writable;
	sd_event *event; /* borrowed */
};

struct disk_io_medium {
	uint64_t size; /* bytes */
	bool writable;
};

/* Before the sandbox is locked: starts the thread, if there is to be one. 0 or -errno. */
int disk_io_start(const struct disk_io_options *options, struct disk_io **out) _must_check_;
/* Before the first request: what it is. A server is heard for the first time, for 5 s at most.
 * block: bytes of the unit's blocks. 0; or -errno, with a text in why. */
int disk_io_open(struct disk_io *io, uint32_t block, struct disk_io_medium *out, char *why,
	size_t why_size) _must_check_;

/* A file's: takes fd even on error. size is what the guest may reach; no request goes behind it
 * (the caller checks). Starts the thread. 0 or -errno. */
int disk_io_create(
	int fd, uint64_t size, bool writable, sd_event *event, struct disk_io **out) _must_check_;
/* Waits for the thread to carry out what was submitted, whose done is not called any more. Takes
 * NULL. */
void disk_io_destroy(struct disk_io *io);

/* Size in bytes of a regular file or block device. 0 or -errno (-ENOTSUP: something else). */
int disk_io_size(int fd, uint64_t *size_out) _must_check_;

/* True while another request would not fit: wait for a done. */
bool disk_io_full(const struct disk_io *io);
/* r and its data stay untouched until done. Must not be full. */
void disk_io_submit(struct disk_io *io, struct disk_io_request *r);
/* Long DISK_IO_VERIFY requests that were submitted end early, with -ECANCELED. */
void disk_io_abort_verify(struct disk_io *io);
/* Whether DISK_IO_DISCARD works here. */
bool disk_io_can_discard(const struct disk_io *io);
