/* SPDX-License-Identifier: MIT */
#include "protocol/gpu-parent.h"

#include <errno.h>
#include <string.h>

#include "base/utf8.h"

#define SCANOUTS 16
#define SIDE_MAX 16384

static const struct {
	uint32_t type;
	enum parent_direction direction;
	size_t min_fds, max_fds;
} shapes[] = {
	{PARENT_RENDERER, PARENT_TO_FRONT, 1, 1},
	{PARENT_DISPLAY, PARENT_TO_FRONT, 0, 0},
	{PARENT_SCREENSHOT, PARENT_TO_FRONT, 0, 0},
	{PARENT_PING, PARENT_TO_FRONT, 0, 0},
	{PARENT_ALLOW, PARENT_TO_FRONT, 0, 0},
	{PARENT_READY, FRONT_TO_PARENT, 0, 0},
	{PARENT_RENDERER_LOST, FRONT_TO_PARENT, 0, 0},
	{PARENT_PICTURE, FRONT_TO_PARENT, 0, 1},
	{PARENT_PONG, FRONT_TO_PARENT, 0, 0},
	{PARENT_RENDERER_STARTED, FRONT_TO_PARENT, 0, 0},
};

int parent_decode(enum parent_direction direction, const void *data, size_t size, size_t n_fds,
	struct parent_msg *out)
{
	struct parent_msg m;
	bool picture;

	if (size != sizeof(m)) {
		return -EBADMSG;
	}
	memcpy(&m, data, sizeof(m));
	picture = m.type == PARENT_PICTURE;
	for (size_t i = 0; i < ARRAY_SIZE(shapes); i++) {
		if (shapes[i].type != m.type || shapes[i].direction != direction) {
			continue;
		}
		if (n_fds < shapes[i].min_fds || n_fds > shapes[i].max_fds || m.quarantined > 1 ||
			!ascii_text_ok(m.renderer, sizeof(m.renderer)) || m.scanout >= SCANOUTS ||
			m.width > SIDE_MAX || m.height > SIDE_MAX || m.error > 0 ||
			(picture && (m.error == 0) != (n_fds == 1)) ||
			(picture && m.error == 0 && (m.width == 0 || m.height == 0))) {
			return -EBADMSG;
		}
		*out = m;
		return 0;
	}
	return -EBADMSG;
}

bool parent_draws_in_software(const char *renderer)
{
	return strncasecmp(renderer, "llvmpipe", 8) == 0 ||
	       strncasecmp(renderer, "softpipe", 8) == 0;
}
