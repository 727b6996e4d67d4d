/* SPDX-License-Identifier: MIT
 *
 * The order matters: what needs a path or a privilege comes before sandbox_enter, what needs a
 * thread or a new fd before sandbox_lock, and the guest's first byte after both.
 */
#include "usb/serve.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-event.h>
#include <systemd/sd-id128.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/sandbox.h"
#include "protocol/worker.h"
#include "usb/backend-disk.h"
#include "usb/backend-libusb.h"
#include "usb/control-channel.h"
#include "usb/disk-io.h"
#include "usb/engine.h"
#include "usb/orphan.h"

struct server {
	const struct serve_options *o;
	sd_event *event;
	struct control_channel *control; // may be NULL: by hand
	struct orphan *orphan;           // may be NULL: no broker can come after this one
	int asked;                       /* for a configuration, until it is answered; -1 */
	struct backend *backend;
	struct engine *engine;
	bool ejected; /* by hand: to be ended when what is queued for the guest is written */
	bool finished;
	int exit_code;
};

static void exit_when_told(struct server *s)
{
	/* The last words may have to wait for the broker to read. */
	if (s->finished && (!s->control || !control_channel_pending(s->control))) {
		sd_event_exit(s->event, s->exit_code);
	}
}

static void on_state(void *userdata, uint32_t state, uint64_t connect_ns)
{
	struct server *s = userdata;
	union worker_msg msg;

	log_debug("%s: %s", s->o->name, worker_state_name(state));
	if (!s->control) {
		log_info("%s: %s", s->o->name, worker_state_name(state));
		if (state == WORKER_STATE_EJECTED) {
			s->ejected = true;
		}
		return;
	}
	worker_msg_init(&msg, WORKER_MSG_STATE);
	msg.state.state = state;
	msg.state.connect_ns = connect_ns;
	control_channel_send(s->control, &msg);
}

static int exit_code_of(uint32_t reason)
{
	switch (reason) {
	case WORKER_DONE_DETACHED:
	case WORKER_DONE_PEER_CLOSED:
		return EXIT_SUCCESS;
	case WORKER_DONE_PEER_BAD:
		return SERVE_EXIT_PEER_BAD;
	case WORKER_DONE_DEVICE_LOST:
		return SERVE_EXIT_DEVICE_LOST;
	case WORKER_DONE_BROKER_GONE:
		return SERVE_EXIT_BROKER_GONE;
	case WORKER_DONE_DEVICE_BUSY:
		return SERVE_EXIT_DEVICE_BUSY;
	case WORKER_DONE_NOT_SHOWN:
		return SERVE_EXIT_NOT_SHOWN;
	default:
		return SERVE_EXIT_FAILED;
	}
}

static void on_finished(void *userdata, uint32_t reason, int error, const char *detail)
{
	struct server *s = userdata;
	union worker_msg msg;

	s->finished = true;
	s->exit_code = exit_code_of(reason);
	if (!s->control) {
		log_info("%s: ends: %s%s%s%s%s", s->o->name, worker_done_name(reason),
			detail[0] ? ": " : "", detail, error ? ": " : "",
			error ? strerror(error) : "");
		return;
	}
	worker_msg_init(&msg, WORKER_MSG_DONE);
	msg.done.reason = reason;
	msg.done.error = error;
	worker_msg_text(msg.done.detail, sizeof(msg.done.detail), detail);
	control_channel_send(s->control, &msg);
}

static const struct engine_listener listener = {
	.state = on_state,
	.finished = on_finished,
};

static void on_ping(void *userdata, uint64_t seq)
{
	struct server *s = userdata;
	struct engine_counters n;
	union worker_msg msg;

	engine_count(s->engine, &n);
	worker_msg_init(&msg, WORKER_MSG_PONG);
	msg.pong.seq = seq;
	msg.pong.transfers = n.transfers;
	msg.pong.bytes_in = n.bytes_in;
	msg.pong.bytes_out = n.bytes_out;
	msg.pong.refused = n.refused;
	msg.pong.errors = n.errors;
	msg.pong.in_flight = n.in_flight;
	msg.pong.in_flight_bytes = n.in_flight_bytes;
	msg.pong.in_flight_peak = n.in_flight_peak;
	msg.pong.state = n.state;
	memcpy(msg.pong.by_type, n.by_type, sizeof(n.by_type));
	msg.pong.stalls = n.stalls;
	msg.pong.latency_usec = n.latency_ns / 1000;
	memcpy(msg.pong.latency, n.latency, sizeof(n.latency));
	control_channel_send(s->control, &msg);
}

