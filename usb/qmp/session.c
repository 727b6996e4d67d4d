/* SPDX-License-Identifier: MIT
 *
 * Every command has a step: what is said, and what a return or an error of it leads to. Failure
 * after a side effect walks back over the steps that undo it, and the first error is the one that
 * is reported.
 *
 *   probe    capabilities, query-status, query-chardev; then for each usb-redir device of ours
 *            whose stream has ended: device_del, DEVICE_DELETED, chardev-remove, query-chardev
 *   attach   capabilities, query-status, getfd, chardev-add, device_add (port by port)
 *            device_add failed: chardev-remove; chardev-add failed: closefd
 *            cancelled: what the step that returns next has made is undone
 *   detach   capabilities, query-status, device_del, DEVICE_DELETED, chardev-remove
 *
 * A broker that was killed unplugs nothing: its devices stay in the VMM, each on its port, with a
 * stream that can't come back (the fd was passed, nothing reconnects it). So a probe takes away
 * what has our kind of name and a disconnected chardev, whoever plugged it, and asks nobody: a
 * lease of this broker that is just ending finds its device gone, as after an unplug in the guest.
 *
 * The port is explicit: without one, QEMU (hw/usb/bus.c, usb_claim_port) puts a USB 1.1 hub into
 * the last free port of a controller, and everything behind it would crawl.
 */
#include "usb/qmp/session.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PORTS_MAX   15 /* of an xhci controller in QEMU */
#define COMMAND_MAX 1024
#define SWEPT_MAX   32 /* in one probe; no controller has more ports */

/* Names that the broker makes (broker/lease.c): of devices, and of their chardevs. */
#define ID_PREFIX      "devbroker-"
#define ID_SIZE        (sizeof(ID_PREFIX) - 1 + 16)
#define CHARDEV_SUFFIX "-c"

enum step {
	STEP_GREETING,
	STEP_CAPABILITIES,
	STEP_STATUS,
	STEP_GETFD,
	STEP_CHARDEV_ADD,
	STEP_DEVICE_ADD,
	STEP_CHARDEV_UNDO,
	STEP_FD_UNDO,
	STEP_DEVICE_DEL,
	STEP_DELETED, /* the event is waited for */
	STEP_CHARDEV_REMOVE,
	STEP_CHARDEVS,
	STEP_STALE_DEL,
	STEP_STALE_DELETED, /* the event is waited for */
	STEP_STALE_CHARDEV,
	STEP_DONE,
	STEP_COUNT_,
};

struct qmp_session {
	struct qmp_session_options options;
	enum step step;
	unsigned int port;
	unsigned int lines;
	bool deleted;   /* DEVICE_DELETED came, maybe before the return of device_del */
	bool cancelled; /* undo what this attach has done, instead of going on */
	unsigned int swept;
	char stale[ID_SIZE + 1]; /* the device that is being swept away */
	uint32_t status;
	uint32_t vm_state;
	char text[sizeof(((struct worker_qmp *)NULL)->text)];
	char out[COMMAND_MAX];
	size_t out_at;
	size_t out_size;
	bool with_fd;
	size_t line_size;
	char line[QMP_LINE_MAX];
};

static void enter(struct qmp_session *s, enum step step);

static void fail(struct qmp_session *s, enum qmp_status status, const char *text)
{
	/* The first one counts: what follows is cleaning up. */
	if (s->status == QMP_STATUS_OK) {
		s->status = status;
		worker_msg_text(s->text, sizeof(s->text), text);
	}
}

static void finish(struct qmp_session *s)
{
	s->step = STEP_DONE;
	/* Only a VMM that answers what it has not read leaves something here. */
	s->out_at = s->out_size = 0;
}

static void finish_failed(struct qmp_session *s, enum qmp_status status, const char *text)
{
	fail(s, status, text);
	finish(s);
}

