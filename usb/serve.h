/* SPDX-License-Identifier: MIT
 * One lent device served from here on: sandbox, backend, engine, control socket, loop.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "usb/backend.h"

struct serve_options {
	int control_fd;   /* taken; -1: started by hand, without a broker */
	int listen_fd;    /* taken; bound, where the next broker finds it; -1: there is none */
	int stream_fd;    /* taken */
	int disk_fd;      /* taken; an image (or a socket to its NBD server), or */
	int device_fd;    /* taken; a device of the host; the other one is -1 */
	const char *name; /* for the log */
	enum usb_speed speed;
	const char *export; /* of an NBD server */
	const char *serial;
	const char *product; // may be NULL
	bool read_only;
	bool cdrom;            /* the image is one */
	bool allow_firmware;   /* of the device */
	uint32_t interfaces;   /* of the device: a bit for each that the guest sees */
	uint64_t usbfs_memory; /* bytes of the kernel's for its transfers */
	uint32_t max_transfers;
	uint64_t max_bytes;
	uint32_t stages; /* enum sandbox_stage bits */
};

/* Closes the sandbox and serves until the end. Returns the exit code: 0 the device was detached or
 * the guest's side closed the stream, SERVE_EXIT_* otherwise. */
int serve(const struct serve_options *o) _must_check_;

#define SERVE_EXIT_FAILED      1
#define SERVE_EXIT_PEER_BAD    3
#define SERVE_EXIT_DEVICE_LOST 4
#define SERVE_EXIT_BROKER_GONE 5
#define SERVE_EXIT_DEVICE_BUSY 6
#define SERVE_EXIT_NOT_SHOWN   7