static void on_detach(void *userdata)
{
	struct server *s = userdata;

	engine_stop(s->engine, WORKER_DONE_DETACHED, 0, "");
}

static void ask_for_configuration(void *userdata, uint8_t value)
{
	struct server *s = userdata;
	union worker_msg msg;

	s->asked = value;
	worker_msg_init(&msg, WORKER_MSG_SET_CONFIGURATION);
	msg.set_configuration.value = value;
	control_channel_send(s->control, &msg);
}

static void on_keep(void *userdata, const struct worker_keep *keep)
{
	struct server *s = userdata;

	if (s->orphan) {
		orphan_keep(s->orphan, keep);
		control_channel_outlive(s->control, true);
	}
}

static void end_without_broker(struct server *s, int error)
{
	if (s->control) {
		control_channel_outlive(s->control, false);
	}
	if (!s->finished) {
		log_warn("%s: devbrokerd is gone; taking the device out of its VM", s->o->name);
		engine_stop(s->engine, WORKER_DONE_BROKER_GONE, error, "");
	}
}

static void on_broker_gone(void *userdata, int error)
{
	struct server *s = userdata;

	if (error != 0 || !s->orphan || !orphan_is_kept(s->orphan)) {
		end_without_broker(s, error);
		return;
	}
	orphan_wait(s->orphan);
	if (s->asked >= 0) {
		/* It may not have got to it. */
		ask_for_configuration(s, (uint8_t)s->asked);
	}
}

static void on_adopt(void *userdata, struct worker_held *held)
{
	struct server *s = userdata;
	struct engine_counters n;

	engine_count(s->engine, &n);
	held->sandbox_stages = s->o->stages;
	held->state = n.state;
	held->connect_ns = n.connect_ns;
}

static void on_adopted(void *userdata, int fd)
{
	struct server *s = userdata;
	int r = control_channel_reopen(s->control, fd);

	if (r < 0) {
		log_error("%s: can't listen to devbrokerd: %s", s->o->name, strerror(-r));
		orphan_wait(s->orphan);
	}
}

static void on_orphan_time_over(void *userdata)
{
	end_without_broker(userdata, 0);
}

static const struct orphan_ops orphan_ops = {
	.adopt = on_adopt,
	.adopted = on_adopted,
	.time_over = on_orphan_time_over,
};

static bool is_host_device(const struct serve_options *o)
{
	return o->device_fd >= 0;
}

static void on_configured(void *userdata, int error)
{
	struct server *s = userdata;

	s->asked = -1;
	if (is_host_device(s->o)) {
		backend_libusb_configured(s->backend, error);
	}
}

static void on_unplugged(void *userdata)
{
	struct server *s = userdata;

	if (is_host_device(s->o)) {
		backend_libusb_unplugged(s->backend);
	}
}

static void on_capture(void *userdata, const struct worker_capture *m, int fd)
{
	struct server *s = userdata;
	const struct capture_options options = {
		.fd = fd,
		.headers_only = m->headers_only,
		.bus = (uint16_t)m->bus,
		.device = (uint8_t)m->device,
	};
	int r = engine_capture(s->engine, &options);

	if (r < 0) {
		log_warn("%s: can't capture: %s", s->o->name, strerror(-r));
	}
}

static void on_pace(void *userdata, int fd)
{
	struct server *s = userdata;
	int r = engine_pace(s->engine, fd);

	if (r < 0) {
		/* Without its limits it shall not go on. */
		engine_stop(s->engine, WORKER_DONE_INTERNAL, -r, "can't map the VM's rates");
	}
}

