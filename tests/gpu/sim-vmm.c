/* SPDX-License-Identifier: MIT */
#include "tests/gpu/sim-vmm.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/fd.h"

#define REPLY_MS 5000
#define PROTOCOL_FEATURES                                                           \
	(1 << VHOST_USER_PROTOCOL_F_REPLY_ACK | 1 << VHOST_USER_PROTOCOL_F_CONFIG | \
		1 << VHOST_USER_PROTOCOL_F_RESET_DEVICE)

int sim_memory_init(struct sim_memory *m, size_t size)
{
	*m = (struct sim_memory){.fd = memfd_create("guest", MFD_CLOEXEC), .size = size};
	if (m->fd < 0 || ftruncate(m->fd, (off_t)size) < 0) {
		return -errno;
	}
	m->base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, m->fd, 0);
	if (m->base == MAP_FAILED) {
		m->base = NULL;
		return -errno;
	}
	return 0;
}

void sim_memory_finish(struct sim_memory *m)
{
	if (m->base) {
		munmap(m->base, m->size);
		m->base = NULL;
	}
	m->fd = safe_close(m->fd);
}

void *sim_memory_at(const struct sim_memory *m, uint64_t guest)
{
	if (guest < m->size / 2) {
		return m->base + guest;
	}
	if (guest >= SIM_HIGH && guest - SIM_HIGH < m->size / 2) {
		return m->base + m->size / 2 + (guest - SIM_HIGH);
	}
	return NULL;
}

uint64_t sim_memory_user(const struct sim_memory *m, uint64_t guest)
{
	return (uint64_t)(uintptr_t)sim_memory_at(m, guest);
}

void sim_memory_table(const struct sim_memory *m, struct vhost_user_memory *out)
{
	uint64_t half = m->size / 2, user = (uint64_t)(uintptr_t)m->base;

	*out = (struct vhost_user_memory){.n_regions = 2};
	out->regions[0] = (struct vhost_user_region){0, half, user, 0};
	out->regions[1] = (struct vhost_user_region){SIM_HIGH, half, user + half, half};
}

int sim_vmm_send(const struct sim_vmm *v, uint32_t request, uint32_t flags, const void *payload,
	size_t size, const int *fds, size_t n_fds)
{
	struct vhost_user_header h = {request, VHOST_USER_VERSION | flags, (uint32_t)size};
	struct iovec iov[2] = {{&h, sizeof(h)}, {(void *)(uintptr_t)payload, size}};
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int) * 64)];
	} control = {0};
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = size > 0 ? 2 : 1};

	if (n_fds > 0) {
		struct cmsghdr *c = &control.align;

		n_fds = MIN(n_fds, (size_t)64);
		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * n_fds);
	}
	return sendmsg(v->fd, &msg, MSG_NOSIGNAL) == (ssize_t)(sizeof(h) + size) ? 0 : -EPIPE;
}

static int receive(const struct sim_vmm *v, void *data, size_t size)
{
	uint8_t *at = data;

	while (size > 0) {
		struct pollfd p = {.fd = v->fd, .events = POLLIN};
		ssize_t n;

		if (poll(&p, 1, REPLY_MS) == 0) {
			return -ETIMEDOUT;
		}
		n = recv(v->fd, at, size, 0);
		if (n <= 0) {
			return -EPIPE;
		}
		at += n;
		size -= (size_t)n;
	}
	return 0;
}

int sim_vmm_reply(const struct sim_vmm *v, uint32_t request, void *payload, size_t size)
{
	struct vhost_user_header h;
	int r = receive(v, &h, sizeof(h));

	if (r == 0 && (h.request != request || !(h.flags & VHOST_USER_REPLY) || h.size != size)) {
		r = -EPROTO;
	}
	return r == 0 ? receive(v, payload, size) : r;
}

int sim_vmm_ask(const struct sim_vmm *v, uint32_t request, uint64_t *out)
{
	int r = sim_vmm_send(v, request, 0, NULL, 0, NULL, 0);

	return r == 0 ? sim_vmm_reply(v, request, out, sizeof(*out)) : r;
}

int sim_vmm_tell(const struct sim_vmm *v, uint32_t request, const void *payload, size_t size,
	const int *fds, size_t n_fds)
{
	bool ack = v->protocol_features & 1 << VHOST_USER_PROTOCOL_F_REPLY_ACK;
	uint64_t number = 0;
	int r = sim_vmm_send(
		v, request, ack ? VHOST_USER_NEED_REPLY : 0, payload, size, fds, n_fds);

	if (r < 0) {
		return r;
	}
	if (!ack) {
		return sim_vmm_ask(v, VHOST_USER_GET_FEATURES, &number);
	}
	r = sim_vmm_reply(v, request, &number, sizeof(number));
	return r == 0 && number != 0 ? 1 : r;
}

