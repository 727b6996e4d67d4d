/* SPDX-License-Identifier: MIT
 *
 * A VMM connects once in its life: it does not come back to a backend that has gone. So the socket
 * is there for good (systemd may hold it over our own restart), and whoever connects gets a front
 * of its own, which the renderer may be replaced under. Both are gone when the VMM is.
 *
 * The front is hostile: its messages are checked by protocol/gpu-parent, and too many of them end
 * it (process.h); its numbers are only shown. It is pinged; one that does not answer is ended.
 */
#include "broker/gpu.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/restarts.h"
#include "broker/broker.h"
#include "broker/bus.h"
#include "broker/gpu-internal.h"
#include "broker/gpu-socket.h"
#include "broker/vm-options.h"
#include "broker/vm.h"

#define PING_USEC               UINT64_C(500000)
#define UNANSWERED_MAX          3  /* it is ended before the fourth: within 2 s */
#define UNANSWERED_TO_READY_MAX 20 /* it has to close its sandbox first */
#define SIDE_MAX                16384
#define WAITERS_MAX             16

static const char *const state_names[] = {"waiting", "starting", "connected", "ending"};
static_assert(ARRAY_SIZE(state_names) == GPU_STATE_COUNT_, "one per state");

static const char *const source_names[] = {"", "cpu", "renderer", "kernel"};
static_assert(ARRAY_SIZE(source_names) == GPU_TIME_SOURCE_COUNT_, "one per source");

const char *gpu_state_name(enum gpu_state state)
{
	return state_names[state];
}

static void set_state(struct gpu *g, enum gpu_state state, const char *detail)
{
	if (g->state == state && strcmp(g->detail, detail) == 0) {
		return;
	}
	g->state = state;
	snprintf(g->detail, sizeof(g->detail), "%s", detail);
	log_info("%s: %s%s%s", g->name, gpu_state_name(state), detail[0] ? ": " : "", detail);
	vm_changed(g->vm);
	bus_gpu_changed(g->vm->broker, g->vm);
}

static void answer(struct gpu_waiter *w, const struct gpu_picture *picture)
{
	list_remove(&w->link);
	w->done(w, picture);
}

static void answer_all(struct gpu *g, int error)
{
	const struct gpu_picture none = {.error = error, .fd = -1};
	struct gpu_waiter *w, *next;

	list_for_each_safe (w, next, &g->waiters, link) {
		g->n_waiters--;
		answer(w, &none);
	}
}

/* Ends both; what is left is seen to when they have ended. */
static void end(struct gpu *g, const char *why)
{
	if (g->state != GPU_WAITING) {
		set_state(g, GPU_ENDING, why);
	}
	g->timer = sd_event_source_disable_unref(g->timer);
	g->control_source = sd_event_source_disable_unref(g->control_source);
	g->control = safe_close(g->control);
	process_kill(g->front);
	process_kill(g->renderer);
	answer_all(g, -ECONNRESET);
}

static void ended(struct gpu *g)
{
	char detail[sizeof(g->detail)];

	if (g->front || g->renderer) {
		return;
	}
	charge_return(&g->memory);
	gpu_arbiter_leave(g);
	gpu_allowance_finish(&g->allowance);
	g->ready = g->wanted = g->blamed = false;
	g->counters = (struct parent_msg){0};
	g->heard_usec = g->frames_per_sec = 0;
	memcpy(detail, g->detail, sizeof(detail));
	set_state(g, GPU_WAITING, detail);
	if (g->listen_source) {
		sd_event_source_set_enabled(g->listen_source, SD_EVENT_ON);
	}
}

int gpu_say(struct gpu *g, const struct parent_msg *m, int fd)
{
	return fd_send(g->control, m, sizeof(*m), &fd, fd >= 0 ? 1 : 0);
}

static void replace_renderer(struct gpu *g)
{
	g->wanted = false;
	if (restarts_too_often(&g->restarts, RESTARTS_MAX, RESTARTS_USEC, now_usec())) {
		end(g, "its renderers end too often");
	} else if (gpu_renderer_start(g) < 0) {
		end(g, g->refused[0] ? g->refused : "no renderer could be started");
	}
}

/* As a shell shows it; -errno: it could not be started. */
static int status_of(int error, int status)
{
	return error < 0 ? error : status < 0 ? 128 - status : status;
}

void gpu_renderer_ended(void *userdata, int error, int status)
{
	struct gpu *g = userdata;

	g->renderer = NULL;
	gpu_arbiter_renderer_ended(g);
	if (g->state == GPU_ENDING || !g->front) {
		ended(g);
		return;
	}
	log_warn("%s: its renderer ended with status %d", g->name, status_of(error, status));
	if (g->wanted) {
		replace_renderer(g);
	}
}

