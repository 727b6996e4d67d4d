/* SPDX-License-Identifier: MIT
 * A VMM that means harm: memory tables that can't be, fds that are none, messages that are none,
 * and memory that is taken away. What can be refused is refused and the VM goes on; what breaks the
 * protocol ends the backend with its own exit code. No fd that came over stays.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/fd.h"
#include "tests/gpu/gpu-case.h"
#include "tests/unit/test.h"

#define HALF   (UINT64_C(32) << 20)
#define TABLES 10000

/* A table as it is sent: as many regions as one may want to write. */
struct table {
	uint32_t n_regions;
	uint32_t pad;
	struct vhost_user_region regions[16];
};

static size_t table_size(uint32_t n)
{
	return offsetof(struct table, regions) + n * sizeof(struct vhost_user_region);
}

static void good_table(const struct sim *s, struct table *t)
{
	struct vhost_user_memory m;

	sim_memory_table(&s->vmm.memory, &m);
	*t = (struct table){.n_regions = m.n_regions};
	memcpy(t->regions, m.regions, 2 * sizeof(m.regions[0]));
}

/* Waits until nobody has the other end of this pipe any more. */
static void check_closed(int reader)
{
	struct pollfd p = {.fd = reader, .events = POLLIN};
	uint8_t byte;

	assert_int_equal(poll(&p, 1, 5000), 1);
	assert_int_equal(read(reader, &byte, 1), 0);
}

/* Guests go on after it. */
static void check_goes_on(struct gpu_case *c)
{
	assert_int_equal(sim_driver_ok(&c->sim, SIM_FEATURES), 0);
	case_check_serves(c, 1);
}

static void wrap_guest(struct table *t)
{
	t->regions[1].guest = UINT64_MAX - 0xfff;
}

static void wrap_user(struct table *t)
{
	t->regions[1].user = UINT64_MAX - 0xfff;
}

static void wrap_offset(struct table *t)
{
	t->regions[1].offset = UINT64_MAX - 0xfff;
}

static void overlap_guest(struct table *t)
{
	t->regions[1].guest = t->regions[0].guest + HALF - 0x1000;
}

static void overlap_user(struct table *t)
{
	t->regions[1].user = t->regions[0].user + 0x1000;
}

static void same_twice(struct table *t)
{
	t->regions[1] = t->regions[0];
}

static void past_the_file(struct table *t)
{
	t->regions[1].offset += 0x1000;
}

static void of_no_size(struct table *t)
{
	t->regions[0].size = 0;
}

static void of_all_addresses(struct table *t)
{
	t->regions[0].size = UINT64_MAX;
}

/* Tables that are refused as a whole; the old one stays. */
static void test_tables_refused(void **state)
{
	static void (*const spoil[])(struct table *) = {wrap_guest, wrap_user, wrap_offset,
		overlap_guest, overlap_user, same_twice, past_the_file, of_no_size,
		of_all_addresses};
	struct gpu_case *c = *state;
	struct sim *s = &c->sim;
	const int fds[2] = {s->vmm.memory.fd, s->vmm.memory.fd};

	case_check_serves(c, 1);
	for (size_t i = 0; i < ARRAY_SIZE(spoil); i++) {
		unsigned int before = sim_backend_fds(&s->backend);
		uint64_t features;
		struct table t;

		good_table(s, &t);
		spoil[i](&t);
		if (sim_vmm_tell(&s->vmm, VHOST_USER_SET_MEM_TABLE, &t, table_size(2), fds, 2) !=
			1) {
			fail_msg("bad table %zu was not refused", i);
		}
		/* They are closed behind the answer, before the next message. */
		assert_int_equal(sim_vmm_ask(&s->vmm, VHOST_USER_GET_FEATURES, &features), 0);
		assert_int_equal(sim_backend_fds(&s->backend), before);
		case_check_serves(c, 2 + (uint32_t)i);
	}
}

/* A pipe, a directory, a socket where memory should be. */
static void test_no_memory_at_all(void **state)
{
	struct gpu_case *c = *state;
	struct sim *s = &c->sim;
	int pipes[2], pair[2], dir = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct table t;

	assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	good_table(s, &t);
	for (int i = 0; i < 3; i++) {
		const int wrong[] = {pipes[1], pair[1], dir};
		const int fds[2] = {s->vmm.memory.fd, wrong[i]};

		assert_int_equal(
			sim_vmm_tell(&s->vmm, VHOST_USER_SET_MEM_TABLE, &t, table_size(2), fds, 2),
			1);
	}
	safe_close(pipes[1]);
	safe_close(pair[1]);
	safe_close(dir);
	check_closed(pipes[0]);
	check_closed(pair[0]);
	safe_close(pipes[0]);
	safe_close(pair[0]);
	check_goes_on(c);
}

