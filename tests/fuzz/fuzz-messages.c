/* SPDX-License-Identifier: MIT
 * Everything that comes in messages: of a VMM, of a renderer, of a front, of their parent. The
 * first byte says which, the second how many fds came with it.
 */
#include <assert.h>
#include <string.h>

#include "gpu/link.h"
#include "protocol/gpu-parent.h"
#include "protocol/vhost-user.h"
#include "tests/fuzz/fuzz.h"

static void take_vhost_user(const uint8_t *data, size_t size, size_t n_fds)
{
	struct vhost_user_header h;
	struct vhost_user_msg m;

	if (size < sizeof(h)) {
		return;
	}
	memcpy(&h, data, sizeof(h));
	if (vhost_user_check_header(&h)) {
		return;
	}
	assert(h.size <= VHOST_USER_PAYLOAD_MAX);
	if (size - sizeof(h) < h.size || vhost_user_decode(&h, data + sizeof(h), n_fds, &m)) {
		return;
	}
	/* What the front takes for granted. */
	assert(n_fds <= VHOST_USER_FDS_MAX);
	assert(vhost_user_name(h.request));
	switch (h.request) {
	case VHOST_USER_SET_MEM_TABLE:
		assert(m.memory.n_regions == n_fds && n_fds <= VHOST_USER_REGIONS_MAX);
		break;
	case VHOST_USER_ADD_MEM_REG:
	case VHOST_USER_GPU_SET_SOCKET:
		assert(n_fds == 1);
		break;
	case VHOST_USER_GET_CONFIG:
		assert(m.config.size <= VHOST_USER_CONFIG_MAX &&
			m.config.offset <= VHOST_USER_CONFIG_MAX - m.config.size);
		break;
	default:
		break;
	}
}

static void take_link(enum link_direction direction, const uint8_t *data, size_t size, size_t n_fds)
{
	union link_msg m;

	if (link_decode(direction, data, size, n_fds, &m) < 0) {
		return;
	}
	assert(m.header.size == size && n_fds <= LINK_FDS_MAX);
	switch (m.header.type) {
	case LINK_START:
	case LINK_STOPPED:
	case LINK_BROKEN:
		assert(m.queue.queue < LINK_QUEUES);
		break;
	case LINK_SCANOUT:
		assert(m.scanout.scanout < LINK_SCANOUTS);
		break;
	default:
		break;
	}
	if (m.header.type == LINK_BROKEN) {
		assert(memchr(m.broken.reason, '\0', sizeof(m.broken.reason)));
	}
}

static void take_parent(
	enum parent_direction direction, const uint8_t *data, size_t size, size_t n_fds)
{
	struct parent_msg m;

	if (parent_decode(direction, data, size, n_fds, &m) == 0) {
		assert(size == sizeof(m) && n_fds <= 1);
		assert(m.scanout < LINK_SCANOUTS);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t n_fds;

	if (size < 2) {
		return 0;
	}
	n_fds = data[1] % 10;
	switch (data[0] % 5) {
	case 0:
		take_vhost_user(data + 2, size - 2, n_fds);
		break;
	case 1:
		take_link(LINK_TO_RENDERER, data + 2, size - 2, n_fds);
		break;
	case 2:
		take_link(LINK_TO_FRONT, data + 2, size - 2, n_fds);
		break;
	case 3:
		take_parent(PARENT_TO_FRONT, data + 2, size - 2, n_fds);
		break;
	default:
		take_parent(FRONT_TO_PARENT, data + 2, size - 2, n_fds);
	}
	return 0;
}
