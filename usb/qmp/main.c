/* SPDX-License-Identifier: MIT
 *
 * devbroker-qmp: tells one VMM one thing (how are you, plug this, unplug that), reports the result
 * to the broker, and ends. It reads JSON of a VMM, so it does it in the sandbox.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-event.h>
#include <systemd/sd-id128.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/sandbox.h"
#include "protocol/worker.h"
#include "usb/control-channel.h"
#include "usb/helper-options.h"
#include "usb/qmp/session.h"

#define EXIT_USAGE    2
#define GREETING_USEC (5 * UINT64_C(1000000))
#define DEADLINE_USEC (10 * UINT64_C(1000000)) /* of the whole conversation */
#define NAME_TEXT_MAX 63

struct options {
	int control_fd;
	int qmp_fd;
	int stream_fd;
	bool have_op;
	uint32_t stages;
	struct qmp_session_options session;
};

struct helper {
	sd_event *event;
	struct control_channel *control;
	struct qmp_session *session;
	sd_event_source *io;
	sd_event_source *greeting;
	sd_event_source *deadline;
	int qmp_fd;
	int stream_fd;
	bool broker_gone;
	bool reported;
	int exit_code;
};

static int usage(const char *what)
{
	fprintf(stderr,
		"devbroker-qmp: %s\n"
		"Started by devbrokerd; see devbroker-qmp(8). Usage: devbroker-qmp --control-fd=N "
		"--qmp-fd=N --op=probe|attach|detach --id=ID [--stream-fd=N] [--bus=BUS] "
		"[--sandbox=full|reduced:STAGE,…|off] [--log-level=LEVEL]\n",
		what);
	return EXIT_USAGE;
}

/* They go into JSON as they are. */
static bool name_ok(const char *text)
{
	size_t n = strlen(text);

	for (size_t i = 0; i < n; i++) {
		char c = text[i];

		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
			    strchr("._-/", c))) {
			return false;
		}
	}
	return n > 0 && n <= NAME_TEXT_MAX;
}

static int parse_op(const char *text, enum qmp_session_op *out)
{
	static const char *const names[] = {"probe", "attach", "detach"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (strcmp(text, names[i]) == 0) {
			*out = (enum qmp_session_op)i;
			return 0;
		}
	}
	return -EINVAL;
}

/* 0 or -EINVAL. */
static int take_option(void *options, int c)
{
	struct options *o = options;
	enum log_level level;

	switch (c) {
	case 'c':
		return parse_fd(optarg, &o->control_fd);
	case 'q':
		return parse_fd(optarg, &o->qmp_fd);
	case 's':
		return parse_fd(optarg, &o->stream_fd);
	case 'o':
		o->have_op = true;
		return parse_op(optarg, &o->session.op);
	case 'i':
		o->session.id = optarg;
		return name_ok(optarg) ? 0 : -EINVAL;
	case 'b':
		o->session.bus = optarg;
		return name_ok(optarg) ? 0 : -EINVAL;
	case 'x':
		return sandbox_parse(optarg, true, &o->stages);
	case 'g':
		if (log_level_parse(optarg, &level) < 0) {
			return -EINVAL;
		}
		log_set_level(level);
		return 0;
	default:
		return -EINVAL;
	}
}

/* -1: go on; otherwise the exit code. */
static int parse_options(int argc, char **argv, struct options *o)
{
	static const struct option known[] = {
		{"control-fd", required_argument, NULL, 'c'},
		{"qmp-fd", required_argument, NULL, 'q'},
		{"stream-fd", required_argument, NULL, 's'},
		{"op", required_argument, NULL, 'o'},
		{"id", required_argument, NULL, 'i'},
		{"bus", required_argument, NULL, 'b'},
		{"sandbox", required_argument, NULL, 'x'},
		{"log-level", required_argument, NULL, 'g'},
		HELPER_VERSION,
		{0},
	};
	static const struct helper_options helper = {
		.program = "devbroker-qmp", .known = known, .take = take_option, .usage = usage};
	int r = helper_options_parse(&helper, argc, argv, o);

	if (r >= 0) {
		return r;
	}
	if (optind < argc || o->control_fd < 0 || o->qmp_fd < 0 || !o->have_op || !o->session.id) {
		return usage("--control-fd, --qmp-fd, --op and --id are needed, and nothing else");
	}
	if ((o->session.op == QMP_OP_ATTACH) != (o->stream_fd >= 0)) {
		return usage("--stream-fd is for --op=attach, and needed there");
	}
	return -1;
}

static void report(struct helper *h)
{
	union worker_msg msg;

	if (h->reported || !qmp_session_finished(h->session)) {
		return;
	}
	h->reported = true;
	if (h->broker_gone) {
		sd_event_exit(h->event, EXIT_FAILURE);
		return;
	}
	qmp_session_result(h->session, &msg);
	control_channel_send(h->control, &msg);
	/* Five messages fit any socket's buffer: it is sent. */
	h->exit_code =
		h->broker_gone || control_channel_pending(h->control) ? EXIT_FAILURE : EXIT_SUCCESS;
	sd_event_exit(h->event, h->exit_code);
}

