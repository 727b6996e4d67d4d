/* SPDX-License-Identifier: MIT
 * vhost-user messages of a front end (a VMM), as a backend sees them.
 *
 * QEMU, docs/interop/vhost-user.rst. A message is a header, size bytes of payload, and file
 * descriptors that come with the header. Host byte order: both ends are on one machine. Everything
 * is checked by vhost_user_decode before a handler sees it: sizes, counts of fds, counts in the
 * payload.
 */
#pragma once

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

enum vhost_user_request {
	VHOST_USER_GET_FEATURES = 1,
	VHOST_USER_SET_FEATURES = 2,
	VHOST_USER_SET_OWNER = 3,
	VHOST_USER_RESET_OWNER = 4,
	VHOST_USER_SET_MEM_TABLE = 5,
	VHOST_USER_SET_VRING_NUM = 8,
	VHOST_USER_SET_VRING_ADDR = 9,
	VHOST_USER_SET_VRING_BASE = 10,
	VHOST_USER_GET_VRING_BASE = 11,
	VHOST_USER_SET_VRING_KICK = 12,
	VHOST_USER_SET_VRING_CALL = 13,
	VHOST_USER_SET_VRING_ERR = 14,
	VHOST_USER_GET_PROTOCOL_FEATURES = 15,
	VHOST_USER_SET_PROTOCOL_FEATURES = 16,
	VHOST_USER_GET_QUEUE_NUM = 17,
	VHOST_USER_SET_VRING_ENABLE = 18,
	VHOST_USER_GET_CONFIG = 24,
	VHOST_USER_SET_CONFIG = 25,
	VHOST_USER_GPU_SET_SOCKET = 33,
	VHOST_USER_RESET_DEVICE = 34,
	VHOST_USER_GET_MAX_MEM_SLOTS = 36,
	VHOST_USER_ADD_MEM_REG = 37,
	VHOST_USER_REM_MEM_REG = 38,
};

#define VHOST_USER_VERSION      1u
#define VHOST_USER_VERSION_MASK 3u
#define VHOST_USER_REPLY        (1u << 2)
#define VHOST_USER_NEED_REPLY   (1u << 3)

#define VHOST_USER_F_PROTOCOL_FEATURES (UINT64_C(1) << 30)

/* Bits of the protocol features. */
enum vhost_user_protocol_feature {
	VHOST_USER_PROTOCOL_F_REPLY_ACK = 3,
	VHOST_USER_PROTOCOL_F_CONFIG = 9,
	VHOST_USER_PROTOCOL_F_RESET_DEVICE = 13,
	VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS = 15,
};

#define VHOST_USER_REGIONS_MAX 8 /* in SET_MEM_TABLE, by the specification */
#define VHOST_USER_FDS_MAX     8
#define VHOST_USER_CONFIG_MAX  256

struct vhost_user_header {
	uint32_t request; /* enum vhost_user_request */
	uint32_t flags;
	uint32_t size; /* of the payload */
};
static_assert(sizeof(struct vhost_user_header) == 12, "wire size");

struct vhost_user_region {
	uint64_t guest; /* physical address */
	uint64_t size;
	uint64_t user;   /* address in the VMM */
	uint64_t offset; /* into the file */
};
static_assert(sizeof(struct vhost_user_region) == 32, "wire size");

struct vhost_user_memory {
	uint32_t n_regions;
	uint32_t pad;
	struct vhost_user_region regions[VHOST_USER_REGIONS_MAX];
};
static_assert(sizeof(struct vhost_user_memory) == 264, "wire size");

struct vhost_user_one_region {
	uint64_t pad;
	struct vhost_user_region region;
};
static_assert(sizeof(struct vhost_user_one_region) == 40, "wire size");

struct vhost_user_vring_state {
	uint32_t index;
	uint32_t num;
};
static_assert(sizeof(struct vhost_user_vring_state) == 8, "wire size");

struct vhost_user_vring_addr {
	uint32_t index;
	uint32_t flags; /* bit 0: log, which was never offered */
	uint64_t desc;  /* the three in the VMM's addresses */
	uint64_t used;
	uint64_t avail;
	uint64_t log;
};
static_assert(sizeof(struct vhost_user_vring_addr) == 40, "wire size");

struct vhost_user_config {
	uint32_t offset;
	uint32_t size;
	uint32_t flags;
	uint8_t data[VHOST_USER_CONFIG_MAX];
};
static_assert(sizeof(struct vhost_user_config) == 268, "wire size");

/* In the number of SET_VRING_KICK, CALL and ERR. */
#define VHOST_USER_VRING_INDEX 0xffu
#define VHOST_USER_VRING_NO_FD (1u << 8)

struct vhost_user_msg {
	struct vhost_user_header header;
	union {
		uint64_t number;
		struct vhost_user_memory memory;
		struct vhost_user_one_region one_region;
		struct vhost_user_vring_state state;
		struct vhost_user_vring_addr addr;
		struct vhost_user_config config;
	};
};

#define VHOST_USER_PAYLOAD_MAX sizeof(struct vhost_user_config)

/* Whether a payload of this size may follow; to be asked before it is read. NULL, or what is wrong
 * with the header in a few words. */
const char *vhost_user_check_header(const struct vhost_user_header *h);

/* Checks a whole message: the payload (header.size bytes) against the request, and the number of
 * fds. Copies it into *out, the rest zeroed. NULL, or what is wrong with it. */
const char *vhost_user_decode(const struct vhost_user_header *header, const void *payload,
	size_t n_fds, struct vhost_user_msg *out);

/* "SET_MEM_TABLE"; "unknown" if it is none. */
const char *vhost_user_name(uint32_t request);
