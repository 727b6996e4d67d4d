/* SPDX-License-Identifier: MIT */
#include "protocol/vtest.h"

#include <errno.h>
#include <string.h>

#include "base/checked.h"

#define WORDS_ANY UINT16_MAX /* as many as the header says */

struct request {
	const char *name;
	uint16_t words; /* of the body */
	/* The length in the header is this exactly, or (Mesa counts data that it sends elsewhere)
	 * more. */
	bool longer;
	uint8_t since;
};

static const struct request requests[] = {
	[VTEST_GET_CAPS] = {"GET_CAPS", 0, false, 0},
	[VTEST_RESOURCE_CREATE] = {"RESOURCE_CREATE", 10, false, 0},
	[VTEST_RESOURCE_UNREF] = {"RESOURCE_UNREF", 1, false, 0},
	[VTEST_TRANSFER_GET] = {"TRANSFER_GET", 11, true, 0},
	[VTEST_TRANSFER_PUT] = {"TRANSFER_PUT", 11, true, 0},
	[VTEST_SUBMIT] = {"SUBMIT", WORDS_ANY, false, 0},
	[VTEST_BUSY_WAIT] = {"BUSY_WAIT", 2, false, 0},
	[VTEST_CREATE_RENDERER] = {"CREATE_RENDERER", WORDS_ANY, false, 0},
	[VTEST_GET_CAPS2] = {"GET_CAPS2", 0, false, 0},
	[VTEST_PING_VERSION] = {"PING_VERSION", 0, false, 0},
	[VTEST_VERSION] = {"VERSION", 1, false, 0},
	[VTEST_RESOURCE_CREATE2] = {"RESOURCE_CREATE2", 11, false, 2},
	[VTEST_TRANSFER_GET2] = {"TRANSFER_GET2", 10, true, 2},
	[VTEST_TRANSFER_PUT2] = {"TRANSFER_PUT2", 10, true, 2},
};
_Static_assert(ARRAY_SIZE(requests) == VTEST_ID_COUNT_, "one per request");

uint32_t vtest_word(const void *data, uint32_t n)
{
	const uint8_t *p = (const uint8_t *)data + (size_t)n * 4;

	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

const char *vtest_name(uint32_t id)
{
	return id < ARRAY_SIZE(requests) && requests[id].name ? requests[id].name : "unknown";
}

int vtest_header_decode(const void *data, uint32_t version, struct vtest_header *out)
{
	struct vtest_header h = {.length = vtest_word(data, 0), .id = vtest_word(data, 1)};
	const struct request *r;

	if (h.id >= ARRAY_SIZE(requests) || !requests[h.id].name ||
		requests[h.id].since > version) {
		return -EPROTO;
	}
	r = &requests[h.id];
	if (h.id == VTEST_CREATE_RENDERER) {
		if (h.length > VTEST_NAME_MAX) {
			return -EMSGSIZE;
		}
		h.body = h.length;
	} else if (r->words == WORDS_ANY) {
		if (h.length > UINT32_MAX / 4) {
			return -EMSGSIZE;
		}
		h.body = h.length * 4;
	} else {
		if (h.length < r->words || (h.length > r->words && !r->longer)) {
			return -EMSGSIZE;
		}
		h.body = r->words * 4U;
	}
	*out = h;
	return 0;
}

void vtest_resource_decode(
	const struct vtest_header *h, const void *data, struct vtest_resource *out)
{
	*out = (struct vtest_resource){
		.id = vtest_word(data, 0),
		.target = vtest_word(data, 1),
		.format = vtest_word(data, 2),
		.bind = vtest_word(data, 3),
		.width = vtest_word(data, 4),
		.height = vtest_word(data, 5),
		.depth = vtest_word(data, 6),
		.array_size = vtest_word(data, 7),
		.last_level = vtest_word(data, 8),
		.nr_samples = vtest_word(data, 9),
		.shared = h->id == VTEST_RESOURCE_CREATE2 ? vtest_word(data, 10) : 0,
	};
}

void vtest_transfer_decode(
	const struct vtest_header *h, const void *data, struct vtest_transfer *out)
{
	bool shared = h->id == VTEST_TRANSFER_GET2 || h->id == VTEST_TRANSFER_PUT2;
	uint32_t box = shared ? 2 : 4;

	/* Of the shared kind the size of the data says nothing that the box doesn't. */
	*out = (struct vtest_transfer){
		.id = vtest_word(data, 0),
		.level = vtest_word(data, 1),
		.stride = shared ? 0 : vtest_word(data, 2),
		.layer_stride = shared ? 0 : vtest_word(data, 3),
		.x = vtest_word(data, box),
		.y = vtest_word(data, box + 1),
		.z = vtest_word(data, box + 2),
		.width = vtest_word(data, box + 3),
		.height = vtest_word(data, box + 4),
		.depth = vtest_word(data, box + 5),
		.data = shared ? 0 : vtest_word(data, 10),
		.offset = shared ? vtest_word(data, 9) : 0,
	};
}