/* No memory is a table too: nothing can run in it, and the next one is taken. */
static void test_empty_table(void **state)
{
	struct gpu_case *c = *state;
	struct sim *s = &c->sim;
	struct table t = {0};

	case_check_serves(c, 1);
	assert_int_equal(
		sim_vmm_tell(&s->vmm, VHOST_USER_SET_MEM_TABLE, &t, table_size(0), NULL, 0), 0);
	sim_ring_kick_always(&s->rings[SIM_CONTROL]);
	assert_int_equal(sim_vmm_memory(&s->vmm), 0);
	assert_int_equal(sim_reboot(s), 0);
	case_check_serves(c, 1);
}

/* A table with a read-only file: the rings can't be written. */
static void test_read_only(void **state)
{
	struct gpu_case *c = *state;
	struct sim *s = &c->sim;
	char path[32];
	struct table t;
	int fds[2], r;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", s->vmm.memory.fd);
	fds[0] = fds[1] = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fds[0] >= 0);
	good_table(s, &t);
	r = sim_vmm_tell(&s->vmm, VHOST_USER_SET_MEM_TABLE, &t, table_size(2), fds, 2);
	assert_in_range(r, 0, 1);
	safe_close(fds[0]);
	check_goes_on(c);
}

/* The backend ends, says so by its exit code, and the fds are closed. */
static void check_breaks(
	struct gpu_case *c, uint32_t request, const void *payload, size_t size, size_t n_fds)
{
	int pipes[2], fds[64];

	assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		fds[i] = pipes[1];
	}
	assert_int_equal(sim_vmm_send(&c->sim.vmm, request, 0, payload, size, fds, n_fds), 0);
	case_check_ended(c, CASE_PEER_BAD);
	safe_close(pipes[1]);
	check_closed(pipes[0]);
	safe_close(pipes[0]);
}

static const struct broken {
	const char *name;
	uint32_t request;
	uint32_t n_regions; /* of a table, else the number */
	uint32_t size;
	uint32_t n_fds;
} broken[] = {
	{"9 regions", VHOST_USER_SET_MEM_TABLE, 9, 8 + 9 * 32, 9},
	{"9 regions in the place of 8", VHOST_USER_SET_MEM_TABLE, 9, 8 + 8 * 32, 8},
	{"10^9 regions", VHOST_USER_SET_MEM_TABLE, 1000000000, 8 + 8 * 32, 8},
	{"2^32-1 regions", VHOST_USER_SET_MEM_TABLE, UINT32_MAX, 8, 0},
	{"2 regions in the place of 1", VHOST_USER_SET_MEM_TABLE, 2, 8 + 32, 2},
	{"one fd for two regions", VHOST_USER_SET_MEM_TABLE, 2, 8 + 2 * 32, 1},
	{"three fds for two regions", VHOST_USER_SET_MEM_TABLE, 2, 8 + 2 * 32, 3},
	{"no fd for two regions", VHOST_USER_SET_MEM_TABLE, 2, 8 + 2 * 32, 0},
	{"64 fds", VHOST_USER_SET_MEM_TABLE, 2, 8 + 2 * 32, 64},
	{"half a table", VHOST_USER_SET_MEM_TABLE, 0, 4, 0},
	{"fds with a number", VHOST_USER_SET_FEATURES, 0, 8, 3},
	{"fds with nothing", VHOST_USER_GET_FEATURES, 0, 0, 1},
	{"no kick", VHOST_USER_SET_VRING_KICK, 0, 8, 0},
	{"two kicks", VHOST_USER_SET_VRING_KICK, 0, 8, 2},
	{"kick of no queue", VHOST_USER_SET_VRING_KICK, 2, 8, 1},
	{"kick of a queue without size", VHOST_USER_SET_VRING_KICK, 1, 8, 1},
	{"display that is no socket", VHOST_USER_GPU_SET_SOCKET, 0, 0, 1},
	{"no display", VHOST_USER_GPU_SET_SOCKET, 0, 0, 0},
	{"short number", VHOST_USER_SET_FEATURES, 0, 4, 0},
	{"long number", VHOST_USER_SET_FEATURES, 0, 16, 0},
	{"queue 77", VHOST_USER_SET_VRING_NUM, 77, 8, 0},
	{"queue of no size", VHOST_USER_SET_VRING_NUM, 0, 8, 0},
	{"configuration beyond its end", VHOST_USER_GET_CONFIG, UINT32_MAX, 12, 0},
	{"the log, which was not offered", 6, 0, 16, 1},
	{"request 0", 0, 0, 0, 0},
	{"request 2^32-1", UINT32_MAX, 0, 8, 0},
	{"all protocol features", VHOST_USER_SET_PROTOCOL_FEATURES, UINT32_MAX, 8, 0},
};