static void on_front_ended(void *userdata, int error, int status)
{
	struct gpu *g = userdata;
	int shown = status_of(error, status);
	char why[96];

	g->front = NULL;
	if (g->state != GPU_ENDING) {
		snprintf(why, sizeof(why),
			shown == 0 ? "its VMM has gone"
				   : "its front ended with status %d; see the log",
			shown);
		end(g, why);
	}
	ended(g);
}

static void send_mode(struct gpu *g, uint32_t scanout)
{
	const struct parent_msg m = {.type = PARENT_DISPLAY,
		.scanout = scanout,
		.width = g->modes[scanout].width,
		.height = g->modes[scanout].height};

	_unused_ int r = gpu_say(g, &m, -1);
}

static void on_picture(struct gpu *g, const struct parent_msg *m, int fd)
{
	const struct gpu_picture picture = {
		.error = m->error, .fd = fd, .width = m->width, .height = m->height};
	struct gpu_waiter *w;

	list_for_each (w, &g->waiters, link) {
		if (w->seq == m->seq) {
			g->messages--;
			g->n_waiters--;
			answer(w, &picture);
			return;
		}
	}
}

static void on_ready(struct gpu *g, const struct parent_msg *m)
{
	if (g->ready) {
		end(g, "its front was ready twice");
		return;
	}
	if (m->version != PARENT_VERSION ||
		m->sandbox_stages != g->vm->broker->config.sandbox_stages) {
		end(g, "the sandbox of its front is not as configured");
		return;
	}
	g->ready = true;
	for (uint32_t i = 0; i < GPU_SCANOUTS; i++) {
		if (g->modes[i].width > 0) {
			send_mode(g, i);
		}
	}
	set_state(g, GPU_CONNECTED, "");
}

/* Drawing in software is said once, and refused where hardware is demanded: a render node can be
 * one that no driver of this host draws on. */
static void look_at_renderer(struct gpu *g)
{
	const char *name = g->counters.renderer;
	bool software = parent_draws_in_software(name);

	if (g->told || name[0] == '\0') {
		return;
	}
	g->told = true;
	if (!software) {
		log_info("%s: 3D is drawn by %s", g->name, name);
	} else if (g->virgl == GPU_VIRGL_HARDWARE) {
		end(g, "virgl=hardware, and its renderer draws in software");
	} else {
		log_warn("%s: 3D is drawn in software, by %s: slowly, and with the host's CPU. "
			 "Tag a render node in udev or name one with render-node= "
			 "(devbroker-vm.conf(5))",
			g->name, name);
	}
}

/* Its numbers may be any: they are only shown. */
static void count(struct gpu *g, const struct parent_msg *m)
{
	uint64_t now = now_usec(), usec = MAX(now - g->heard_usec, UINT64_C(1));

	g->frames_per_sec = 0;
	if (g->heard_usec > 0 && m->frames >= g->counters.frames) {
		g->frames_per_sec =
			(uint32_t)MIN((double)(m->frames - g->counters.frames) * 1e6 / (double)usec,
				(double)UINT32_MAX);
	}
	g->counters = *m;
	g->heard_usec = now;
}

static void handle(struct gpu *g, const struct parent_msg *m, int fd)
{
	g->unanswered = (struct patience){0};
	switch (m->type) {
	case PARENT_READY:
		on_ready(g, m);
		break;
	case PARENT_RENDERER_LOST:
		g->wanted = true;
		g->blamed = m->hangs > g->counters.hangs;
		g->counters.hangs = m->hangs;
		if (g->renderer) {
			/* It has broken the front's protocol, or its end is still to be heard of.
			 */
			process_kill(g->renderer);
		} else {
			replace_renderer(g);
		}
		break;
	case PARENT_RENDERER_STARTED:
		gpu_arbiter_renderer_started(g);
		break;
	case PARENT_PICTURE:
		on_picture(g, m, fd);
		break;
	default:
		count(g, m);
		look_at_renderer(g);
	}
}