static const struct control_channel_ops control_ops = {
	.ping = on_ping,
	.detach = on_detach,
	.configured = on_configured,
	.unplugged = on_unplugged,
	.keep = on_keep,
	.capture = on_capture,
	.pace = on_pace,
	.closed = on_broker_gone,
};

static void turn(struct server *s)
{
	engine_turn(s->engine);
	if (s->ejected) {
		s->ejected = false;
		engine_stop(s->engine, WORKER_DONE_DETACHED, 0, "ejected by the guest");
		engine_turn(s->engine);
	}
	exit_when_told(s);
}

static int on_signal(sd_event_source *source, const struct signalfd_siginfo *info, void *userdata)
{
	struct server *s = userdata;

	engine_stop(s->engine, WORKER_DONE_DETACHED, 0, "ended by a signal");
	return 0;
}

static int watch_signals(struct server *s)
{
	static const int signals[] = {SIGTERM, SIGINT};
	sigset_t set;
	int r = 0;

	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
		sigaddset(&set, signals[i]);
	}
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	for (size_t i = 0; i < ARRAY_SIZE(signals) && r >= 0; i++) {
		r = sd_event_add_signal(s->event, NULL, signals[i], on_signal, s);
	}
	return r;
}

static const char *describe_busy(int interface, char *out, size_t size)
{
	snprintf(out, size, "a host driver has interface %d", interface);
	return out;
}

static void on_busy(void *userdata, int interface)
{
	struct server *s = userdata;
	char detail[64];

	engine_stop(s->engine, WORKER_DONE_DEVICE_BUSY, EBUSY,
		describe_busy(interface, detail, sizeof(detail)));
}

static const struct backend_libusb_listener with_broker = {
	.set_configuration = ask_for_configuration,
	.busy = on_busy,
};
static const struct backend_libusb_listener by_hand = {.busy = on_busy};

static int create_host_backend(struct server *s)
{
	const struct serve_options *o = s->o;
	const struct backend_libusb_options options = {
		.device_fd = o->device_fd,
		.interfaces = o->interfaces,
		.usbfs_memory = o->usbfs_memory,
		.may_configure = !(o->stages & SANDBOX_SECCOMP),
		.listener = o->control_fd >= 0 ? &with_broker : &by_hand,
		.userdata = s,
		.event = s->event,
	};

	return backend_libusb_create(&options, &s->backend);
}

static int create_disk_backend(struct server *s)
{
	const struct backend_disk_options options = {
		.image_fd = s->o->disk_fd,
		.export = s->o->export,
		.read_only = s->o->read_only,
		.cdrom = s->o->cdrom,
		.speed = s->o->speed,
		.serial = s->o->serial,
		.product = s->o->product,
		.event = s->event,
	};

	return backend_disk_create(&options, &s->backend);
}

static enum sandbox_kind kind_of(const struct serve_options *o)
{
	return is_host_device(o) ? SANDBOX_USB : disk_io_is_nbd ? SANDBOX_NBD : SANDBOX_DISK;
}

