/* SPDX-License-Identifier: MIT
 *
 * The VMM's vhost-user messages: read without waiting, checked by protocol/vhost-user, handled one
 * at a time. A message whose answer depends on the renderer (memory, the end of a ring, reset)
 * holds up those behind it, and nothing else. A VMM that breaks the protocol is dropped, with one
 * line that says how; a table or a ring that can't be used is refused where the protocol has an
 * answer for it (REPLY_ACK).
 */
#include "gpu/front.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-id128.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/sandbox.h"
#include "gpu/front-internal.h"

#define MESSAGES_PER_TURN 64

#define VIRTIO_F_VERSION_1     (UINT64_C(1) << 32)
#define VIRTIO_F_INDIRECT_DESC (UINT64_C(1) << 28)
#define VIRTIO_F_EVENT_IDX     (UINT64_C(1) << 29)
#define VIRTIO_F_GPU_EDID      (UINT64_C(1) << VIRTIO_GPU_F_EDID)
#define VIRTIO_F_GPU_UUID      (UINT64_C(1) << VIRTIO_GPU_F_RESOURCE_UUID)
#define FEATURES                                                                                \
	(VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX | VIRTIO_F_GPU_EDID | \
		VIRTIO_F_GPU_UUID | VHOST_USER_F_PROTOCOL_FEATURES)
#define PROTOCOL_FEATURES                                           \
	(UINT64_C(1) << VHOST_USER_PROTOCOL_F_REPLY_ACK |           \
		UINT64_C(1) << VHOST_USER_PROTOCOL_F_CONFIG |       \
		UINT64_C(1) << VHOST_USER_PROTOCOL_F_RESET_DEVICE | \
		UINT64_C(1) << VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS)

void front_end(struct front *f, int exit_code, const char *why)
{
	if (f->ended) {
		return;
	}
	f->ended = true;
	f->exit_code = exit_code;
	if (exit_code == 0) {
		log_info("%s: ends: %s", f->o->name, why);
	} else {
		log_warn("%s: ends: %s", f->o->name, why);
	}
	sd_event_exit(f->event, exit_code);
}

static void bad(struct front *f, const char *why)
{
	char text[160];

	snprintf(text, sizeof(text), "the VMM broke vhost-user: %s (%s)", why,
		vhost_user_name(f->header.request));
	front_end(f, FRONT_EXIT_PEER_BAD, text);
}

/* The VMM waits for it, so that its socket takes it. */
static void reply(
	struct front *f, const struct vhost_user_header *to, const void *payload, size_t size)
{
	struct vhost_user_header h = {.request = to->request,
		.flags = VHOST_USER_VERSION | VHOST_USER_REPLY,
		.size = (uint32_t)size};
	uint8_t bytes[sizeof(h) + VHOST_USER_PAYLOAD_MAX];
	ssize_t n;

	memcpy(bytes, &h, sizeof(h));
	memcpy(bytes + sizeof(h), payload, size);
	n = send(f->vhost_fd, bytes, sizeof(h) + size, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n != (ssize_t)(sizeof(h) + size)) {
		front_end(f, FRONT_EXIT_PEER_BAD, "the VMM doesn't read its answers");
	}
}

static void reply_number(struct front *f, const struct vhost_user_header *to, uint64_t number)
{
	reply(f, to, &number, sizeof(number));
}

static void read_on(struct front *f)
{
	f->wait = FRONT_WAIT_NOTHING;
	sd_event_source_set_enabled(f->vhost_io, SD_EVENT_ON);
}

void front_answer_waiting(struct front *f, const void *payload, size_t size)
{
	reply(f, &f->waiting, payload, size);
	read_on(f);
}

static bool acknowledges(const struct front *f, const struct vhost_user_header *h)
{
	return h->flags & VHOST_USER_NEED_REPLY &&
	       f->protocol_features & UINT64_C(1) << VHOST_USER_PROTOCOL_F_REPLY_ACK;
}

void front_acknowledge(struct front *f, int error)
{
	if (acknowledges(f, &f->waiting)) {
		reply_number(f, &f->waiting, error ? 1 : 0);
	}
	read_on(f);
}

