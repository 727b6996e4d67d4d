/* SPDX-License-Identifier: MIT
 * Mesa's vtest protocol, versions 0 to 2: what virpipe says to a server of virgl on a stream socket
 * (virglrenderer, vtest/vtest_protocol.h). Little-endian 32-bit words; a header of two, and what it
 * is about.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

#define VTEST_VERSION_MAX 2 /* 1 is spoken by nobody: it falls back to 0 */

enum vtest_id {
	VTEST_GET_CAPS = 1,
	VTEST_RESOURCE_CREATE = 2,
	VTEST_RESOURCE_UNREF = 3,
	VTEST_TRANSFER_GET = 4,
	VTEST_TRANSFER_PUT = 5,
	VTEST_SUBMIT = 6,
	VTEST_BUSY_WAIT = 7,
	VTEST_CREATE_RENDERER = 8, /* the first; its length is in bytes */
	VTEST_GET_CAPS2 = 9,
	VTEST_PING_VERSION = 10,
	VTEST_VERSION = 11,
	VTEST_RESOURCE_CREATE2 = 12, /* since version 2: with shared memory */
	VTEST_TRANSFER_GET2 = 13,
	VTEST_TRANSFER_PUT2 = 14,
	VTEST_ID_COUNT_,
};

#define VTEST_HEADER_SIZE 8
#define VTEST_NAME_MAX    4096 /* bytes of CREATE_RENDERER; Mesa sends 64 at most */

struct vtest_header {
	uint32_t length; /* as sent: words, mostly */
	uint32_t id;     /* of a request that this version has */
	uint32_t body;   /* bytes behind the header, without data that the body tells of */
};

struct vtest_resource {
	uint32_t id;
	uint32_t target;
	uint32_t format;
	uint32_t bind;
	uint32_t width;
	uint32_t height;
	uint32_t depth;
	uint32_t array_size;
	uint32_t last_level;
	uint32_t nr_samples;
	uint32_t shared; /* bytes of shared memory; 0: none */
};

struct vtest_transfer {
	uint32_t id;
	uint32_t level;
	uint32_t stride;
	uint32_t layer_stride;
	uint32_t x, y, z;
	uint32_t width, height, depth;
	uint32_t data;   /* bytes that follow (PUT) or are wanted (GET) on the socket */
	uint32_t offset; /* into the shared memory (GET2, PUT2) */
};

/* The name of a request, "unknown" of none. */
const char *vtest_name(uint32_t id);

/* Reads VTEST_HEADER_SIZE bytes as version has it. 0; -EPROTO if there is no such request in it;
 * -EMSGSIZE if its length can't be. The body of SUBMIT has length * 4 bytes, up to 16 GiB: to be
 * bounded by the caller. */
int vtest_header_decode(const void *data, uint32_t version, struct vtest_header *out) _must_check_;

/* The bodies; h is theirs, data has h->body bytes. */
void vtest_resource_decode(
	const struct vtest_header *h, const void *data, struct vtest_resource *out);
void vtest_transfer_decode(
	const struct vtest_header *h, const void *data, struct vtest_transfer *out);
/* Word n of a body. */
uint32_t vtest_word(const void *data, uint32_t n);
