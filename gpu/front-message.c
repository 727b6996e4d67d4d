/* SPDX-License-Identifier: MIT
 *
 * What each of the VMM's messages does. They are checked by protocol/vhost-user before.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/checked.h"
#include "base/fd.h"
#include "base/log.h"
#include "gpu/front-internal.h"

#define VIRTIO_F_VERSION_1     (UINT64_C(1) << 32)
#define VIRTIO_F_INDIRECT_DESC (UINT64_C(1) << 28)
#define VIRTIO_F_EVENT_IDX     (UINT64_C(1) << 29)
#define VIRTIO_F_GPU_EDID      (UINT64_C(1) << VIRTIO_GPU_F_EDID)
#define VIRTIO_F_GPU_UUID      (UINT64_C(1) << VIRTIO_GPU_F_RESOURCE_UUID)
#define VIRTIO_F_GPU_BLOB      (UINT64_C(1) << VIRTIO_GPU_F_RESOURCE_BLOB)
#define VIRTIO_F_GPU_VIRGL     (UINT64_C(1) << VIRTIO_GPU_F_VIRGL)
#define VIRTIO_F_GPU_CONTEXT   (UINT64_C(1) << VIRTIO_GPU_F_CONTEXT_INIT)
#define FEATURES                                                                                \
	(VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX | VIRTIO_F_GPU_EDID | \
		VIRTIO_F_GPU_UUID | VIRTIO_F_GPU_BLOB | VHOST_USER_F_PROTOCOL_FEATURES)
#define PROTOCOL_FEATURES                                           \
	(UINT64_C(1) << VHOST_USER_PROTOCOL_F_REPLY_ACK |           \
		UINT64_C(1) << VHOST_USER_PROTOCOL_F_CONFIG |       \
		UINT64_C(1) << VHOST_USER_PROTOCOL_F_RESET_DEVICE | \
		UINT64_C(1) << VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS)

#define REFUSALS_LOGGED 10
/* virgl and virgl2; what a renderer says of a third is not passed on. */
#define CAPSETS 2

static uint64_t features_of(const struct front *f)
{
	return FEATURES | (f->o->virgl ? VIRTIO_F_GPU_VIRGL | VIRTIO_F_GPU_CONTEXT : 0);
}

/* QEMU 7.2 acknowledges VIRTIO_F_RING_RESET although it was not offered: what was not is not heard.
 */
static enum front_done set_features(struct front *f, uint64_t features)
{
	features &= features_of(f);
	if (f->features != features) {
		f->vrings[FRONT_QUEUE_CONTROL].anew = true;
	}
	f->features = features;
	return FRONT_DONE;
}

static enum front_done set_protocol_features(struct front *f, uint64_t features, const char **why)
{
	if (features & ~(uint64_t)PROTOCOL_FEATURES) {
		*why = "protocol features that were not offered";
		return FRONT_BAD;
	}
	f->protocol_features = features;
	return FRONT_DONE;
}

/* virtio 1.2, 5.7.4. num_scanouts is the VMM's own business; QEMU puts its max_outputs there. */
static enum front_done get_config(struct front *f, const struct vhost_user_msg *m)
{
	const struct virtio_gpu_config config = {.num_scanouts = htole32(DISPLAY_SCANOUTS),
		.num_capsets = htole32(f->o->virgl ? CAPSETS : 0)};
	struct vhost_user_config out = m->config;

	/* QEMU asks when the guest does. */
	f->vrings[FRONT_QUEUE_CONTROL].anew = true;
	memset(out.data, 0, sizeof(out.data));
	if (m->config.offset < sizeof(config)) {
		memcpy(out.data, (const uint8_t *)&config + m->config.offset,
			MIN(m->config.size, sizeof(config) - m->config.offset));
	}
	front_reply(f, &m->header, &out, offsetof(struct vhost_user_config, data) + m->config.size);
	return FRONT_ANSWERED;
}

/* A table that can't be used: the VMM is told, where it can be. */
static enum front_done refuse(struct front *f, const struct vhost_user_msg *m, const char **why)
{
	if (!front_acknowledges(f, &m->header)) {
		return FRONT_BAD;
	}
	/* A VMM may go on like that. */
	if (f->refused++ < REFUSALS_LOGGED) {
		log_warn(
			"%s: refused %s: %s", f->o->name, vhost_user_name(m->header.request), *why);
	}
	front_reply_number(f, &m->header, 1);
	return FRONT_ANSWERED;
}