/* The answer comes later; nothing is read until then. */
static void wait_for(struct front *f, enum front_wait what, const struct vhost_user_msg *m)
{
	f->wait = what;
	f->waiting = m->header;
	sd_event_source_set_enabled(f->vhost_io, SD_EVENT_OFF);
}

/* What a handler did with its message. */
enum done { DONE, ANSWERED, LATER, BAD };

/* QEMU 7.2 acknowledges VIRTIO_F_RING_RESET although it was not offered: what was not is not heard.
 */
static enum done set_features(struct front *f, uint64_t features)
{
	f->features = features & FEATURES;
	return DONE;
}

static enum done set_protocol_features(struct front *f, uint64_t features, const char **why)
{
	if (features & ~(uint64_t)PROTOCOL_FEATURES) {
		*why = "protocol features that were not offered";
		return BAD;
	}
	f->protocol_features = features;
	return DONE;
}

/* virtio 1.2, 5.7.4. num_scanouts is the VMM's own business; QEMU puts its max_outputs there. */
static enum done get_config(struct front *f, const struct vhost_user_msg *m)
{
	const struct virtio_gpu_config config = {.num_scanouts = htole32(DISPLAY_SCANOUTS)};
	struct vhost_user_config out = m->config;

	memset(out.data, 0, sizeof(out.data));
	if (m->config.offset < sizeof(config)) {
		memcpy(out.data, (const uint8_t *)&config + m->config.offset,
			MIN(m->config.size, sizeof(config) - m->config.offset));
	}
	reply(f, &m->header, &out, offsetof(struct vhost_user_config, data) + m->config.size);
	return ANSWERED;
}

/* A table that can't be used: the VMM is told, where it can be. */
static enum done refuse(struct front *f, const struct vhost_user_msg *m, const char **why)
{
	if (!acknowledges(f, &m->header)) {
		return BAD;
	}
	log_warn("%s: refused %s: %s", f->o->name, vhost_user_name(m->header.request), *why);
	reply_number(f, &m->header, 1);
	return ANSWERED;
}

static enum done change_memory(struct front *f, const struct vhost_user_msg *m, const char **why)
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
		return DONE;
	}
	wait_for(f, FRONT_WAIT_MEMORY, m);
	return LATER;
}

static enum done set_vring(struct front *f, const struct vhost_user_msg *m, const char **why)
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
		return DONE;
	}
	if (q->started) {
		*why = "a change to a queue that runs";
		return BAD;
	}
	if (m->header.request == VHOST_USER_SET_VRING_BASE) {
		q->base = num & 0xffff;
		return DONE;
	}
	if (num == 0 || num > FRONT_QUEUE_MAX || (num & (num - 1))) {
		*why = "a queue size that can't be";
		return BAD;
	}
	q->size = num;
	return DONE;
}

static enum done set_vring_addr(struct front *f, const struct vhost_user_msg *m, const char **why)
{
	struct front_vring *q = &f->vrings[m->addr.index];

	/* QEMU repeats it to switch logging, which was not offered; the addresses stay. */
	if (q->started && (q->addr.desc != m->addr.desc || q->addr.avail != m->addr.avail ||
				  q->addr.used != m->addr.used)) {
		*why = "other addresses for a queue that runs";
		return BAD;
	}
	q->addr = m->addr;
	q->has_addr = true;
	return DONE;
}

static enum done get_vring_base(struct front *f, const struct vhost_user_msg *m)
{
	uint32_t queue = m->state.index;
	struct vhost_user_vring_state state = {queue, f->vrings[queue].base};
	union link_msg stop;

	if (!f->vrings[queue].started) {
		reply(f, &m->header, &state, sizeof(state));
		return ANSWERED;
	}
	if (!f->vrings[queue].told && f->link_ready) {
		/* It never ran: its display isn't ready. */
		front_vring_stopped(f, queue, f->vrings[queue].base);
		reply(f, &m->header, &state, sizeof(state));
		return ANSWERED;
	}
	f->wait_queue = queue;
	wait_for(f, FRONT_WAIT_STOPPED, m);
	link_init(&stop, LINK_STOP);
	stop.queue.queue = queue;
	front_renderer_send(f, &stop, NULL, 0);
	return LATER;
}

static enum done set_vring_fd(struct front *f, const struct vhost_user_msg *m, const char **why)
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
	return *why ? BAD : DONE;
}