static int on_control(sd_event_source *source, int sock, uint32_t revents, void *userdata)
{
	struct gpu *g = userdata;

	for (int i = 0; i < PROCESS_MESSAGES_PER_TURN && g->control >= 0; i++) {
		struct parent_msg m, checked;
		_cleanup_close_ int fd = -1;
		size_t n_fds = 0;
		ssize_t n = fd_recv(g->control, &m, sizeof(m), &fd, 1, &n_fds);

		if (n == -EAGAIN) {
			break;
		}
		if (n == 0 || n == -ECONNRESET) {
			/* Its end says why. */
			g->control_source = sd_event_source_disable_unref(g->control_source);
			break;
		}
		if (n < 0 || parent_decode(FRONT_TO_PARENT, &m, (size_t)n, n_fds, &checked) < 0) {
			end(g, "its front sent a malformed message");
			break;
		}
		if (++g->messages > PROCESS_MESSAGES_PER_PING) {
			end(g, "its front sent too many messages");
			break;
		}
		handle(g, &checked, fd);
	}
	return 0;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct gpu *g = userdata;
	struct parent_msg m = {.type = PARENT_PING, .seq = ++g->seq};

	g->messages = 0;
	gpu_arbiter_look(g);
	if (g->unanswered.misses == 0) {
		g->unanswered.misses = 1;
	} else {
		patience_missed(&g->unanswered, usec, now_usec(), PING_USEC);
	}
	if (g->unanswered.misses > (g->ready ? UNANSWERED_MAX : UNANSWERED_TO_READY_MAX)) {
		end(g, "its front does not answer");
		return 0;
	}
	_unused_ int r = gpu_say(g, &m, -1);
	sd_event_source_set_time_relative(source, PING_USEC);
	return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

static int start_front(struct gpu *g, int vhost_fd)
{
	struct broker *b = g->vm->broker;
	char sandbox[96], name[96], hang[GPU_HANG_OPTION_SIZE];
	const char *args[8] = {"--front", "--control-fd=3", "--vhost-fd=4", sandbox, name};
	size_t n = gpu_add_hang(g, args, 5, hang);
	int pair[2], r;

	if (g->virgl != GPU_VIRGL_NO) {
		args[n++] = "--virgl";
	}
	if (g->dmabuf) {
		args[n++] = "--dmabuf";
	}
	snprintf(sandbox, sizeof(sandbox), "--sandbox=%s", b->config.sandbox);
	snprintf(name, sizeof(name), "--name=vm %s: gpu", g->vm->name);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) {
		return -errno;
	}
	g->control = pair[0];
	r = sd_event_add_io(b->event, &g->control_source, g->control, EPOLLIN, on_control, g);
	if (r >= 0) {
		r = sd_event_add_time_relative(
			b->event, &g->timer, CLOCK_MONOTONIC, PING_USEC, 10000, on_timer, g);
	}
	if (r >= 0) {
		r = process_start(b, SPAWNER_GPU, g->name, args, n,
			(const int[]){pair[1], vhost_fd}, 2, on_front_ended, g, &g->front);
	}
	safe_close(pair[1]);
	return r;
}

static void start(struct gpu *g, int vhost_fd)
{
	struct refusal_text text = {0};
	int r = charge_take(&g->memory, &g->vm->gpu_memory, g->memory_max, g->vm->name, &text);

	g->unanswered = (struct patience){0};
	g->messages = 0;
	g->refused[0] = '\0';
	g->restarts = (struct restarts){0};
	g->told = false;
	set_state(g, GPU_STARTING, "");
	if (r == 0) {
		r = gpu_allowance_create(&g->allowance);
	}
	if (r == 0) {
		gpu_allowance_limit(&g->allowance, &g->vm->gpu_limits, g->memory_max);
	}
	if (r == 0) {
		r = start_front(g, vhost_fd);
	}
	if (r == 0) {
		r = gpu_renderer_start(g);
	}
	if (r != 0) {
		end(g, g->refused[0] ? g->refused : r < 0 ? strerror(-r) : text.sentence);
		ended(g);
	}
}

static int on_connection(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct gpu *g = userdata;
	_cleanup_close_ int sock = accept4(fd, NULL, NULL, SOCK_CLOEXEC);

	if (sock < 0) {
		return 0;
	}
	/* The next one waits until this one is gone. */
	sd_event_source_set_enabled(source, SD_EVENT_OFF);
	start(g, sock);
	return 0;
}

int gpu_create(struct vm *vm, const struct vm_options *o, const char *pool, struct gpu **out)
{
	struct gpu *g = calloc(1, sizeof(*g));
	int r;

	if (!g) {
		return -ENOMEM;
	}
	g->vm = vm;
	g->memory_max = o->gpu_memory;
	g->virgl = o->gpu_virgl;
	g->dmabuf = o->gpu_dmabuf;
	g->hang_seconds = o->gpu_hang_seconds;
	g->control = g->listener = -1;
	list_init(&g->waiters);
	gpu_reservations_init(&g->reserved);
	gpu_allowance_init(&g->allowance);
	gpu_fdinfo_init(&g->fdinfo);
	snprintf(g->name, sizeof(g->name), "vm %s: gpu", vm->name);
	snprintf(g->pool, sizeof(g->pool), "%s", pool);
	r = gpu_socket_listen(
		vm->broker->run_dir, vm->name, o->gpu_group, g->path, &g->own_socket, &g->listener);
	if (r >= 0 && o->render_node) {
		g->render_node = strdup(o->render_node);
		r = g->render_node ? 0 : -ENOMEM;
	}
	if (r >= 0) {
		r = sd_event_add_io(vm->broker->event, &g->listen_source, g->listener, EPOLLIN,
			on_connection, g);
	}
	if (r < 0) {
		gpu_destroy(g);
		return r;
	}
	*out = g;
	return 0;
}