static _printf_(2, 3) void say(struct qmp_session *s, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(s->out, sizeof(s->out), fmt, ap);
	va_end(ap);
	/* Ids and buses are bounded by whoever made them. */
	if (n < 0 || (size_t)n >= sizeof(s->out)) {
		finish_failed(s, QMP_STATUS_BAD_REPLY, "a command is too long");
		return;
	}
	s->out_at = 0;
	s->out_size = (size_t)n;
}

static void say_device_add(struct qmp_session *s)
{
	say(s,
		"{\"execute\":\"device_add\",\"arguments\":{\"driver\":\"usb-redir\",\"id\":\"%s\","
		"\"chardev\":\"%s-c\",\"bus\":\"%s\",\"port\":\"%u\"}}\n",
		s->options.id, s->options.id, s->options.bus, s->port);
}

static void enter(struct qmp_session *s, enum step step)
{
	const char *id = s->options.id;

	s->step = step;
	switch (step) {
	case STEP_CAPABILITIES:
		say(s, "{\"execute\":\"qmp_capabilities\"}\n");
		break;
	case STEP_STATUS:
		say(s, "{\"execute\":\"query-status\"}\n");
		break;
	case STEP_GETFD:
		say(s, "{\"execute\":\"getfd\",\"arguments\":{\"fdname\":\"%s\"}}\n", id);
		s->with_fd = true;
		break;
	case STEP_CHARDEV_ADD:
		say(s,
			"{\"execute\":\"chardev-add\",\"arguments\":{\"id\":\"%s-c\",\"backend\":"
			"{\"type\":\"socket\",\"data\":{\"addr\":{\"type\":\"fd\",\"data\":{"
			"\"str\":"
			"\"%s\"}},\"server\":false}}}}\n",
			id, id);
		break;
	case STEP_DEVICE_ADD:
		s->port = 1;
		say_device_add(s);
		break;
	case STEP_CHARDEV_UNDO:
	case STEP_CHARDEV_REMOVE:
		say(s, "{\"execute\":\"chardev-remove\",\"arguments\":{\"id\":\"%s-c\"}}\n", id);
		break;
	case STEP_FD_UNDO:
		say(s, "{\"execute\":\"closefd\",\"arguments\":{\"fdname\":\"%s\"}}\n", id);
		break;
	case STEP_DEVICE_DEL:
		say(s, "{\"execute\":\"device_del\",\"arguments\":{\"id\":\"%s\"}}\n", id);
		break;
	case STEP_CHARDEVS:
		say(s, "{\"execute\":\"query-chardev\"}\n");
		break;
	case STEP_STALE_DEL:
		say(s, "{\"execute\":\"device_del\",\"arguments\":{\"id\":\"%s\"}}\n", s->stale);
		break;
	case STEP_STALE_CHARDEV:
		say(s, "{\"execute\":\"chardev-remove\",\"arguments\":{\"id\":\"%s-c\"}}\n",
			s->stale);
		break;
	case STEP_DONE:
		finish(s);
		break;
	default:
		break;
	}
}

static uint32_t vm_state_of(const char *status)
{
	/* RunState of qapi/run-state.json: what goes on by itself or by cont. */
	static const char *const paused[] = {"paused", "prelaunch", "suspended", "postmigrate",
		"finish-migrate", "save-vm", "restore-vm", "colo"};

	if (strcmp(status, "running") == 0) {
		return QMP_VM_RUNNING;
	}
	/* hw/usb/redirect.c, usbredir_create_parser: no hello in RUN_STATE_INMIGRATE. */
	if (strcmp(status, "inmigrate") == 0) {
		return QMP_VM_MIGRATING;
	}
	for (size_t i = 0; i < ARRAY_SIZE(paused); i++) {
		if (strcmp(status, paused[i]) == 0) {
			return QMP_VM_PAUSED;
		}
	}
	return QMP_VM_STOPPED;
}