static enum front_done change_memory(
	struct front *f, const struct vhost_user_msg *m, const char **why)
{
	int r;

	*why = "out of memory";
	switch (m->header.request) {
	case VHOST_USER_SET_MEM_TABLE:
		r = front_memory_set(f, &m->memory, f->fds, why);
		break;
	case VHOST_USER_ADD_MEM_REG:
		r = front_memory_add(f, &m->one_region.region, &f->fds[0], why);
		break;
	default:
		r = front_memory_remove(f, &m->one_region.region, why);
	}
	if (r < 0) {
		return refuse(f, m, why);
	}
	/* Old memory may be unmapped in the VMM as soon as this is answered. */
	if (!f->link_ready && !f->vrings[0].started && !f->vrings[1].started) {
		return FRONT_DONE;
	}
	front_wait_for(f, FRONT_WAIT_MEMORY, m);
	front_watch_ask(f);
	return FRONT_LATER;
}

static enum front_done set_vring(struct front *f, const struct vhost_user_msg *m, const char **why)
{
	struct front_vring *q = &f->vrings[m->state.index];
	uint32_t num = m->state.num;

	if (m->header.request == VHOST_USER_SET_VRING_ENABLE) {
		union link_msg enable;

		q->enabled = num != 0;
		link_init(&enable, LINK_ENABLE);
		enable.enable.queue = m->state.index;
		enable.enable.enabled = q->enabled;
		if (q->told) {
			front_renderer_send(f, &enable, NULL, 0);
		}
		return FRONT_DONE;
	}
	if (q->started) {
		*why = "a change to a queue that runs";
		return FRONT_BAD;
	}
	if (m->header.request == VHOST_USER_SET_VRING_BASE) {
		q->base = num & 0xffff;
		return FRONT_DONE;
	}
	if (num == 0 || num > FRONT_QUEUE_MAX || (num & (num - 1))) {
		*why = "a queue size that can't be";
		return FRONT_BAD;
	}
	q->anew = q->anew || q->size != num;
	q->size = num;
	return FRONT_DONE;
}

static enum front_done set_vring_addr(
	struct front *f, const struct vhost_user_msg *m, const char **why)
{
	struct front_vring *q = &f->vrings[m->addr.index];

	bool others = q->addr.desc != m->addr.desc || q->addr.avail != m->addr.avail ||
		      q->addr.used != m->addr.used;

	/* QEMU repeats it to switch logging, which was not offered; the addresses stay. */
	if (q->started && others) {
		*why = "other addresses for a queue that runs";
		return FRONT_BAD;
	}
	q->anew = q->anew || others;
	q->addr = m->addr;
	q->has_addr = true;
	return FRONT_DONE;
}

static enum front_done get_vring_base(struct front *f, const struct vhost_user_msg *m)
{
	uint32_t queue = m->state.index;
	struct vhost_user_vring_state state = {queue, f->vrings[queue].base};
	union link_msg stop;

	if (!f->vrings[queue].started) {
		front_reply(f, &m->header, &state, sizeof(state));
		return FRONT_ANSWERED;
	}
	if (!f->vrings[queue].told && f->link_ready) {
		/* It never ran: its display isn't ready. */
		front_vring_stopped(f, queue, f->vrings[queue].base);
		front_reply(f, &m->header, &state, sizeof(state));
		return FRONT_ANSWERED;
	}
	f->wait_queue = queue;
	front_wait_for(f, FRONT_WAIT_STOPPED, m);
	link_init(&stop, LINK_STOP);
	stop.queue.queue = queue;
	front_renderer_send(f, &stop, NULL, 0);
	front_watch_ask(f);
	return FRONT_LATER;
}

static enum front_done set_vring_fd(
	struct front *f, const struct vhost_user_msg *m, const char **why)
{
	uint32_t queue = (uint32_t)(m->number & VHOST_USER_VRING_INDEX);

