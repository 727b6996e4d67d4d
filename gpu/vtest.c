/* SPDX-License-Identifier: MIT
 *
 * The acceptor reads nothing that a client sends. It gives each connection to a renderer of its own
 * in a sandbox, and holds nothing of it afterwards but a pidfd. How many there may be is bounded;
 * who comes beyond that is closed, and that is said, but not for each of a flood.
 */
#include "gpu/vtest.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/sandbox.h"
#include "base/spawn.h"
#include "gpu/listener.h"
#include "gpu/vtest-charge.h"
#include "gpu/vtest-client.h"

#define BACKLOG 16
/* Between two lines that say that somebody was refused. */
#define REFUSALS_USEC UINT64_C(1000000)
/* When the host has no fds or processes left, or no memory. */
#define PAUSE_MS 200

/* How long a client draws on when devbrokerd has gone, which may come back. */
#define UNCHARGED_USEC UINT64_C(30000000)
#define RECHARGE_MS    1000

struct renderer {
	int pidfd;
	int charge;         /* -1: none */
	uint64_t uncharged; // µs, since when; 0: it isn't
	pid_t peer;         /* as it connected */
};

struct acceptor {
	const struct vtest_options *o;
	int program;
	int listener;
	int signals;
	int render_node; /* -1: software */
	bool paused;
	bool charges; /* at devbrokerd */
	uint32_t n;
	uint32_t n_uncharged;
	struct renderer renderers[VTEST_CLIENTS_MAX];
	uint64_t refusal_said; // µs
	uint32_t refusals;     // since then
};

static int start(const struct acceptor *a, int client, int *pidfd_out)
{
	const struct vtest_options *o = a->o;
	char sandbox[96], name[96], memory[48];
	const char *argv[] = {"devbroker-gpu", "--vtest-client", "--client-fd=3", sandbox, name,
		memory, "--log-level", o->log_level ? o->log_level : "info",
		a->render_node >= 0 ? "--drm-fd=4" : NULL, NULL};
	const int fds[] = {client, a->render_node};
	const struct spawn_spec spec = {
		.program_fd = a->program,
		.argv = argv,
		.fds = fds,
		.n_fds = a->render_node >= 0 ? 2 : 1,
		.stderr_fd = STDERR_FILENO,
		.namespaces = o->stages & SANDBOX_NAMESPACES,
		.die_with_caller = true,
	};
	pid_t pid;

	snprintf(sandbox, sizeof(sandbox), "--sandbox=%s", o->sandbox);
	snprintf(name, sizeof(name), "--name=%s", o->name);
	snprintf(memory, sizeof(memory), "--max-memory=%llu", (unsigned long long)o->memory);
	return spawn_process(&spec, &pid, pidfd_out);
}

static void refuse(struct acceptor *a, pid_t peer, uid_t uid, const char *why)
{
	uint64_t now = now_usec();

	a->refusals++;
	if (a->refusal_said != 0 && now - a->refusal_said < REFUSALS_USEC) {
		return;
	}
	log_warn("vm %s: refused a vtest client, pid %d of uid %u: %s (%u refused since this was "
		 "said "
		 "last)",
		a->o->name, (int)peer, (unsigned int)uid, why, a->refusals);
	a->refusal_said = now;
	a->refusals = 0;
}

static void welcome(struct acceptor *a, int client)
{
	struct ucred peer = {0};
	socklen_t size = sizeof(peer);
	struct renderer *one;
	char why[VTEST_WHY_SIZE];
	int r;

	_unused_ int known = getsockopt(client, SOL_SOCKET, SO_PEERCRED, &peer, &size);
	if (a->n >= a->o->clients_max) {
		snprintf(why, sizeof(why), "clients %u/%u; --max-clients allows more", a->n,
			a->o->clients_max);
		refuse(a, peer.pid, peer.uid, why);
		return;
	}
	one = &a->renderers[a->n];
	*one = (struct renderer){.pidfd = -1, .charge = -1, .peer = peer.pid};
	if (a->charges && vtest_charge(a->o->bus, a->o->vm, a->o->memory, &one->charge, why) < 0) {
		refuse(a, peer.pid, peer.uid, why);
		return;
	}
	r = start(a, client, &one->pidfd);
	if (r < 0) {
		snprintf(why, sizeof(why), "no renderer can be started: %s", strerror(-r));
		refuse(a, peer.pid, peer.uid, why);
		safe_close(one->charge);
		a->paused = true;
		return;
	}
	a->n++;
	log_info("vm %s: vtest client, pid %d of uid %u, has a renderer (%u of %u)", a->o->name,
		(int)peer.pid, (unsigned int)peer.uid, a->n, a->o->clients_max);
}