static void test_broken(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(broken); i++) {
		const struct broken *b = &broken[i];
		struct table t = {.n_regions = b->n_regions};
		struct gpu_case *c;

		print_message("%s\n", b->name);
		assert_int_equal(case_setup_connected((void **)&c), 0);
		*state = c;
		check_breaks(c, b->request, &t, b->size, b->n_fds);
		case_teardown((void **)&c);
	}
	*state = NULL;
}

/* Headers that announce what never comes, or too much. */
static void test_headers(void **state)
{
	static const struct vhost_user_header headers[] = {
		{VHOST_USER_GET_FEATURES, 0, 0},                    /* no version */
		{VHOST_USER_GET_FEATURES, 3, 0},                    /* another */
		{VHOST_USER_GET_FEATURES, VHOST_USER_REPLY | 1, 0}, /* a reply */
		{VHOST_USER_SET_MEM_TABLE, 1, UINT32_MAX},
		{VHOST_USER_SET_MEM_TABLE, 1, 0x7fffffff},
		{VHOST_USER_GET_CONFIG, 1, 269},
	};

	for (size_t i = 0; i < ARRAY_SIZE(headers); i++) {
		struct gpu_case *c;

		assert_int_equal(case_setup_connected((void **)&c), 0);
		assert_int_equal(send(c->sim.vmm.fd, &headers[i], 12, MSG_NOSIGNAL), 12);
		case_check_ended(c, CASE_PEER_BAD);
		case_teardown((void **)&c);
	}
	*state = NULL;
}

/* Half a message, then nothing: the VMM went away in the middle of it. */
static void test_half_a_message(void **state)
{
	struct gpu_case *c = *state;
	const struct vhost_user_header h = {VHOST_USER_SET_MEM_TABLE, 1, 8 + 2 * 32};

	assert_int_equal(send(c->sim.vmm.fd, &h, sizeof(h), MSG_NOSIGNAL), sizeof(h));
	assert_int_equal(send(c->sim.vmm.fd, &h, 7, MSG_NOSIGNAL), 7);
}

/* One byte at a time is slow, and right. */
static void test_byte_by_byte(void **state)
{
	struct gpu_case *c = *state;
	const struct vhost_user_header h = {VHOST_USER_GET_QUEUE_NUM, 1, 0};
	uint64_t n = 0;

	for (size_t i = 0; i < sizeof(h); i++) {
		assert_int_equal(send(c->sim.vmm.fd, (const uint8_t *)&h + i, 1, 0), 1);
		nanosleep(&(struct timespec){0, 1000000}, NULL);
	}
	assert_int_equal(sim_vmm_reply(&c->sim.vmm, VHOST_USER_GET_QUEUE_NUM, &n, 8), 0);
	assert_int_equal(n, SIM_QUEUES);
}

static void check_truncated(struct gpu_case *c, off_t size)
{
	struct sim *s = &c->sim;
	const uint64_t one = 1;
	uint64_t features;

	/* From here on nothing here may touch what is gone. */
	assert_int_equal(ftruncate(s->vmm.memory.fd, size), 0);
	for (int i = 0; i < 20; i++) {
		for (uint32_t q = 0; q < SIM_QUEUES; q++) {
			assert_int_equal(write(s->rings[q].vmm.kick, &one, sizeof(one)), 8);
		}
		assert_int_equal(sim_vmm_ask(&s->vmm, VHOST_USER_GET_FEATURES, &features), 0);
		nanosleep(&(struct timespec){0, 2000000}, NULL);
	}
	assert_int_equal(ftruncate(s->vmm.memory.fd, CASE_MEMORY), 0);
}

/* The whole file goes: rings and all. */
static void test_truncated(void **state)
{
	struct gpu_case *c = *state;

	case_check_serves(c, 1);
	sim_ring_publish(&c->sim.rings[SIM_CONTROL], 0);
	check_truncated(c, 0);
	assert_int_equal(sim_reboot(&c->sim), 0);
	case_check_serves(c, 1);
}

/* The half with the backing goes while it is copied. */
static void test_backing_truncated(void **state)
{
	struct gpu_case *c = *state;
	struct sim *s = &c->sim;
	const struct virtio_gpu_transfer_to_host_2d t = {
		{.type = VIRTIO_GPU_CMD_TRANSFER_TO_HOST_2D}, case_all, 0, 1, 0};

	assert_int_equal(sim_show(s, 1, 0, CASE_WIDTH, CASE_HEIGHT, SIM_HIGH + 0x1000), 0);
	assert_true(sim_offer(s, SIM_CONTROL, &t, sizeof(t), 64) >= 0);
	check_truncated(c, HALF);
	assert_int_equal(sim_reboot(s), 0);
	case_check_serves(c, 1);
}