static void on_status(struct qmp_session *s, json_t *value)
{
	static const enum step first[] = {
		[QMP_OP_PROBE] = STEP_CHARDEVS,
		[QMP_OP_ATTACH] = STEP_GETFD,
		[QMP_OP_DETACH] = STEP_DEVICE_DEL,
	};
	const char *status = json_string_value(json_object_get(value, "status"));

	if (!status) {
		finish_failed(s, QMP_STATUS_BAD_REPLY, "query-status returned no status");
		return;
	}
	s->vm_state = vm_state_of(status);
	if (s->vm_state == QMP_VM_MIGRATING && s->options.op == QMP_OP_ATTACH) {
		finish_failed(s, QMP_STATUS_TIMEOUT, "the VM is being migrated in");
		return;
	}
	if (s->vm_state == QMP_VM_MIGRATING && s->options.op == QMP_OP_PROBE) {
		/* What it brings along is not there yet. */
		finish(s);
		return;
	}
	enter(s, s->cancelled ? STEP_DONE : first[s->options.op]);
}

/* Whether it is the chardev of a device that some broker plugged and that nobody serves any more.
 */
static bool chardev_is_stale(json_t *chardev)
{
	const char *label = json_string_value(json_object_get(chardev, "label"));
	const char *filename = json_string_value(json_object_get(chardev, "filename"));

	/* chardev/char-socket.c, update_disconnected_filename */
	return label && filename && strncmp(label, ID_PREFIX, strlen(ID_PREFIX)) == 0 &&
	       strspn(label + strlen(ID_PREFIX), "0123456789abcdef") ==
		       ID_SIZE - strlen(ID_PREFIX) &&
	       strcmp(label + ID_SIZE, CHARDEV_SUFFIX) == 0 &&
	       strncmp(filename, "disconnected:", strlen("disconnected:")) == 0;
}

/* Begins with the next one that is left over; a sweep that fails is no failure of the probe. */
static void on_chardevs(struct qmp_session *s, json_t *value)
{
	json_t *chardev;
	size_t i;

	json_array_foreach(value, i, chardev)
	{
		const char *label = json_string_value(json_object_get(chardev, "label"));

		if (s->swept < SWEPT_MAX && !s->cancelled && chardev_is_stale(chardev)) {
			memcpy(s->stale, label, ID_SIZE);
			s->swept++;
			s->deleted = false;
			enter(s, STEP_STALE_DEL);
			return;
		}
	}
	if (s->swept > 0) {
		snprintf(s->text, sizeof(s->text),
			"took away %u USB device%s that nobody served any more", s->swept,
			s->swept == 1 ? "" : "s");
	}
	finish(s);
}

static void on_return(struct qmp_session *s, json_t *value)
{
	static const enum step next[STEP_COUNT_] = {
		[STEP_CAPABILITIES] = STEP_STATUS,
		[STEP_GETFD] = STEP_CHARDEV_ADD,
		[STEP_CHARDEV_ADD] = STEP_DEVICE_ADD,
		[STEP_DEVICE_ADD] = STEP_DONE,
		[STEP_CHARDEV_UNDO] = STEP_DONE,
		[STEP_FD_UNDO] = STEP_DONE,
		[STEP_CHARDEV_REMOVE] = STEP_DONE,
		[STEP_STALE_CHARDEV] = STEP_CHARDEVS,
	};

	static const enum step undo[STEP_COUNT_] = {
		[STEP_GETFD] = STEP_FD_UNDO,
		[STEP_CHARDEV_ADD] = STEP_CHARDEV_UNDO,
		[STEP_DEVICE_ADD] = STEP_DEVICE_DEL,
	};

	if (s->cancelled && undo[s->step] != STEP_GREETING) {
		enter(s, undo[s->step]);
		return;
	}
	switch (s->step) {
	case STEP_STATUS:
		on_status(s, value);
		break;
	case STEP_DEVICE_DEL:
		enter(s, s->deleted ? STEP_CHARDEV_REMOVE : STEP_DELETED);
		break;
	case STEP_CHARDEVS:
		on_chardevs(s, value);
		break;
	case STEP_STALE_DEL:
		enter(s, s->deleted ? STEP_STALE_CHARDEV : STEP_STALE_DELETED);
		break;
	case STEP_GREETING:
	case STEP_DELETED:
	case STEP_STALE_DELETED:
	case STEP_DONE:
		finish_failed(s, QMP_STATUS_BAD_REPLY, "a return to no command");
		break;
	default:
		enter(s, next[s->step]);
	}
}