static enum done reset_device(struct front *f, const struct vhost_user_msg *m)
{
	union link_msg reset;

	front_vrings_reset(f);
	for (uint32_t i = 0; i < DISPLAY_SCANOUTS; i++) {
		display_show(f->display, i, NULL, NULL);
	}
	if (!f->link_ready && f->renderers == 0) {
		return DONE;
	}
	wait_for(f, FRONT_WAIT_RESET, m);
	link_init(&reset, LINK_RESET);
	front_renderer_send(f, &reset, NULL, 0);
	return LATER;
}

static enum done set_socket(struct front *f, const char **why)
{
	int r = display_set_socket(f->display, steal_fd(&f->fds[0]));

	if (r < 0) {
		*why = "a display that is no socket";
		return BAD;
	}
	return DONE;
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

static enum done dispatch(struct front *f, const struct vhost_user_msg *m, const char **why)
{
	if (queue_of(m) >= FRONT_QUEUES) {
		*why = "a queue that there is none of";
		return BAD;
	}
	switch (m->header.request) {
	case VHOST_USER_GET_FEATURES:
		reply_number(f, &m->header, FEATURES);
		return ANSWERED;
	case VHOST_USER_SET_FEATURES:
		return set_features(f, m->number);
	case VHOST_USER_GET_PROTOCOL_FEATURES:
		reply_number(f, &m->header, PROTOCOL_FEATURES);
		return ANSWERED;
	case VHOST_USER_SET_PROTOCOL_FEATURES:
		return set_protocol_features(f, m->number, why);
	case VHOST_USER_GET_QUEUE_NUM:
		reply_number(f, &m->header, FRONT_QUEUES);
		return ANSWERED;
	case VHOST_USER_GET_MAX_MEM_SLOTS:
		reply_number(f, &m->header, FRONT_REGIONS_MAX);
		return ANSWERED;
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
		return DONE;
	}
}

static void close_fds(struct front *f)
{
	for (size_t i = 0; i < f->n_fds; i++) {
		f->fds[i] = safe_close(f->fds[i]);
	}
	f->n_fds = 0;
}

static void handle(struct front *f)
{
	struct vhost_user_msg m;
	const char *why = vhost_user_decode(&f->header, f->payload, f->n_fds, &m);
	enum done done = why ? BAD : dispatch(f, &m, &why);

	close_fds(f);
	f->received = 0;
	if (done == BAD) {
		bad(f, why);
	} else if (done == DONE && acknowledges(f, &m.header)) {
		reply_number(f, &m.header, 0);
	}
}

/* Bytes of a message, and the fds that come with its first ones. 1: some; 0: none now; -1: it
 * ended. */
static int receive(struct front *f, void *to, size_t size)
{
	union {
		char buf[CMSG_SPACE(sizeof(int) * VHOST_USER_FDS_MAX)];
		struct cmsghdr align;
	} control;
	struct iovec iov = {to, size};
	struct msghdr m = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf)};
	ssize_t n = recvmsg(f->vhost_fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (n < 0) {
		return errno == EAGAIN || errno == EINTR ? 0 : -1;
	}
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
		size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		for (size_t i = 0; c->cmsg_type == SCM_RIGHTS && i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (f->n_fds == VHOST_USER_FDS_MAX) {
				safe_close(fd);
				m.msg_flags |= MSG_CTRUNC;
			} else {
				f->fds[f->n_fds++] = fd;
			}
		}
	}
	if (m.msg_flags & MSG_CTRUNC) {
		bad(f, "more fds than a message may carry");
		return 0;
	}
	f->received += (size_t)n;
	return n > 0 ? 1 : -1;
}

/* False when nothing more is to be had now. */
static bool read_some(struct front *f)
{
	size_t head = sizeof(f->header), wanted = head;
	const char *why;
	int r;

	if (f->received >= head) {
		wanted += f->header.size;
	}
	if (f->received < head) {
		r = receive(f, (uint8_t *)&f->header + f->received, head - f->received);
	} else {
		r = receive(f, f->payload + (f->received - head), wanted - f->received);
	}
	if (r < 0) {
		front_end(f, 0, "the VMM closed the connection");
	}
	if (r <= 0 || f->ended) {
		return false;
	}
	if (f->received == head) {
		why = vhost_user_check_header(&f->header);
		if (why) {
			bad(f, why);
			return false;
		}
		wanted = head + f->header.size;
	}
	if (f->received >= head && f->received == wanted) {
		handle(f);
	}
	return !f->ended && f->wait == FRONT_WAIT_NOTHING;
}

