/* SPDX-License-Identifier: MIT
 * Disk images as the broker sees them: an fd that is checked, identified and locked, never read.
 *
 * Locks are OFD locks at the byte offsets QEMU uses (block/file-posix.c: RAW_LOCK_PERM_BASE 100,
 * RAW_LOCK_SHARED_BASE 200), so that a QEMU that holds the image refuses us and is refused by us.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"
#include "protocol/refusal.h"

struct image_info {
	dev_t dev; /* with ino (regular file) or rdev (block device): which image it is */
	ino_t ino;
	dev_t rdev;
	uint64_t size; /* bytes, a multiple of 512, > 0 */
	bool block_device;
};

/* Checks that fd is a regular file or block device of a usable size, opened for reading, and for
 * writing unless read_only. name is for sentences (escaped by the callee). 0, -errno, or
 * REFUSAL_IMAGE_INVALID with text. */
int image_check(int fd, bool read_only, const char *name, struct image_info *out,
	struct refusal_text *text) _must_check_;
bool image_same(const struct image_info *a, const struct image_info *b);

/* Takes the locks of a writer (or of a reader that tolerates readers, if read_only) on fd's open
 * file description. The worker that gets a duplicate of fd keeps them alive; they end with the
 * last duplicate, or by image_unlock. 0, -errno, or REFUSAL_IMAGE_BUSY with text that names the
 * holder where it can be found (pid and program, through /proc/PID/fdinfo). */
int image_lock(int fd, bool read_only, const char *name, struct refusal_text *text) _must_check_;
void image_unlock(int fd);
/* Only tests for it; nothing stays locked. */
int image_probe(int fd, bool read_only, const char *name, struct refusal_text *text) _must_check_;
/* Opens path as root would for an image in configuration: O_CLOEXEC|O_NOCTTY|O_NONBLOCK, no FIFO or
 * device other than block is ever opened for I/O. 0 with *fd_out, or REFUSAL_IMAGE_INVALID. */
int image_open(
	const char *path, bool read_only, int *fd_out, struct refusal_text *text) _must_check_;