static void on_device_add_error(struct qmp_session *s, const char *desc)
{
	char text[sizeof(s->text)];

	/* hw/usb/bus.c: "usb port %s (bus %s) not found (in use?)" */
	if (strstr(desc, "not found (in use?)")) {
		if (++s->port <= PORTS_MAX) {
			say_device_add(s);
			return;
		}
		snprintf(text, sizeof(text), "USB controller %.64s has no free port",
			s->options.bus);
		desc = text;
	}
	fail(s, QMP_STATUS_REFUSED, desc);
	enter(s, STEP_CHARDEV_UNDO);
}

static void on_stale_del_error(struct qmp_session *s, const char *class, const char *desc)
{
	if (strcmp(class, "DeviceNotFound") == 0) {
		enter(s, STEP_STALE_CHARDEV);
	} else if (strstr(desc, "already in the process of unplug")) {
		enter(s, STEP_STALE_DELETED);
	} else {
		finish(s);
	}
}

static void on_error(struct qmp_session *s, json_t *error)
{
	const char *desc = json_string_value(json_object_get(error, "desc"));
	const char *class = json_string_value(json_object_get(error, "class"));

	if (!desc || !class) {
		finish_failed(s, QMP_STATUS_BAD_REPLY, "an error without class and desc");
		return;
	}
	switch (s->step) {
	case STEP_CHARDEV_ADD:
		fail(s, QMP_STATUS_REFUSED, desc);
		enter(s, STEP_FD_UNDO);
		break;
	case STEP_DEVICE_ADD:
		on_device_add_error(s, desc);
		break;
	case STEP_DEVICE_DEL:
		if (strcmp(class, "DeviceNotFound") == 0) {
			enter(s, STEP_CHARDEV_REMOVE);
			break;
		}
		if (strstr(desc, "already in the process of unplug")) {
			enter(s, STEP_DELETED);
			break;
		}
		finish_failed(s, QMP_STATUS_REFUSED, desc);
		break;
	case STEP_CHARDEV_UNDO:
	case STEP_FD_UNDO:
	case STEP_CHARDEV_REMOVE:
		/* usb-redir takes its chardev along when it goes: mostly there is none. */
	case STEP_CHARDEVS:
		finish(s);
		break;
	case STEP_STALE_DEL:
		on_stale_del_error(s, class, desc);
		break;
	case STEP_STALE_CHARDEV:
		enter(s, STEP_CHARDEVS);
		break;
	default:
		finish_failed(s, QMP_STATUS_REFUSED, desc);
	}
}

static void on_event(struct qmp_session *s, const char *event, json_t *data)
{
	const char *device = json_string_value(json_object_get(data, "device"));
	const char *ours = s->stale[0] ? s->stale : s->options.id;

	if (strcmp(event, "DEVICE_DELETED") != 0 || !device || strcmp(device, ours) != 0) {
		return;
	}
	s->deleted = true;
	if (s->step == STEP_DELETED) {
		enter(s, STEP_CHARDEV_REMOVE);
	} else if (s->step == STEP_STALE_DELETED) {
		enter(s, STEP_STALE_CHARDEV);
	}
}

static void on_object(struct qmp_session *s, json_t *o)
{
	const char *event = json_string_value(json_object_get(o, "event"));
	json_t *value = json_object_get(o, "return");
	json_t *error = json_object_get(o, "error");

	if (s->step == STEP_GREETING) {
		if (!json_object_get(o, "QMP")) {
			finish_failed(s, QMP_STATUS_BAD_REPLY, "this is no QMP greeting");
			return;
		}
		enter(s, STEP_CAPABILITIES);
	} else if (event) {
		on_event(s, event, json_object_get(o, "data"));
	} else if (value) {
		on_return(s, value);
	} else if (error) {
		on_error(s, error);
	} else {
		finish_failed(s, QMP_STATUS_BAD_REPLY, "neither return, error nor event");
	}
}