static int on_vhost(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct front *f = userdata;

	for (int i = 0; i < MESSAGES_PER_TURN && read_some(f); i++) {
	}
	return 0;
}

static void on_display_ready(void *userdata)
{
	front_vrings_start(userdata);
}

static void on_modes(void *userdata, const struct display_mode *modes)
{
	front_renderer_send_modes(userdata, modes);
}

static void on_display_gone(void *userdata, const char *why)
{
	struct front *f = userdata;

	log_warn("%s: its display is gone: %s", f->o->name, why);
}

static const struct display_ops display_ops = {
	.ready = on_display_ready,
	.modes = on_modes,
	.gone = on_display_gone,
};

static int on_signal(sd_event_source *source, const struct signalfd_siginfo *info, void *userdata)
{
	front_end(userdata, 0, "it was told to");
	return 0;
}

static int set_up(struct front *f)
{
	sigset_t set;
	int r = sd_event_new(&f->event);

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	if (r >= 0) {
		r = sd_event_add_signal(f->event, NULL, SIGTERM, on_signal, f);
	}
	if (r >= 0) {
		r = display_create(f->event, DISPLAY_SCANOUTS, &display_ops, f, &f->display);
	}
	if (r >= 0) {
		r = front_renderer_init(f);
	}
	if (r >= 0) {
		r = front_parent_init(f);
	}
	if (r >= 0) {
		r = sd_event_add_io(f->event, &f->vhost_io, f->vhost_fd, EPOLLIN, on_vhost, f);
	}
	return r;
}

static int enter_sandbox(const struct front_options *o)
{
	const int keep[] = {o->control_fd, o->vhost_fd};
	uint32_t failed = 0;
	sd_id128_t boot;
	int r;

	/* sd-event's timers ask for it; cached from now on. */
	sd_id128_get_boot(&boot);
	r = sandbox_enter(SANDBOX_GPU_FRONT, o->stages, keep, ARRAY_SIZE(keep), &failed);
	if (r < 0) {
		log_error("%s: can't close the sandbox, stage %s: %s", o->name,
			sandbox_stage_name(failed), strerror(-r));
	}
	return r;
}

/* Turn by turn, so that what came of all that was ready is shown once. */
static void loop(struct front *f)
{
	while (!f->ended) {
		bool idle = front_renderer_collect(f);

		display_flush(f->display);
		if (f->ended || sd_event_run(f->event, idle ? UINT64_MAX : 0) < 0) {
			break;
		}
	}
}

static void finish(struct front *f)
{
	close_fds(f);
	display_destroy(f->display);
	pictures_finish(&f->pictures);
	front_renderer_finish(f);
	front_vrings_finish(f);
	front_memory_finish(f);
	front_parent_finish(f);
	sd_event_source_disable_unref(f->vhost_io);
	safe_close(f->vhost_fd);
	sd_event_unref(f->event);
}

int front_run(const struct front_options *o)
{
	struct front *f = calloc(1, sizeof(*f));
	struct parent_msg ready = {
		.type = PARENT_READY, .version = PARENT_VERSION, .sandbox_stages = o->stages};
	int r = f ? enter_sandbox(o) : -ENOMEM, exit_code;

	if (r < 0) {
		return FRONT_EXIT_FAILED;
	}
	f->o = o;
	f->vhost_fd = o->vhost_fd;
	f->control = o->control_fd;
	f->link = f->bell = f->journal_fd = -1;
	front_vrings_init(f);
	r = set_up(f);
	if (r >= 0) {
		r = sandbox_lock(SANDBOX_GPU_FRONT, o->stages);
	}
	if (r < 0) {
		log_error("%s: can't start: %s", o->name, strerror(-r));
		return FRONT_EXIT_FAILED;
	}
	front_parent_say(f, &ready, -1);
	loop(f);
	exit_code = f->exit_code;
	finish(f);
	free(f);
	return exit_code;
}
