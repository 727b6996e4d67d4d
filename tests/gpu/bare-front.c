/* SPDX-License-Identifier: MIT */
#include "tests/gpu/bare-front.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/sandbox.h"
#include "base/spawn.h"
#include "tests/unit/test.h"

#define MEMORY (4U << 20)

static void spawn(struct bare_front *b, int control, int vhost, bool dmabuf)
{
	char hang[32];
	const char *const argv[] = {"devbroker-gpu", "--front", "--control-fd=3", "--vhost-fd=4",
		"--sandbox=full", "--name=test", hang, dmabuf ? "--dmabuf" : NULL, NULL};
	const int fds[] = {control, vhost};
	_cleanup_close_ int program = open(getenv("DEVBROKER_GPU"), O_PATH | O_CLOEXEC);
	const struct spawn_spec spec = {
		.program_fd = program,
		.argv = argv,
		.fds = fds,
		.n_fds = 2,
		.stderr_fd = STDERR_FILENO,
		.namespaces = true,
		.die_with_caller = true,
	};

	snprintf(hang, sizeof(hang), "--hang-timeout=%d", BARE_HANG_SECONDS);
	assert_true(program >= 0);
	assert_int_equal(spawn_process(&spec, &b->pid, &b->pidfd), 0);
}

static int set_up(void **state, bool dmabuf)
{
	struct bare_front *b = calloc(1, sizeof(*b));
	int control[2], vhost[2];
	struct parent_msg ready;

	b->link = b->bell = b->journal_fd = -1;
	sim_screen_init(&b->screen, 640, 480);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, vhost), 0);
	spawn(b, control[1], vhost[1], dmabuf);
	safe_close(control[1]);
	safe_close(vhost[1]);
	b->control = control[0];
	b->vhost = vhost[0];
	for (size_t i = 0; i < SIM_QUEUES; i++) {
		b->kicks[i] = eventfd(0, EFD_CLOEXEC);
		b->calls[i] = eventfd(0, EFD_CLOEXEC);
	}
	assert_int_equal(bare_hear(b, PARENT_READY, &ready), -1);
	assert_int_equal(ready.version, PARENT_VERSION);
	assert_int_equal(ready.sandbox_stages, SANDBOX_ALL);
	assert_int_equal(sim_vmm_init(&b->vmm, b->vhost, MEMORY), 0);
	assert_int_equal(sim_vmm_features(&b->vmm, UINT64_C(1) << 32), 0);
	assert_int_equal(sim_vmm_memory(&b->vmm), 0);
	*state = b;
	return 0;
}

int bare_set_up(void **state)
{
	return set_up(state, false);
}

int bare_set_up_dmabuf(void **state)
{
	return set_up(state, true);
}

int bare_tear_down(void **state)
{
	struct bare_front *b = *state;
	siginfo_t info;

	if (b->pidfd >= 0) {
		syscall(SYS_pidfd_send_signal, b->pidfd, SIGKILL, NULL, 0);
		waitid(P_PIDFD, (id_t)b->pidfd, &info, WEXITED);
	}
	for (size_t i = 0; i < SIM_QUEUES; i++) {
		safe_close(b->kicks[i]);
		safe_close(b->calls[i]);
	}
	sim_vmm_finish(&b->vmm);
	sim_screen_finish(&b->screen);
	journal_unmap(b->journal);
	safe_close(b->journal_fd);
	safe_close(b->bell);
	safe_close(b->link);
	safe_close(b->vhost);
	safe_close(b->control);
	safe_close(b->pidfd);
	free(b);
	return 0;
}

static bool readable(int fd, int ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, ms) == 1;
}

void bare_plug(struct bare_front *b)
{
	const struct parent_msg m = {.type = PARENT_RENDERER};
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(fd_send(b->control, &m, sizeof(m), &pair[1], 1), 0);
	safe_close(pair[1]);
	safe_close(b->link);
	b->link = pair[0];
}

void bare_answer(struct bare_front *b, uint64_t seq, bool busy)
{
	union link_msg m;

	link_init(&m, LINK_PONG);
	m.pong.seq = seq;
	m.pong.busy = busy;
	bare_send(b, &m, -1);
}

