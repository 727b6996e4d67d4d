/* SPDX-License-Identifier: MIT */
#include "tests/integration/fake-front.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/spawn.h"
#include "tests/unit/test.h"

#define USER        0x7f0000000000ULL
#define FEATURES    (1ULL << 32 | 1ULL << 29 | 1ULL << 28)
#define RING_AT(q)  ((uint64_t)(q)*0x10000)
#define AVAIL_AT    0x4000
#define USED_AT     0x8000
#define BUFFER_AT   0x100000
#define BUFFER_SIZE 0x1000
#define ANSWER_AT   0x800

struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};

struct fake_front *fake_front_create(void)
{
	struct fake_front *f = calloc(1, sizeof(*f));

	f->memory_fd = memfd_create("guest", MFD_CLOEXEC);
	assert_int_equal(ftruncate(f->memory_fd, 2 * GUEST_REGION), 0);
	f->guest =
		mmap(NULL, 2 * GUEST_REGION, PROT_READ | PROT_WRITE, MAP_SHARED, f->memory_fd, 0);
	assert_true(f->guest != MAP_FAILED);
	assert_int_equal(journal_create(&f->journal_fd, &f->journal), 0);
	f->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	f->link = f->pidfd = -1;
	f->answers_modes = true;
	f->stages = SANDBOX_ALL;
	for (uint32_t q = 0; q < LINK_QUEUES; q++) {
		f->rings[q].kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		f->rings[q].call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		f->rings[q].err = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		f->rings[q].run = 1;
	}
	for (int i = 0; i < LINK_SCANOUTS; i++) {
		f->image_fds[i] = -1;
	}
	return f;
}

static void forget_images(struct fake_front *f)
{
	for (int i = 0; i < LINK_SCANOUTS; i++) {
		f->image_fds[i] = safe_close(f->image_fds[i]);
	}
}

void fake_front_kill(struct fake_front *f)
{
	siginfo_t info;

	f->link = safe_close(f->link);
	if (f->pidfd >= 0) {
		syscall(SYS_pidfd_send_signal, f->pidfd, SIGKILL, NULL, 0);
		assert_int_equal(waitid(P_PIDFD, (id_t)f->pidfd, &info, WEXITED), 0);
		f->pidfd = safe_close(f->pidfd);
	}
	forget_images(f);
}

void fake_front_destroy(struct fake_front *f)
{
	fake_front_kill(f);
	for (uint32_t q = 0; q < LINK_QUEUES; q++) {
		close(f->rings[q].kick);
		close(f->rings[q].call);
		close(f->rings[q].err);
	}
	journal_unmap(f->journal);
	munmap(f->guest, 2 * GUEST_REGION);
	close(f->journal_fd);
	close(f->memory_fd);
	close(f->bell);
	free(f);
}

bool fake_front_alive(const struct fake_front *f)
{
	struct pollfd p = {.fd = f->pidfd, .events = POLLIN};

	return f->pidfd >= 0 && poll(&p, 1, 0) == 0;
}

void fake_front_send(struct fake_front *f, const union link_msg *m, const int *fds, size_t n_fds)
{
	int err = link_send(f->link, m, fds, n_fds);

	for (int i = 0; err == -EAGAIN && i < 1000; i++) {
		poll(NULL, 0, 5);
		err = link_send(f->link, m, fds, n_fds);
	}
	assert_int_equal(err, 0);
}

static void send_modes(struct fake_front *f)
{
	union link_msg m;

	link_init(&m, LINK_MODES);
	m.modes.modes[0] = (struct link_mode){0, 0, 1024, 768};
	fake_front_send(f, &m, NULL, 0);
}

static void handle(struct fake_front *f, const union link_msg *m, int fds[])
{
	switch (m->header.type) {
	case LINK_MODES_WANTED:
		f->n_modes_wanted++;
		if (f->answers_modes) {
			send_modes(f);
		}
		break;
	case LINK_SCANOUT:
		f->scanouts[m->scanout.scanout] = m->scanout;
		if (fds[0] >= 0) {
			f->n_images++;
			safe_close(f->image_fds[m->scanout.scanout]);
			f->image_fds[m->scanout.scanout] = steal_fd(&fds[0]);
		}
		break;
	case LINK_IMAGE_GONE:
		f->n_gone += m->image_gone.image != 0;
		f->n_gone_all += m->image_gone.image == 0;
		break;
	case LINK_BROKEN:
		f->broken[m->broken.queue] = m->broken;
		break;
	default:
		break;
	}
	for (int i = 0; i < LINK_FDS_MAX; i++) {
		safe_close(fds[i]);
	}
}