	switch (m->header.request) {
	case VHOST_USER_SET_VRING_KICK:
		*why = front_vring_kick(f, queue, &f->fds[0]);
		break;
	case VHOST_USER_SET_VRING_CALL:
		*why = front_vring_call(f, queue, &f->fds[0]);
		break;
	default:
		*why = front_vring_err(f, queue, &f->fds[0]);
	}
	return *why ? FRONT_BAD : FRONT_DONE;
}

static enum front_done reset_device(struct front *f, const struct vhost_user_msg *m)
{
	front_vrings_reset(f);
	if (!f->link_ready && f->renderers == 0) {
		return FRONT_DONE;
	}
	front_wait_for(f, FRONT_WAIT_RESET, m);
	front_renderer_send_reset(f);
	front_watch_ask(f);
	return FRONT_LATER;
}

static enum front_done set_socket(struct front *f, const char **why)
{
	struct stat st;

	if (fstat(f->fds[0], &st) < 0 || !S_ISSOCK(st.st_mode) ||
		display_set_socket(f->display, steal_fd(&f->fds[0])) < 0) {
		*why = "a display that is no socket";
		return FRONT_BAD;
	}
	return FRONT_DONE;
}

/* The queue that a message is about; FRONT_QUEUES and more: there is none of that number. */
static uint64_t queue_of(const struct vhost_user_msg *m)
{
	switch (m->header.request) {
	case VHOST_USER_SET_VRING_NUM:
	case VHOST_USER_SET_VRING_BASE:
	case VHOST_USER_GET_VRING_BASE:
	case VHOST_USER_SET_VRING_ENABLE:
		return m->state.index;
	case VHOST_USER_SET_VRING_ADDR:
		return m->addr.index;
	case VHOST_USER_SET_VRING_KICK:
	case VHOST_USER_SET_VRING_CALL:
	case VHOST_USER_SET_VRING_ERR:
		return m->number & VHOST_USER_VRING_INDEX;
	default:
		return 0;
	}
}

enum front_done front_dispatch(struct front *f, const struct vhost_user_msg *m, const char **why)
{
	if (queue_of(m) >= FRONT_QUEUES) {
		*why = "a queue that there is none of";
		return FRONT_BAD;
	}
	switch (m->header.request) {
	case VHOST_USER_GET_FEATURES:
		front_reply_number(f, &m->header, features_of(f));
		return FRONT_ANSWERED;
	case VHOST_USER_SET_FEATURES:
		return set_features(f, m->number);
	case VHOST_USER_GET_PROTOCOL_FEATURES:
		front_reply_number(f, &m->header, PROTOCOL_FEATURES);
		return FRONT_ANSWERED;
	case VHOST_USER_SET_PROTOCOL_FEATURES:
		return set_protocol_features(f, m->number, why);
	case VHOST_USER_GET_QUEUE_NUM:
		front_reply_number(f, &m->header, FRONT_QUEUES);
		return FRONT_ANSWERED;
	case VHOST_USER_GET_MAX_MEM_SLOTS:
		front_reply_number(f, &m->header, FRONT_REGIONS_MAX);
		return FRONT_ANSWERED;
	case VHOST_USER_GET_CONFIG:
		return get_config(f, m);
	case VHOST_USER_SET_MEM_TABLE:
	case VHOST_USER_ADD_MEM_REG:
	case VHOST_USER_REM_MEM_REG:
		return change_memory(f, m, why);
	case VHOST_USER_SET_VRING_NUM:
	case VHOST_USER_SET_VRING_BASE:
	case VHOST_USER_SET_VRING_ENABLE:
		return set_vring(f, m, why);
	case VHOST_USER_SET_VRING_ADDR:
		return set_vring_addr(f, m, why);
	case VHOST_USER_GET_VRING_BASE:
		return get_vring_base(f, m);
	case VHOST_USER_SET_VRING_KICK:
	case VHOST_USER_SET_VRING_CALL:
	case VHOST_USER_SET_VRING_ERR:
		return set_vring_fd(f, m, why);
	case VHOST_USER_RESET_DEVICE:
		return reset_device(f, m);
	case VHOST_USER_GPU_SET_SOCKET:
		return set_socket(f, why);
	default:
		/* SET_OWNER, RESET_OWNER; SET_CONFIG writes events_clear, and there are no events.
		 */
		return FRONT_DONE;
	}
}