/* -EAGAIN; another -errno: the connection is gone. */
static int write_some(struct helper *h, const char *data, size_t size, bool with_fd)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {0};
	struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
	struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	if (with_fd) {
		struct cmsghdr *c;

		mh.msg_control = control.buf;
		mh.msg_controllen = sizeof(control.buf);
		c = CMSG_FIRSTHDR(&mh);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &h->stream_fd, sizeof(int));
	}
	n = sendmsg(h->qmp_fd, &mh, MSG_NOSIGNAL);
	if (n < 0) {
		return -errno;
	}
	qmp_session_written(h->session, (size_t)n);
	if (with_fd) {
		/* The VMM has it: ours would keep the stream open behind its back. */
		h->stream_fd = safe_close(h->stream_fd);
	}
	return 0;
}

static void write_all(struct helper *h)
{
	uint32_t events = EPOLLIN;
	const char *data;
	size_t size;
	bool with_fd;

	while (qmp_session_output(h->session, &data, &size, &with_fd)) {
		int r = write_some(h, data, size, with_fd);

		if (r == -EAGAIN || r == -EINTR) {
			events |= EPOLLOUT;
			break;
		}
		if (r < 0) {
			qmp_session_closed(h->session);
			break;
		}
	}
	sd_event_source_set_io_events(h->io, events);
	report(h);
}

static int on_qmp(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct helper *h = userdata;
	char buffer[16384];
	ssize_t n;

	if (revents & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
		n = read(fd, buffer, sizeof(buffer));
		if (n > 0) {
			qmp_session_input(h->session, buffer, (size_t)n);
		} else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
			qmp_session_closed(h->session);
		}
	}
	write_all(h);
	return 0;
}

/* QEMU serves one client and lets the next one wait without a word. */
static int on_greeting_time(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct helper *h = userdata;

	if (!qmp_session_greeted(h->session)) {
		qmp_session_timeout(h->session);
		report(h);
	}
	return 0;
}

static int on_deadline(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct helper *h = userdata;

	qmp_session_timeout(h->session);
	report(h);
	return 0;
}

static void on_ping(void *userdata, uint64_t seq)
{
	struct helper *h = userdata;
	union worker_msg msg;

	worker_msg_init(&msg, WORKER_MSG_PONG);
	msg.pong.seq = seq;
	control_channel_send(h->control, &msg);
}

/* What has begun in the VMM is ended in an orderly way: it takes at most its deadline. */
static void on_detach(void *userdata)
{
}

/* What this run has put into the VMM leads nowhere now. */
static void on_closed(void *userdata, int error)
{
	struct helper *h = userdata;

	h->broker_gone = true;
	if (h->reported) {
		return;
	}
	if (!qmp_session_greeted(h->session)) {
		sd_event_exit(h->event, EXIT_FAILURE);
		return;
	}
	qmp_session_cancel(h->session);
}

static const struct control_channel_ops control_ops = {
	.ping = on_ping,
	.detach = on_detach,
	.closed = on_closed,
};

static int set_up(struct helper *h, const struct options *o)
{
	int r = sd_event_new(&h->event);

	if (r >= 0) {
		r = control_channel_create(h->event, o->control_fd, &control_ops, h, &h->control);
	}
	if (r >= 0) {
		r = fd_set_nonblock(h->qmp_fd, true);
	}
	if (r >= 0) {
		r = sd_event_add_io(h->event, &h->io, h->qmp_fd, EPOLLIN, on_qmp, h);
	}
	if (r >= 0) {
		r = sd_event_add_time_relative(h->event, &h->greeting, CLOCK_MONOTONIC,
			GREETING_USEC, 0, on_greeting_time, h);
	}
	if (r >= 0) {
		r = sd_event_add_time_relative(
			h->event, &h->deadline, CLOCK_MONOTONIC, DEADLINE_USEC, 0, on_deadline, h);
	}
	if (r >= 0) {
		h->session = qmp_session_create(&o->session);
		r = h->session ? 0 : -ENOMEM;
	}
	return r < 0 ? r : sandbox_lock(SANDBOX_QMP, o->stages);
}

static int enter_sandbox(const struct options *o)
{
	const int keep[] = {o->control_fd, o->qmp_fd, o->stream_fd};
	sd_id128_t boot;

	/* sd-event's timers ask for it; cached from now on. */
	sd_id128_get_boot(&boot);
	return sandbox_enter(
		"devbroker-qmp", SANDBOX_QMP, o->stages, keep, o->stream_fd >= 0 ? 3 : 2);
}

int main(int argc, char **argv)
{
	struct options o = {
		.control_fd = -1,
		.qmp_fd = -1,
		.stream_fd = -1,
		.stages = SANDBOX_ALL,
		.session.bus = "xhci.0",
	};
	struct helper h = {.exit_code = EXIT_FAILURE};
	union worker_msg ready;
	int r = parse_options(argc, argv, &o);

	if (r >= 0) {
		return r;
	}
	if (enter_sandbox(&o) < 0) {
		return EXIT_FAILURE;
	}
	h.qmp_fd = o.qmp_fd;
	h.stream_fd = o.stream_fd;
	r = set_up(&h, &o);
	if (r < 0) {
		log_error("devbroker-qmp: can't start: %s", strerror(-r));
		return EXIT_FAILURE;
	}
	worker_msg_init(&ready, WORKER_MSG_READY);
	ready.ready.version = WORKER_PROTOCOL_VERSION;
	ready.ready.sandbox_stages = o.stages;
	control_channel_send(h.control, &ready);
	r = sd_event_loop(h.event);
	/* The kernel takes the rest along. */
	return r < 0 ? EXIT_FAILURE : r;
}