bool fake_front_wait(struct fake_front *f, uint32_t type, union link_msg *out, int ms)
{
	int64_t end = now_ms() + ms;

	for (;;) {
		struct pollfd p = {.fd = f->link, .events = POLLIN};
		int64_t left = end - now_ms();
		int fds[LINK_FDS_MAX], n;

		if (left < 0 || poll(&p, 1, (int)left) <= 0) {
			return false;
		}
		n = link_receive(f->link, LINK_TO_FRONT, out, fds);
		if (n <= 0) {
			return false;
		}
		handle(f, out, fds);
		if (out->header.type == type) {
			return true;
		}
	}
}

void fake_front_drain(struct fake_front *f)
{
	union link_msg m;

	_unused_ bool none = fake_front_wait(f, 0, &m, 0);
}

int fake_front_memory(struct fake_front *f)
{
	union link_msg m, out;

	link_init(&m, LINK_MEMORY);
	m.memory.n_regions = 2;
	m.memory.generation = ++f->generation;
	fake_front_send(f, &m, NULL, 0);
	for (uint32_t i = 0; i < 2; i++) {
		link_init(&m, LINK_REGION);
		m.region.guest = i * GUEST_SECOND;
		m.region.user = USER + i * GUEST_SECOND;
		m.region.size = GUEST_REGION;
		m.region.offset = i * GUEST_REGION;
		fake_front_send(f, &m, &f->memory_fd, 1);
	}
	do {
		assert_true(fake_front_wait(f, LINK_DONE, &out, 5000));
	} while (out.done.type != LINK_MEMORY);
	assert_int_equal(out.done.generation, f->generation);
	return out.done.error;
}

void fake_ring_start(struct fake_front *f, uint32_t queue)
{
	struct fake_ring *r = &f->rings[queue];
	const int fds[] = {r->kick, r->call, r->err};
	union link_msg m;

	link_init(&m, LINK_START);
	m.start.queue = queue;
	m.start.size = RING_SIZE;
	m.start.features = FEATURES;
	m.start.desc = USER + RING_AT(queue);
	m.start.avail = USER + RING_AT(queue) + AVAIL_AT;
	m.start.used = USER + RING_AT(queue) + USED_AT;
	m.start.run = r->run;
	m.start.next_avail = r->base;
	m.start.fds = LINK_HAS_KICK | LINK_HAS_CALL | LINK_HAS_ERR;
	m.start.enabled = 1;
	fake_front_send(f, &m, fds, 3);
}

uint16_t fake_ring_stop(struct fake_front *f, uint32_t queue)
{
	union link_msg m;

	link_init(&m, LINK_STOP);
	m.queue.queue = queue;
	fake_front_send(f, &m, NULL, 0);
	assert_true(fake_front_wait(f, LINK_STOPPED, &m, 5000));
	assert_int_equal(m.stopped.queue, queue);
	f->rings[queue].base = (uint16_t)m.stopped.next_avail;
	return f->rings[queue].base;
}

void fake_ring_reset(struct fake_front *f, uint32_t queue)
{
	struct fake_ring *r = &f->rings[queue];

	memset(f->guest + RING_AT(queue), 0, 0x10000);
	memset(r->in_flight, 0, sizeof(r->in_flight));
	r->base = r->offered = r->seen = 0;
	r->run++;
	f->broken[queue] = (struct link_broken){0};
	fake_ring_start(f, queue);
}

static void spawn(struct fake_front *f, int link, const char *max_memory)
{
	char sandbox[SANDBOX_TEXT_SIZE];
	const char *const argv[] = {"devbroker-gpu", "--renderer", "--link-fd", "3", "--name",
		"test", "--max-memory", max_memory, "--sandbox",
		sandbox_format(f->stages, sandbox, sizeof(sandbox)), NULL};
	_cleanup_close_ int program = open(getenv("DEVBROKER_GPU"), O_PATH | O_CLOEXEC);
	const struct spawn_spec spec = {
		.program_fd = program,
		.argv = argv,
		.fds = &link,
		.n_fds = 1,
		.stderr_fd = STDERR_FILENO,
		.namespaces = true,
		.die_with_caller = true,
	};

	assert_true(program >= 0);
	assert_int_equal(spawn_process(&spec, &f->pid, &f->pidfd), 0);
}