int sim_vmm_tell_number(const struct sim_vmm *v, uint32_t request, uint64_t number)
{
	return sim_vmm_tell(v, request, &number, sizeof(number), NULL, 0);
}

int sim_vmm_init(struct sim_vmm *v, int fd, size_t memory)
{
	uint64_t offered = 0;
	int r;

	*v = (struct sim_vmm){.fd = fd, .memory.fd = -1};
	r = sim_memory_init(&v->memory, memory);
	if (r == 0) {
		r = sim_vmm_ask(v, VHOST_USER_GET_FEATURES, &v->features);
	}
	if (r == 0) {
		r = sim_vmm_ask(v, VHOST_USER_GET_PROTOCOL_FEATURES, &offered);
	}
	if (r == 0) {
		v->protocol_features = offered & PROTOCOL_FEATURES;
		/* Not acknowledged itself: what it says about that holds from then on. */
		r = sim_vmm_send(v, VHOST_USER_SET_PROTOCOL_FEATURES, 0, &v->protocol_features,
			sizeof(v->protocol_features), NULL, 0);
	}
	if (r == 0) {
		r = sim_vmm_send(v, VHOST_USER_SET_OWNER, 0, NULL, 0, NULL, 0);
	}
	return r;
}

void sim_vmm_finish(struct sim_vmm *v)
{
	sim_memory_finish(&v->memory);
}

int sim_vmm_features(struct sim_vmm *v, uint64_t features)
{
	v->acked = features & v->features;
	return sim_vmm_tell_number(
		v, VHOST_USER_SET_FEATURES, v->acked | VHOST_USER_F_PROTOCOL_FEATURES);
}

int sim_vmm_memory(struct sim_vmm *v)
{
	const int fds[2] = {v->memory.fd, v->memory.fd};
	struct vhost_user_memory table;

	sim_memory_table(&v->memory, &table);
	return sim_vmm_tell(v, VHOST_USER_SET_MEM_TABLE, &table,
		offsetof(struct vhost_user_memory, regions) + 2 * sizeof(table.regions[0]), fds, 2);
}

static int tell_state(struct sim_vmm *v, uint32_t request, uint32_t queue, uint32_t num)
{
	const struct vhost_user_vring_state state = {queue, num};

	return sim_vmm_tell(v, request, &state, sizeof(state), NULL, 0);
}

static int tell_fd(struct sim_vmm *v, uint32_t request, uint64_t queue, int fd)
{
	return sim_vmm_tell(v, request, &queue, sizeof(queue), &fd, 1);
}

int sim_vmm_config(const struct sim_vmm *v, struct virtio_gpu_config *out)
{
	struct vhost_user_config c = {.size = sizeof(*out)};
	const size_t size = offsetof(struct vhost_user_config, data) + sizeof(*out);
	int r = sim_vmm_send(v, VHOST_USER_GET_CONFIG, 0, &c, size, NULL, 0);

	if (r == 0) {
		r = sim_vmm_reply(v, VHOST_USER_GET_CONFIG, &c, size);
	}
	if (r == 0) {
		memcpy(out, c.data, sizeof(*out));
	}
	return r;
}

int sim_vmm_ring_start(struct sim_vmm *v, uint32_t queue, const struct sim_vmm_ring *ring)
{
	const struct vhost_user_vring_addr addr = {
		.index = queue,
		.desc = sim_memory_user(&v->memory, ring->desc),
		.avail = sim_memory_user(&v->memory, ring->avail),
		.used = sim_memory_user(&v->memory, ring->used),
	};
	int r = tell_state(v, VHOST_USER_SET_VRING_NUM, queue, ring->size);

	if (r == 0) {
		r = tell_state(v, VHOST_USER_SET_VRING_BASE, queue, ring->base);
	}
	if (r == 0) {
		r = sim_vmm_tell(v, VHOST_USER_SET_VRING_ADDR, &addr, sizeof(addr), NULL, 0);
	}
	if (r == 0) {
		r = tell_fd(v, VHOST_USER_SET_VRING_KICK, queue, ring->kick);
	}
	if (r == 0) {
		r = tell_fd(v, VHOST_USER_SET_VRING_CALL, queue, ring->call);
	}
	return r == 0 ? tell_state(v, VHOST_USER_SET_VRING_ENABLE, queue, 1) : r;
}

int sim_vmm_ring_stop(struct sim_vmm *v, uint32_t queue, uint32_t *base_out)
{
	struct vhost_user_vring_state state = {queue, 0};
	int r = sim_vmm_send(v, VHOST_USER_GET_VRING_BASE, 0, &state, sizeof(state), NULL, 0);

	if (r == 0) {
		r = sim_vmm_reply(v, VHOST_USER_GET_VRING_BASE, &state, sizeof(state));
	}
	if (r == 0) {
		*base_out = state.num;
	}
	return r;
}