/* Memory slots one by one, and a region that goes while it backs something. */
static void test_slots(void **state)
{
	struct gpu_case *c = *state;
	struct sim *s = &c->sim;
	struct vhost_user_memory m;
	struct vhost_user_one_region one = {0};
	const int fd = s->vmm.memory.fd;

	case_check_serves(c, 1);
	sim_memory_table(&s->vmm.memory, &m);
	one.region = m.regions[1];
	/* It is there already. */
	assert_int_equal(
		sim_vmm_tell(&s->vmm, VHOST_USER_ADD_MEM_REG, &one, sizeof(one), &fd, 1), 1);
	assert_int_equal(sim_show(s, 2, 1, CASE_WIDTH, CASE_HEIGHT, SIM_HIGH + 0x1000), 0);
	assert_int_equal(
		sim_vmm_tell(&s->vmm, VHOST_USER_REM_MEM_REG, &one, sizeof(one), NULL, 0), 0);
	assert_int_equal(
		sim_vmm_tell(&s->vmm, VHOST_USER_REM_MEM_REG, &one, sizeof(one), NULL, 0), 1);
	assert_true(sim_transfer(s, 2, &case_all, 0) >= CASE_UNSPEC);
	assert_int_equal(
		sim_vmm_tell(&s->vmm, VHOST_USER_ADD_MEM_REG, &one, sizeof(one), &fd, 1), 0);
	case_check_serves(c, 3);
}

static uint64_t anything(uint64_t near)
{
	switch (random() % 8) {
	case 0:
		return UINT64_MAX - (uint64_t)random() % 0x2000;
	case 1:
		return (uint64_t)random() << 33 ^ (uint64_t)random();
	case 2:
		return (uint64_t)random() % 0x3000;
	default:
		return near;
	}
}

/* With a good table. */
static unsigned int count_fds(struct sim *s)
{
	uint64_t features;

	assert_int_equal(sim_vmm_memory(&s->vmm), 0);
	assert_int_equal(sim_vmm_ask(&s->vmm, VHOST_USER_GET_FEATURES, &features), 0);
	return sim_backend_fds(&s->backend);
}

/* Thousands of tables, right and wrong: each is taken or refused, and nothing is left of it. */
static void test_tables(void **state)
{
	struct gpu_case *c = *state;
	struct sim *s = &c->sim;
	unsigned int fds = 0, refused = 0;
	uint64_t rss = 0;

	for (int i = 0; i < TABLES; i++) {
		uint32_t n = (uint32_t)random() % 9;
		struct table t = {.n_regions = n};
		int files[8], r;

		for (uint32_t k = 0; k < n; k++) {
			t.regions[k].guest = anything(k * HALF);
			t.regions[k].size = anything(0x1000);
			t.regions[k].user = anything(0x7f0000000000 + k * HALF);
			t.regions[k].offset = anything(0);
			files[k] = random() % 64 == 0 ? s->vmm.fd : s->vmm.memory.fd;
		}
		r = sim_vmm_tell(&s->vmm, VHOST_USER_SET_MEM_TABLE, &t, table_size(n), files, n);
		assert_in_range(r, 0, 1);
		refused += (unsigned int)r;
		if (i == TABLES / 10) {
			fds = count_fds(s);
			rss = sim_backend_rss(&s->backend);
		}
	}
	print_message("%u of %d refused\n", refused, TABLES);
	assert_in_range(refused, TABLES / 2, TABLES - TABLES / 100);
	if (!getenv("GPU_CASE_SANITIZED")) {
		assert_true(sim_backend_rss(&s->backend) < rss + (1U << 20));
	}
	assert_int_equal(count_fds(s), fds);
	check_goes_on(c);
}

#define TEST(name)  cmocka_unit_test_setup_teardown(name, case_setup, case_teardown)
#define EARLY(name) cmocka_unit_test_setup_teardown(name, case_setup_connected, case_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_tables_refused),
		EARLY(test_no_memory_at_all),
		TEST(test_empty_table),
		EARLY(test_tables),
		EARLY(test_read_only),
		cmocka_unit_test(test_broken),
		cmocka_unit_test(test_headers),
		EARLY(test_half_a_message),
		EARLY(test_byte_by_byte),
		TEST(test_truncated),
		TEST(test_backing_truncated),
		TEST(test_slots),
	};

	return cmocka_run_group_tests_name("gpu-vmm", tests, NULL, NULL);
}