void fake_front_start(struct fake_front *f, const char *max_memory)
{
	const int fds[] = {f->journal_fd, f->bell};
	bool recover = f->generation > 0;
	union link_msg m;
	int pair[2];

	assert_int_equal(
		socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
	spawn(f, pair[1], max_memory);
	close(pair[1]);
	f->link = pair[0];
	assert_true(fake_front_wait(f, LINK_READY, &m, 5000));
	assert_int_equal(m.ready.sandbox_stages, f->stages);
	link_init(&m, LINK_SETUP);
	m.setup.version = LINK_VERSION;
	m.setup.n_scanouts = 2;
	m.setup.flags = recover ? LINK_SETUP_RECOVER : 0;
	fake_front_send(f, &m, fds, 2);
	assert_int_equal(fake_front_memory(f), 0);
	for (uint32_t q = 0; q < LINK_QUEUES; q++) {
		fake_ring_start(f, q);
	}
}

void *fake_ring_desc(struct fake_front *f, uint32_t queue, int n)
{
	return (struct desc *)(void *)(f->guest + RING_AT(queue)) + n;
}

uint16_t *fake_ring_avail(struct fake_front *f, uint32_t queue)
{
	return (uint16_t *)(void *)(f->guest + RING_AT(queue) + AVAIL_AT);
}

static uint64_t buffer_of(uint32_t queue, uint16_t head)
{
	return BUFFER_AT + ((uint64_t)queue * RING_SIZE + head) * BUFFER_SIZE;
}

uint16_t fake_ring_offer(
	struct fake_front *f, uint32_t queue, const void *request, size_t size, size_t room)
{
	struct fake_ring *r = &f->rings[queue];
	uint16_t head = 0, *avail = fake_ring_avail(f, queue);
	struct desc *d;

	while (r->in_flight[head]) {
		head = (uint16_t)(head + 2);
		assert_true(head < RING_SIZE);
	}
	d = fake_ring_desc(f, queue, head);
	memcpy(f->guest + buffer_of(queue, head), request, size);
	memset(f->guest + buffer_of(queue, head) + ANSWER_AT, 0xa5, ANSWER_ROOM);
	d[0] = (struct desc){
		buffer_of(queue, head), (uint32_t)size, room ? 1 : 0, (uint16_t)(head + 1)};
	d[1] = (struct desc){buffer_of(queue, head) + ANSWER_AT, (uint32_t)room, 2, 0};
	r->in_flight[head] = true;
	avail[2 + r->offered % RING_SIZE] = head;
	r->offered++;
	__atomic_store_n(&avail[1], r->offered, __ATOMIC_SEQ_CST);
	return head;
}

void fake_ring_kick(struct fake_front *f, uint32_t queue)
{
	const uint64_t one = 1;

	assert_int_equal(write(f->rings[queue].kick, &one, sizeof(one)), sizeof(one));
}

uint16_t fake_ring_used(const struct fake_front *f, uint32_t queue)
{
	const uint16_t *used =
		(const uint16_t *)(const void *)(f->guest + RING_AT(queue) + USED_AT);

	return __atomic_load_n(&used[1], __ATOMIC_ACQUIRE);
}

int fake_ring_next(struct fake_front *f, uint32_t queue, int ms, uint32_t *written_out)
{
	struct fake_ring *r = &f->rings[queue];
	uint16_t *used = (uint16_t *)(void *)(f->guest + RING_AT(queue) + USED_AT);
	const uint32_t *e = (const uint32_t *)(const void *)(used + 2) + 2 * (r->seen % RING_SIZE);
	int64_t end = now_ms() + ms;

	while (__atomic_load_n(&used[1], __ATOMIC_ACQUIRE) == r->seen) {
		struct pollfd p[] = {
			{.fd = r->call, .events = POLLIN}, {.fd = f->link, .events = POLLIN}};
		int64_t left = end - now_ms();
		uint64_t n;

		/* The driver's wish: to be notified of the next one. */
		fake_ring_avail(f, queue)[2 + RING_SIZE] = r->seen;
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		if (__atomic_load_n(&used[1], __ATOMIC_ACQUIRE) != r->seen) {
			break;
		}
		if (left < 0 || poll(p, f->deaf ? 1 : 2, (int)left) <= 0) {
			return -1;
		}
		_unused_ ssize_t got = read(r->call, &n, sizeof(n));
		if (p[1].revents & POLLIN) {
			fake_front_drain(f);
		}
		if (p[1].revents & POLLHUP && !(p[1].revents & POLLIN)) {
			return -1;
		}
	}
	/* Exactly once, and only what was offered. */
	assert_true(e[0] < RING_SIZE);
	assert_true(r->in_flight[e[0]]);
	r->in_flight[e[0]] = false;
	r->seen++;
	*written_out = e[1];
	return (int)e[0];
}

const void *fake_answer(const struct fake_front *f, uint32_t queue, uint16_t head)
{
	return f->guest + buffer_of(queue, head) + ANSWER_AT;
}

uint32_t fake_command(struct fake_front *f, const void *request, size_t size)
{
	uint16_t head = fake_ring_offer(f, CONTROL, request, size, ANSWER_ROOM);
	uint32_t written;
	int got;

	fake_ring_kick(f, CONTROL);
	got = fake_ring_next(f, CONTROL, 5000, &written);
	if (got < 0) {
		return 0;
	}
	assert_int_equal(got, head);
	return ((const struct virtio_gpu_ctrl_hdr *)fake_answer(f, CONTROL, head))->type;
}