/* A TCP stream by hand: every reply at once, as over a unix socket, where this is refused. */
static void set_nodelay(int fd)
{
	const int on = 1;

	_unused_ int r = setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

static int create_engine(struct server *s)
{
	const struct guard_options guard = {
		.interfaces = s->o->interfaces,
		.read_only = s->o->read_only,
		.allow_firmware = s->o->allow_firmware,
	};
	const struct engine_options options = {
		.event = s->event,
		.guard = is_host_device(s->o) ? &guard : NULL,
		.stream_fd = s->o->stream_fd,
		.backend = s->backend,
		.max_transfers = s->o->max_transfers,
		.max_bytes = s->o->max_bytes,
		.listener = &listener,
		.userdata = s,
	};

	return engine_create(&options, &s->engine);
}

/* What needs a thread, a new fd or a socket's options. */
static int set_up(struct server *s)
{
	const struct serve_options *o = s->o;
	int r = sd_event_new(&s->event);

	set_nodelay(o->stream_fd);
	if (r >= 0) {
		r = watch_signals(s);
	}
	if (r >= 0) {
		r = is_host_device(o) ? create_host_backend(s) : create_disk_backend(s);
	}
	if (r >= 0 && o->control_fd >= 0) {
		r = control_channel_create(s->event, o->control_fd, &control_ops, s, &s->control);
	}
	if (r >= 0 && o->listen_fd >= 0) {
		const struct orphan_options options = {
			.event = s->event,
			.name = o->name,
			.listen_fd = o->listen_fd,
			/* A session with a server can't be shared. */
			.image_fd = disk_io_is_nbd ? -1 : o->disk_fd,
			.ops = &orphan_ops,
			.userdata = s,
		};

		r = orphan_create(&options, &s->orphan);
	}
	return r < 0 ? r : sandbox_lock(kind_of(o), o->stages);
}

/* The device's first byte, inside the sandbox. Why it can't be had is said here. */
static int open_device(struct server *s)
{
	char detail[128] = "";
	int interface = 0;
	int r = is_host_device(s->o) ? backend_libusb_open(s->backend, &interface)
				     : backend_disk_open(s->backend, detail, sizeof(detail));

	if (r >= 0) {
		r = create_engine(s);
	} else {
		safe_close(s->o->stream_fd);
	}
	if (r == -EBUSY) {
		on_finished(s, WORKER_DONE_DEVICE_BUSY, EBUSY,
			describe_busy(interface, detail, sizeof(detail)));
	} else if (r == -EOPNOTSUPP && is_host_device(s->o)) {
		on_finished(s, WORKER_DONE_NOT_SHOWN, 0,
			s->o->read_only ? "it has no storage that can be write-protected"
					: "it has none of the interfaces");
	} else if (r < 0 && (is_host_device(s->o) || detail[0])) {
		on_finished(s, WORKER_DONE_DEVICE_LOST, -r,
			detail[0] ? detail : "can't open the device");
	}
	return r;
}

static int enter_sandbox(const struct serve_options *o)
{
	int keep[4] = {o->stream_fd, is_host_device(o) ? o->device_fd : o->disk_fd};
	size_t n = 2;
	sd_id128_t boot;

	if (o->control_fd >= 0) {
		keep[n++] = o->control_fd;
	}
	if (o->listen_fd >= 0) {
		keep[n++] = o->listen_fd;
	}
	/* sd-event's timers ask for it; cached from now on. */
	sd_id128_get_boot(&boot);
	return sandbox_enter(o->name, kind_of(o), o->stages, keep, n);
}

static void say_ready(struct server *s)
{
	union worker_msg msg;

	if (s->control) {
		worker_msg_init(&msg, WORKER_MSG_READY);
		msg.ready.version = WORKER_PROTOCOL_VERSION;
		msg.ready.sandbox_stages = s->o->stages;
		control_channel_send(s->control, &msg);
	}
}

/* One event source, then what it left to be written: a post source would ask the kernel for events
 * a second time in between. Returns the exit code, or -errno. */
static int loop(struct server *s)
{
	int code = 0, r = 0;

	while (r >= 0 && sd_event_get_state(s->event) != SD_EVENT_FINISHED) {
		turn(s);
		r = sd_event_run(s->event, UINT64_MAX);
	}
	return r < 0 ? r : sd_event_get_exit_code(s->event, &code) < 0 ? 0 : code;
}

int serve(const struct serve_options *o)
{
	struct server s = {.o = o, .asked = -1};
	int r;

	if (enter_sandbox(o) < 0) {
		return SERVE_EXIT_FAILED;
	}
	r = set_up(&s);
	if (r >= 0) {
		r = open_device(&s);
	}
	if (s.finished) {
		return s.exit_code;
	}
	if (r < 0) {
		log_error("%s: can't start: %s", o->name, strerror(-r));
		return SERVE_EXIT_FAILED;
	}
	say_ready(&s);
	r = loop(&s);
	/* The process ends, and with it all that is left; sockets close last of all. */
	return r < 0 ? SERVE_EXIT_FAILED : r;
}