void gpu_destroy(struct gpu *g)
{
	if (!g) {
		return;
	}
	g->listen_source = sd_event_source_disable_unref(g->listen_source);
	end(g, "");
	gpu_arbiter_leave(g);
	process_forget(g->front);
	process_forget(g->renderer);
	charge_return(&g->memory);
	gpu_reservations_finish(&g->reserved);
	gpu_allowance_finish(&g->allowance);
	if (g->own_socket) {
		unlink(g->path);
	}
	safe_close(g->listener);
	free(g->render_node);
	free(g);
}

void gpu_status(const struct gpu *g, struct gpu_status *out)
{
	*out = (struct gpu_status){
		.state = g->state,
		.socket = g->path,
		.detail = g->detail,
		.memory_max = g->memory_max,
		.counters = g->counters,
		.heard_usec = g->heard_usec,
		.page = g->allowance.page,
		.used_ns = g->part.member.used_ns,
		.permille = g->part.permille,
		.frames_per_sec = g->frames_per_sec,
		.rss = g->part.rss,
		.device_memory = g->part.device_memory,
		.time_from = source_names[gpu_arbiter_source(g)],
	};
}

int gpu_check_share(const struct gpu *g, const struct gpu_limits *l, struct refusal_text *text)
{
	return gpu_arbiter_check(g->vm->broker, g, g->pool, l, text);
}

void gpu_limits_changed(struct gpu *g)
{
	struct vm *vm = g->vm;

	g->memory_max = vm->gpu_memory.limit;
	if (g->memory.quota) {
		charge_resize(&g->memory, g->memory_max);
	}
	gpu_allowance_limit(&g->allowance, &vm->gpu_limits, g->memory_max);
	gpu_arbiter_changed(g);
	bus_gpu_changed(vm->broker, vm);
}

int gpu_reserve(struct gpu *g, uint64_t bytes, int *fd_out, struct refusal_text *text)
{
	return gpu_reservations_add(&g->reserved, g->vm, bytes, fd_out, text);
}

static int check_connected(const struct gpu *g, uint32_t scanout, struct refusal_text *text)
{
	if (scanout >= GPU_SCANOUTS) {
		return refuse_with(text, REFUSAL_INVALID, "Use 0 to 15.",
			"vm %s: there is no scanout %u", g->vm->name, scanout);
	}
	return g->ready && g->state == GPU_CONNECTED
		       ? 0
		       : refuse_with(text, REFUSAL_VM_GONE,
				 "Start the VM with its GPU's socket; see devbroker gpu show.",
				 "vm %s: its VMM is not connected", g->vm->name);
}

int gpu_allow(struct gpu *g, struct refusal_text *text)
{
	const struct parent_msg m = {.type = PARENT_ALLOW};
	int r = check_connected(g, 0, text);

	return r != 0 ? r : gpu_say(g, &m, -1);
}

int gpu_set_display(
	struct gpu *g, uint32_t scanout, uint32_t width, uint32_t height, struct refusal_text *text)
{
	if (scanout >= GPU_SCANOUTS || width > SIDE_MAX || height > SIDE_MAX ||
		(width == 0) != (height == 0)) {
		return refuse_with(text, REFUSAL_INVALID,
			"Use a scanout from 0 to 15, and up to 16384 pixels.",
			"vm %s: that is no mode of a display", g->vm->name);
	}
	g->modes[scanout].width = width;
	g->modes[scanout].height = height;
	if (g->ready && g->control >= 0) {
		send_mode(g, scanout);
	}
	return 0;
}

int gpu_screenshot(struct gpu *g, uint32_t scanout, struct gpu_waiter *w, struct refusal_text *text)
{
	struct parent_msg m = {.type = PARENT_SCREENSHOT, .scanout = scanout, .seq = ++g->seq};
	int r = check_connected(g, scanout, text);

	if (r != 0) {
		return r;
	}
	if (g->n_waiters == WAITERS_MAX || gpu_say(g, &m, -1) < 0) {
		return refuse(
			text, REFUSAL_BUSY, "vm %s: too many screenshots at once", g->vm->name);
	}
	w->seq = m.seq;
	g->n_waiters++;
	list_append(&g->waiters, &w->link);
	return 0;
}