/* The next message but for PINGs, which are answered: its type. */
static uint32_t next(struct bare_front *b, union link_msg *out, int fds[static LINK_FDS_MAX])
{
	for (;;) {
		assert_true(readable(b->link, 5000));
		assert_int_equal(link_receive(b->link, LINK_TO_RENDERER, out, fds), 1);
		if (out->header.type != LINK_PING) {
			return out->header.type;
		}
		bare_answer(b, out->ping.seq, false);
	}
}

uint64_t bare_expect_ping(struct bare_front *b)
{
	int fds[LINK_FDS_MAX];
	union link_msg m;

	assert_true(readable(b->link, 5000));
	assert_int_equal(link_receive(b->link, LINK_TO_RENDERER, &m, fds), 1);
	assert_int_equal(m.header.type, LINK_PING);
	return m.ping.seq;
}

size_t bare_expect(struct bare_front *b, enum link_type type, union link_msg *out)
{
	int fds[LINK_FDS_MAX];
	size_t n = 0;

	assert_int_equal(next(b, out, fds), type);
	for (size_t i = 0; i < LINK_FDS_MAX; i++) {
		n += fds[i] >= 0;
		safe_close(fds[i]);
	}
	return n;
}

void bare_expect_nothing(struct bare_front *b, int ms)
{
	int fds[LINK_FDS_MAX];
	union link_msg m;

	while (readable(b->link, ms)) {
		assert_int_equal(link_receive(b->link, LINK_TO_RENDERER, &m, fds), 1);
		assert_int_equal(m.header.type, LINK_PING);
		bare_answer(b, m.ping.seq, false);
	}
}

void bare_renderer(struct bare_front *b)
{
	int fds[LINK_FDS_MAX];
	union link_msg m;

	bare_plug(b);
	link_init(&m, LINK_READY);
	m.ready.version = LINK_VERSION;
	bare_send(b, &m, -1);
	assert_int_equal(next(b, &m, fds), LINK_SETUP);
	b->setup = m.setup;
	journal_unmap(b->journal);
	safe_close(b->journal_fd);
	safe_close(b->bell);
	b->journal_fd = fds[0];
	b->bell = fds[1];
	assert_int_equal(journal_map(b->journal_fd, &b->journal), 0);
	assert_int_equal(bare_expect(b, LINK_MEMORY, &m), 0);
	b->memory = m.memory;
	for (b->n_regions = 0; b->n_regions < b->memory.n_regions; b->n_regions++) {
		assert_int_equal(bare_expect(b, LINK_REGION, &m), 1);
		b->regions[b->n_regions] = m.region;
	}
	/* Its first question lies behind what the test expects. */
	bare_answer(b, 1, false);
}

void bare_send(struct bare_front *b, const union link_msg *m, int fd)
{
	assert_int_equal(link_send(b->link, m, &fd, fd >= 0 ? 1 : 0), 0);
}

void bare_expect_lost(struct bare_front *b)
{
	int fds[LINK_FDS_MAX], r = 1;
	struct parent_msg m;
	union link_msg ignored;

	assert_int_equal(bare_hear(b, PARENT_RENDERER_LOST, &m), -1);
	while (r > 0) {
		assert_true(readable(b->link, 5000));
		r = link_receive(b->link, LINK_TO_RENDERER, &ignored, fds);
		for (size_t i = 0; i < LINK_FDS_MAX; i++) {
			safe_close(fds[i]);
		}
	}
	assert_int_equal(r, 0);
	b->link = safe_close(b->link);
}

bool bare_serves(struct bare_front *b)
{
	uint64_t features;

	return sim_vmm_ask(&b->vmm, VHOST_USER_GET_FEATURES, &features) == 0 && features != 0;
}

void bare_ask(struct bare_front *b, const struct parent_msg *m)
{
	assert_int_equal(fd_send(b->control, m, sizeof(*m), NULL, 0), 0);
}