static void accept_client(struct acceptor *a)
{
	_cleanup_close_ int client = accept4(a->listener, NULL, NULL, SOCK_CLOEXEC);

	if (client >= 0) {
		welcome(a, client);
	} else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
		a->paused = true;
	}
}

/* One of them has ended; the last one takes its place. */
static void reap(struct acceptor *a, uint32_t i)
{
	siginfo_t info = {0};

	if (waitid(P_PIDFD, (id_t)a->renderers[i].pidfd, &info, WEXITED | WNOHANG) < 0 ||
		info.si_pid == 0) {
		return;
	}
	if (info.si_code != CLD_EXITED) {
		log_warn("vm %s: the renderer of vtest client pid %d ended by signal %d",
			a->o->name, (int)a->renderers[i].peer, info.si_status);
	} else if (info.si_status != 0 && info.si_status != VTEST_EXIT_DROPPED) {
		log_warn("vm %s: the renderer of vtest client pid %d ended with status %d",
			a->o->name, (int)a->renderers[i].peer, info.si_status);
	}
	safe_close(a->renderers[i].pidfd);
	safe_close(a->renderers[i].charge);
	a->n_uncharged -= a->renderers[i].uncharged != 0;
	a->renderers[i] = a->renderers[--a->n];
}

/* devbrokerd has gone, or the VM has: whoever draws has to be charged again, or ends. */
static void recharge(struct acceptor *a, struct renderer *one)
{
	uint64_t now = now_usec();
	char why[VTEST_WHY_SIZE];
	int r;

	if (one->charge >= 0) {
		one->charge = safe_close(one->charge);
		one->uncharged = now;
		a->n_uncharged++;
	}
	r = vtest_charge(a->o->bus, a->o->vm, a->o->memory, &one->charge, why);
	if (r == 0) {
		one->uncharged = 0;
		a->n_uncharged--;
	} else if (r == -EDQUOT || r == -ESRCH || r == -EACCES ||
		   now - one->uncharged > UNCHARGED_USEC) {
		log_warn("vm %s: ends the renderer of vtest client pid %d: %s", a->o->name,
			(int)one->peer, why);
		syscall(SYS_pidfd_send_signal, one->pidfd, SIGKILL, NULL, 0);
	}
}

static void see_to_charges(struct acceptor *a, const struct pollfd *charges)
{
	for (uint32_t i = 0; i < a->n; i++) {
		if (charges[i].revents || a->renderers[i].uncharged) {
			recharge(a, &a->renderers[i]);
		}
	}
}

/* Signals, the listener, then all renderers, then all charges. */
static nfds_t watch(const struct acceptor *a, struct pollfd *fds)
{
	fds[0] = (struct pollfd){.fd = a->signals, .events = POLLIN};
	fds[1] = (struct pollfd){.fd = a->paused ? -1 : a->listener, .events = POLLIN};
	for (uint32_t i = 0; i < a->n; i++) {
		fds[2 + i] = (struct pollfd){.fd = a->renderers[i].pidfd, .events = POLLIN};
		fds[2 + a->n + i] = (struct pollfd){.fd = a->renderers[i].charge};
	}
	return 2 + 2 * (nfds_t)a->n;
}

