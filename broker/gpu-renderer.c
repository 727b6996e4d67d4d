/* SPDX-License-Identifier: MIT
 *
 * A VM's renderers, one after the other: what each is given and what limits it.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/checked.h"
#include "base/fd.h"
#include "base/log.h"
#include "broker/broker.h"
#include "broker/gpu-internal.h"
#include "broker/render-node.h"
#include "broker/vm.h"

/* What is behind its accounting: the images and their backing, and what the process itself takes.
 */
static void limit_renderer(struct gpu *g)
{
	const struct scope_limits limits = {.memory = g->memory_max + GPU_RENDERER_SLACK,
		.tasks = GPU_RENDERER_TASKS,
		.cpu_weight = GPU_RENDERER_CPU_WEIGHT};

	process_limit(g->renderer, "gpu", g->vm->name, &limits);
}

/* What its renderer draws on; *fd_out stays -1, and path "", for software. Each renderer has a file
 * of its own. */
static int open_node(struct gpu *g, int *fd_out, char path[static GPU_POOL_NAME_SIZE])
{
	int r = render_node_choose(g->render_node, g->virgl == GPU_VIRGL_HARDWARE, fd_out, path,
		g->refused, sizeof(g->refused));

	if (r < 0) {
		log_error("%s: %s; see devbroker gpu nodes", g->name, g->refused);
	} else if (*fd_out >= 0) {
		log_info("%s: draws on %s", g->name, path);
	}
	return r;
}

/* Without it the renderer is believed. */
static void watch_node(struct gpu *g, int node)
{
	int r = gpu_fdinfo_open(&g->fdinfo, node);

	if (r < 0) {
		log_warn("%s: what the kernel counts of its render node can't be read: %s", g->name,
			strerror(-r));
	}
}

size_t gpu_add_hang(
	const struct gpu *g, const char **args, size_t n, char out[static GPU_HANG_OPTION_SIZE])
{
	if (g->hang_seconds > 0) {
		snprintf(out, GPU_HANG_OPTION_SIZE, "--hang-timeout=%u", g->hang_seconds);
		args[n++] = out;
	}
	return n;
}

/* It has commands and no time left. */
static int on_want(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct gpu *g = userdata;

	gpu_allowance_heard(&g->allowance);
	gpu_arbiter_wake(g);
	return 0;
}

/* node may be -1. The front's end of their link is the caller's. */
static int spawn(struct gpu *g, const char *const *args, size_t n, int node, int *link_out)
{
	struct broker *b = g->vm->broker;
	int fds[2 + GPU_ALLOWANCE_FDS], pair[2], r;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
		return -errno;
	}
	fds[0] = pair[1];
	fds[1 + GPU_ALLOWANCE_FDS] = node;
	r = gpu_allowance_connect(&g->allowance, b->event, on_want, g, &fds[1]);
	if (r == 0) {
		r = process_start(b, SPAWNER_GPU, g->name, args, n, fds,
			ARRAY_SIZE(fds) - (node < 0), gpu_renderer_ended, g, &g->renderer);
		safe_close(fds[2]);
		safe_close(fds[3]);
	}
	safe_close(pair[1]);
	if (r < 0) {
		safe_close(pair[0]);
		return r;
	}
	*link_out = pair[0];
	return 0;
}

int gpu_renderer_start(struct gpu *g)
{
	struct broker *b = g->vm->broker;
	char sandbox[96], name[96], memory[48], hang[GPU_HANG_OPTION_SIZE];
	const char *args[11] = {"--renderer", "--link-fd=3", "--allowance-fd=4", "--grant-fd=5",
		"--want-fd=6", sandbox, name, memory};
	struct parent_msg m = {.type = PARENT_RENDERER};
	_cleanup_close_ int node = -1;
	char path[GPU_POOL_NAME_SIZE] = "";
	size_t n = gpu_add_hang(g, args, 8, hang);
	_cleanup_close_ int link = -1;
	int r;

	snprintf(sandbox, sizeof(sandbox), "--sandbox=%s", b->config.sandbox);
	snprintf(name, sizeof(name), "--name=%s", g->vm->name);
	snprintf(memory, sizeof(memory), "--max-memory=%" PRIu64, g->memory_max);
	if (g->virgl != GPU_VIRGL_NO) {
		args[n++] = "--virgl";
		r = open_node(g, &node, path);
		if (r < 0) {
			return r;
		}
	}
	if (node >= 0) {
		args[n++] = "--drm-fd=7";
	}
	r = gpu_arbiter_join(g, path, !g->blamed);
	if (r < 0) {
		return r;
	}
	if (node >= 0) {
		watch_node(g, node);
	}
	r = spawn(g, args, n, node, &link);
	if (r == 0) {
		limit_renderer(g);
		r = gpu_say(g, &m, link);
	}
	return r;
}