int bare_hear(struct bare_front *b, uint32_t type, struct parent_msg *out)
{
	struct parent_msg m;
	size_t n_fds = 0;
	int fd = -1;

	do {
		assert_true(readable(b->control, 15000));
		assert_int_equal(fd_recv(b->control, &m, sizeof(m), &fd, 1, &n_fds), sizeof(m));
		assert_int_equal(parent_decode(FRONT_TO_PARENT, &m, sizeof(m), n_fds, out), 0);
	} while (out->type == PARENT_RENDERER_STARTED && type != PARENT_RENDERER_STARTED);
	assert_int_equal(out->type, type);
	return fd;
}

void bare_ring(struct bare_front *b, uint32_t queue)
{
	const uint64_t at = 0x10000 * (queue + 1);
	const struct sim_vmm_ring ring = {.size = BARE_RING,
		.base = 7,
		.desc = at,
		.avail = at + 0x4000,
		.used = at + 0x8000,
		.kick = b->kicks[queue],
		.call = b->calls[queue]};

	assert_int_equal(sim_vmm_ring_start(&b->vmm, queue, &ring), 0);
}

void bare_screen(struct bare_front *b)
{
	int fd = sim_screen_connect(&b->screen);

	assert_true(fd >= 0);
	assert_int_equal(sim_vmm_tell(&b->vmm, VHOST_USER_GPU_SET_SOCKET, NULL, 0, &fd, 1), 0);
	safe_close(fd);
}

void bare_look(struct bare_front *b, uint32_t scanout, uint64_t updates)
{
	for (int i = 0; i < 200 && b->screen.scanouts[scanout].n_updates < updates; i++) {
		readable(b->screen.fd, 10);
		assert_true(sim_screen_read(&b->screen));
	}
	assert_string_equal(b->screen.wrong, "");
}

int bare_image(uint32_t side, uint32_t **map_out)
{
	size_t size = (size_t)side * side * 4;
	int fd = memfd_create("image", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
	*map_out = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(*map_out, MAP_FAILED);
	for (size_t i = 0; i < (size_t)side * side; i++) {
		(*map_out)[i] = (uint32_t)i;
	}
	return fd;
}

void bare_scanout(union link_msg *m, uint32_t image, uint32_t side)
{
	link_init(m, LINK_SCANOUT);
	m->scanout.image = image;
	m->scanout.width = m->scanout.height = side;
	m->scanout.scanout_width = m->scanout.scanout_height = side;
	m->scanout.fds = LINK_HAS_IMAGE;
}

void bare_show(struct bare_front *b, uint32_t image, uint32_t side, int fd)
{
	union link_msg m;

	bare_scanout(&m, image, side);
	m.scanout.fds = fd >= 0 ? LINK_HAS_IMAGE : 0;
	bare_send(b, &m, fd);
}

unsigned int bare_fds(const struct bare_front *b)
{
	unsigned int n = 0;
	char path[64];
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)b->pid);
	d = opendir(path);
	if (!d) {
		return 0;
	}
	while (readdir(d)) {
		n++;
	}
	closedir(d);
	return n;
}

unsigned long bare_switches(const struct bare_front *b)
{
	unsigned long n = 0;
	char path[64], line[128];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)b->pid);
	f = fopen(path, "re");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f) &&
		sscanf(line, "voluntary_ctxt_switches: %lu", &n) != 1) {
	}
	fclose(f);
	return n;
}

uint64_t bare_cpu_ms(const struct bare_front *b)
{
	unsigned long long user = 0, system = 0;
	char path[64];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)b->pid);
	f = fopen(path, "re");
	assert_non_null(f);
	assert_int_equal(
		fscanf(f, "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu",
			&user, &system),
		2);
	fclose(f);
	return (user + system) * 1000 / (uint64_t)sysconf(_SC_CLK_TCK);
}

int bare_exit_code(struct bare_front *b)
{
	siginfo_t info = {0};

	assert_true(readable(b->pidfd, 5000));
	assert_int_equal(waitid(P_PIDFD, (id_t)b->pidfd, &info, WEXITED), 0);
	b->pidfd = safe_close(b->pidfd);
	return info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
}