static int serve(struct acceptor *a)
{
	for (;;) {
		struct pollfd fds[2 + 2 * VTEST_CLIENTS_MAX];
		nfds_t n = watch(a, fds);
		int timeout = a->paused ? PAUSE_MS : a->n_uncharged > 0 ? RECHARGE_MS : -1;

		if (poll(fds, n, timeout) < 0) {
			if (errno != EINTR) {
				return EXIT_FAILURE;
			}
			continue;
		}
		a->paused = false;
		if (fds[0].revents) {
			return EXIT_SUCCESS;
		}
		see_to_charges(a, &fds[2 + a->n]);
		/* From the end, so that places don't change under what is still to come. */
		for (uint32_t i = a->n; i-- > 0;) {
			if (fds[2 + i].revents) {
				reap(a, i);
			}
		}
		if (fds[1].revents) {
			accept_client(a);
		}
	}
}

/* Whether devbrokerd charges for the clients. -errno if it should and won't. */
static int find_broker(struct acceptor *a)
{
	char why[VTEST_WHY_SIZE];
	int fd = -1, r;

	if (!a->o->vm) {
		return 0;
	}
	r = vtest_charge(a->o->bus, a->o->vm, a->o->memory, &fd, why);
	safe_close(fd);
	if (r == -ENOENT || r == -ECONNREFUSED) {
		log_info("vm %s: %s; its vtest clients have the limits of the options only",
			a->o->name, why);
		return 0;
	}
	if (r < 0 && r != -EDQUOT) {
		log_error("vm %s: can't be charged for vtest clients: %s", a->o->name, why);
		return r;
	}
	a->charges = true;
	return 0;
}

static int find_group(const char *name, gid_t *out)
{
	const struct group *g;

	*out = LISTENER_NO_GROUP;
	if (!name) {
		return 0;
	}
	g = getgrnam(name);
	if (!g) {
		log_error("there is no group %s; see getent group", name);
		return -ESRCH;
	}
	*out = g->gr_gid;
	return 0;
}

static int set_up(struct acceptor *a)
{
	gid_t group;
	int r = find_group(a->o->group, &group);

	if (r == 0) {
		r = find_broker(a);
	}
	if (r < 0) {
		return r;
	}
	if (a->o->render_node) {
		a->render_node = open(a->o->render_node, O_RDWR | O_CLOEXEC | O_NOCTTY);
		if (a->render_node < 0) {
			r = -errno;
			log_error("can't open the render node %s: %s", a->o->render_node,
				strerror(-r));
			return r;
		}
	}
	a->program = open("/proc/self/exe", O_PATH | O_CLOEXEC);
	a->signals = fd_stop_signals();
	if (a->program < 0 || a->signals < 0) {
		return -errno;
	}
	a->listener = listener_open(a->o->path, a->o->group ? 0660 : 0600, group, BACKLOG);
	if (a->listener < 0) {
		log_error("can't listen on %s: %s%s", a->o->path, strerror(-a->listener),
			a->listener == -EADDRINUSE ? "; somebody does, or it is no socket" : "");
		return a->listener;
	}
	return fd_set_nonblock(a->listener, true);
}

static void put_down(struct acceptor *a)
{
	for (uint32_t i = 0; i < a->n; i++) {
		siginfo_t info;

		syscall(SYS_pidfd_send_signal, a->renderers[i].pidfd, SIGKILL, NULL, 0);
		while (waitid(P_PIDFD, (id_t)a->renderers[i].pidfd, &info, WEXITED) < 0 &&
			errno == EINTR) {
		}
		safe_close(a->renderers[i].pidfd);
		safe_close(a->renderers[i].charge);
	}
}

int vtest_run(const struct vtest_options *o)
{
	struct acceptor a = {
		.o = o, .program = -1, .listener = -1, .signals = -1, .render_node = -1};
	int exit_code = EXIT_FAILURE;

	if (set_up(&a) == 0) {
		log_info("vm %s: serves vtest on %s, %u clients at most", o->name, o->path,
			o->clients_max);
		exit_code = serve(&a);
		put_down(&a);
		unlink(o->path);
	}
	safe_close(a.listener);
	safe_close(a.signals);
	safe_close(a.program);
	safe_close(a.render_node);
	return exit_code;
}
