/* SPDX-License-Identifier: MIT */
#include "protocol/vhost-user.h"

#include <string.h>

/* One table checks everything that can be checked without knowing the device. */
struct shape {
	uint32_t request;
	uint16_t min_size;
	uint16_t max_size;
	uint8_t min_fds;
	uint8_t max_fds;
	const char *name;
	/* NULL, or what is wrong. */
	const char *(*check)(const struct vhost_user_msg *m, size_t n_fds);
};

static const char *check_memory(const struct vhost_user_msg *m, size_t n_fds)
{
	size_t size = offsetof(struct vhost_user_memory, regions) +
		      (size_t)m->memory.n_regions * sizeof(m->memory.regions[0]);

	if (m->memory.n_regions > VHOST_USER_REGIONS_MAX || m->header.size < size) {
		return "more memory regions than the message holds";
	}
	return m->memory.n_regions == n_fds ? NULL : "not one fd for each memory region";
}

static const char *check_vring_fd(const struct vhost_user_msg *m, size_t n_fds)
{
	bool none = m->number & VHOST_USER_VRING_NO_FD;

	return none == (n_fds == 0) ? NULL : "a queue's fd is missing, or one too many";
}

static const char *check_config(const struct vhost_user_msg *m, size_t n_fds)
{
	size_t head = offsetof(struct vhost_user_config, data);

	if (m->config.size > VHOST_USER_CONFIG_MAX || m->config.offset > VHOST_USER_CONFIG_MAX ||
		m->config.offset + m->config.size > VHOST_USER_CONFIG_MAX ||
		m->header.size != head + m->config.size) {
		return "configuration beyond its end";
	}
	return NULL;
}

#define EMPTY(request)                                           \
	{                                                        \
		VHOST_USER_##request, 0, 0, 0, 0, #request, NULL \
	}
#define NUMBER(request)                                          \
	{                                                        \
		VHOST_USER_##request, 8, 8, 0, 0, #request, NULL \
	}

static const struct shape shapes[] = {
	EMPTY(GET_FEATURES),
	NUMBER(SET_FEATURES),
	EMPTY(SET_OWNER),
	EMPTY(RESET_OWNER),
	{VHOST_USER_SET_MEM_TABLE, 8, sizeof(struct vhost_user_memory), 0, VHOST_USER_REGIONS_MAX,
		"SET_MEM_TABLE", check_memory},
	NUMBER(SET_VRING_NUM),
	{VHOST_USER_SET_VRING_ADDR, 40, 40, 0, 0, "SET_VRING_ADDR", NULL},
	NUMBER(SET_VRING_BASE),
	NUMBER(GET_VRING_BASE),
	{VHOST_USER_SET_VRING_KICK, 8, 8, 0, 1, "SET_VRING_KICK", check_vring_fd},
	{VHOST_USER_SET_VRING_CALL, 8, 8, 0, 1, "SET_VRING_CALL", check_vring_fd},
	{VHOST_USER_SET_VRING_ERR, 8, 8, 0, 1, "SET_VRING_ERR", check_vring_fd},
	EMPTY(GET_PROTOCOL_FEATURES),
	NUMBER(SET_PROTOCOL_FEATURES),
	EMPTY(GET_QUEUE_NUM),
	NUMBER(SET_VRING_ENABLE),
	{VHOST_USER_GET_CONFIG, 12, sizeof(struct vhost_user_config), 0, 0, "GET_CONFIG",
		check_config},
	{VHOST_USER_SET_CONFIG, 12, sizeof(struct vhost_user_config), 0, 0, "SET_CONFIG",
		check_config},
	{VHOST_USER_GPU_SET_SOCKET, 0, 8, 1, 1, "GPU_SET_SOCKET", NULL},
	EMPTY(RESET_DEVICE),
	EMPTY(GET_MAX_MEM_SLOTS),
	{VHOST_USER_ADD_MEM_REG, 40, 40, 1, 1, "ADD_MEM_REG", NULL},
	/* Some front ends send the region's fd once more. */
	{VHOST_USER_REM_MEM_REG, 40, 40, 0, 1, "REM_MEM_REG", NULL},
};

static const struct shape *shape_of(uint32_t request)
{
	for (size_t i = 0; i < ARRAY_SIZE(shapes); i++) {
		if (shapes[i].request == request) {
			return &shapes[i];
		}
	}
	return NULL;
}

const char *vhost_user_check_header(const struct vhost_user_header *h)
{
	const struct shape *s = shape_of(h->request);

	if ((h->flags & VHOST_USER_VERSION_MASK) != VHOST_USER_VERSION) {
		return "another version of vhost-user";
	}
	if (h->flags & VHOST_USER_REPLY) {
		return "a reply that nobody asked for";
	}
	if (!s) {
		return "a request that was not offered";
	}
	return h->size < s->min_size || h->size > s->max_size ? "a request of the wrong size"
							      : NULL;
}

const char *vhost_user_decode(const struct vhost_user_header *header, const void *payload,
	size_t n_fds, struct vhost_user_msg *out)
{
	const char *why = vhost_user_check_header(header);
	const struct shape *s = shape_of(header->request);
	struct vhost_user_msg m = {.header = *header};

	if (why) {
		return why;
	}
	if (n_fds < s->min_fds || n_fds > s->max_fds) {
		return "a request with the wrong number of fds";
	}
	memcpy(&m.number, payload, header->size);
	why = s->check ? s->check(&m, n_fds) : NULL;
	if (!why) {
		*out = m;
	}
	return why;
}

const char *vhost_user_name(uint32_t request)
{
	const struct shape *s = shape_of(request);

	return s ? s->name : "unknown";
}