static void on_line(struct qmp_session *s, const char *line, size_t size)
{
	json_error_t why;
	json_t *o;

	if (size == 0 || (size == 1 && line[0] == '\r')) {
		return;
	}
	if (++s->lines > QMP_LINES_MAX) {
		finish_failed(s, QMP_STATUS_BAD_REPLY, "too many lines");
		return;
	}
	o = json_loadb(line, size, JSON_REJECT_DUPLICATES, &why);
	if (!json_is_object(o)) {
		finish_failed(s, QMP_STATUS_BAD_REPLY, "a line that is no JSON object");
	} else {
		on_object(s, o);
	}
	json_decref(o);
}

void qmp_session_input(struct qmp_session *s, const char *data, size_t size)
{
	while (size > 0 && s->step != STEP_DONE) {
		const char *end = memchr(data, '\n', size);
		size_t n = end ? (size_t)(end - data) : size;

		if (n > sizeof(s->line) - s->line_size) {
			finish_failed(s, QMP_STATUS_BAD_REPLY, "a line is too long");
			return;
		}
		memcpy(s->line + s->line_size, data, n);
		s->line_size += n;
		data += n;
		size -= n;
		if (end) {
			size_t line_size = s->line_size;

			data++;
			size--;
			s->line_size = 0;
			on_line(s, s->line, line_size);
		}
	}
}

void qmp_session_closed(struct qmp_session *s)
{
	if (s->step != STEP_DONE) {
		finish_failed(s, QMP_STATUS_CLOSED, "the VMM closed the connection");
	}
}

void qmp_session_timeout(struct qmp_session *s)
{
	if (s->step == STEP_GREETING) {
		finish_failed(s, QMP_STATUS_NO_GREETING, "no greeting");
	} else if (s->step == STEP_STALE_DELETED) {
		/* It answers; it only keeps what is left over. */
		finish(s);
	} else if (s->step != STEP_DONE) {
		finish_failed(s, QMP_STATUS_TIMEOUT,
			s->step == STEP_DELETED ? "no DEVICE_DELETED in time"
						: "no answer in time");
	}
}

void qmp_session_cancel(struct qmp_session *s)
{
	/* A detach is what is wanted then anyway. */
	s->cancelled = s->options.op != QMP_OP_DETACH;
}

bool qmp_session_greeted(const struct qmp_session *s)
{
	return s->step != STEP_GREETING;
}

bool qmp_session_output(
	const struct qmp_session *s, const char **data_out, size_t *size_out, bool *with_fd_out)
{
	if (s->out_at == s->out_size) {
		return false;
	}
	*data_out = s->out + s->out_at;
	*size_out = s->out_size - s->out_at;
	*with_fd_out = s->with_fd && s->out_at == 0;
	return true;
}

void qmp_session_written(struct qmp_session *s, size_t n)
{
	s->out_at += n;
	if (n > 0) {
		s->with_fd = false;
	}
}

bool qmp_session_finished(const struct qmp_session *s)
{
	return s->step == STEP_DONE && s->out_at == s->out_size;
}

void qmp_session_result(const struct qmp_session *s, union worker_msg *out)
{
	worker_msg_init(out, WORKER_MSG_QMP);
	out->qmp.status = s->status;
	out->qmp.vm_state = s->vm_state;
	memcpy(out->qmp.text, s->text, sizeof(s->text));
}

struct qmp_session *qmp_session_create(const struct qmp_session_options *options)
{
	struct qmp_session *s = calloc(1, sizeof(*s));

	if (s) {
		s->options = *options;
	}
	return s;
}

void qmp_session_destroy(struct qmp_session *s)
{
	free(s);
}
