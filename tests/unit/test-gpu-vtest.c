/* SPDX-License-Identifier: MIT
 * The vtest protocol: every request in the versions that have it, cut anywhere, and what must not
 * be.
 */
#include "gpu/vtest-session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/fd.h"
#include "tests/unit/fake-virgl.h"
#include "tests/unit/test.h"

#define BUDGET (8U << 20)
#define RGBA   67 /* VIRGL_FORMAT_R8G8B8A8_UNORM */
#define TARGET 2  /* PIPE_TEXTURE_2D */

struct rig {
	struct vtest_session s;
	uint8_t got[2 << 20]; /* what was sent, all of it */
	size_t n;
	int fd; /* the last that was sent */
	int result;
};

static int setup(void **state)
{
	struct rig *r = calloc(1, sizeof(*r));
	const struct virgl_options options = {.fence = vtest_session_fence, .userdata = &r->s};
	char name[VIRGL_RENDERER_NAME_SIZE];

	assert_non_null(r);
	*fake_virgl() = (struct fake_virgl){0};
	assert_int_equal(fake_virgl_ops.init(&options, name), 0);
	assert_int_equal(vtest_session_init(&r->s, &fake_virgl_ops, BUDGET), 0);
	r->fd = -1;
	*state = r;
	return 0;
}

static int teardown(void **state)
{
	struct rig *r = *state;

	vtest_session_finish(&r->s);
	assert_int_equal(fake_virgl()->contexts, 0);
	assert_int_equal(fake_virgl()->resources, 0);
	assert_int_equal(fake_virgl()->attached, 0);
	assert_int_equal(fake_virgl()->backed, 0);
	safe_close(r->fd);
	free(r);
	return 0;
}

static void run(struct rig *r)
{
	r->result = vtest_session_run(&r->s);
	while (r->result == VTEST_NEED_SEND) {
		size_t n = r->s.out.end - r->s.out.start;

		assert_true(n <= sizeof(r->got) - r->n);
		memcpy(r->got + r->n, r->s.out.base + r->s.out.start, n);
		r->n += n;
		if (r->s.out_fd >= 0) {
			safe_close(r->fd);
			r->fd = dup(r->s.out_fd);
		}
		vtest_session_sent(&r->s);
		r->result = vtest_session_run(&r->s);
	}
}

/* At most step bytes at once. */
static void give(struct rig *r, const void *data, size_t size, size_t step)
{
	const uint8_t *p = data;

	while (size > 0 && (r->result == VTEST_NEED_BYTES || r->result == 0)) {
		size_t room, n;
		uint8_t *to;

		if (r->result == 0) {
			run(r);
			assert_int_equal(r->result, VTEST_NEED_BYTES);
		}
		to = vtest_session_room(&r->s, &room);
		n = MIN(MIN(size, step), room);
		memcpy(to, p, n);
		vtest_session_received(&r->s, n);
		p += n;
		size -= n;
		run(r);
	}
}

#define WORDS(r, ...)                                                                       \
	give((r), (const uint32_t[]){__VA_ARGS__}, sizeof((const uint32_t[]){__VA_ARGS__}), \
		SIZE_MAX)

static void hello(struct rig *r, uint32_t version)
{
	give(r, "\5\0\0\0\10\0\0\0test", 13, SIZE_MAX);
	WORDS(r, 1, VTEST_VERSION, version);
	assert_int_equal(r->result, VTEST_NEED_BYTES);
	assert_int_equal(r->n, 12);
	r->n = 0;
}

static uint32_t word(const struct rig *r, uint32_t n)
{
	return vtest_word(r->got, n);
}

static void create(struct rig *r, uint32_t id, uint32_t side)
{
	WORDS(r, 10, VTEST_RESOURCE_CREATE, id, TARGET, RGBA, 2, side, side, 1, 1, 0, 0);
}

static void create2(struct rig *r, uint32_t id, uint32_t side, uint32_t shared)
{
	WORDS(r, 11, VTEST_RESOURCE_CREATE2, id, TARGET, RGBA, 2, side, side, 1, 1, 0, 0, shared);
}

/* What Mesa does first. */
static void test_versions(void **state)
{
	static const uint32_t wanted[] = {0, 1, 2, 3, UINT32_MAX}, given[] = {0, 0, 2, 2, 2};
	struct rig *r = *state;

	give(r, "\5\0\0\0\10\0\0\0test", 13, 1);
	WORDS(r, 0, VTEST_PING_VERSION, 2, VTEST_BUSY_WAIT, 0, 0);
	assert_int_equal(r->n, 8 + 12);
	assert_int_equal(word(r, 0), 0);
	assert_int_equal(word(r, 1), VTEST_PING_VERSION);
	assert_int_equal(word(r, 2), 1);
	assert_int_equal(word(r, 3), VTEST_BUSY_WAIT);
	assert_int_equal(word(r, 4), 0);
	for (size_t i = 0; i < ARRAY_SIZE(wanted); i++) {
		r->n = 0;
		WORDS(r, 1, VTEST_VERSION, wanted[i]);
		assert_int_equal(r->n, 12);
		assert_int_equal(word(r, 0), 1);
		assert_int_equal(word(r, 1), VTEST_VERSION);
		assert_int_equal(word(r, 2), given[i]);
	}
	r->n = 0;
	WORDS(r, 0, VTEST_GET_CAPS2, 0, VTEST_GET_CAPS);
	assert_int_equal(r->n, 8 + 1376 + 8 + 308);
	assert_int_equal(word(r, 0), 1377);
	assert_int_equal(word(r, 1), 2);
	assert_int_equal(r->got[8], 2);
	assert_int_equal(vtest_word(r->got + 8 + 1376, 0), 309);
	assert_int_equal(vtest_word(r->got + 8 + 1376, 1), 1);
}

/* Version 0: data on the socket, of sizes that leave what follows unaligned, cut in every way. */
static void test_inline_data(void **state)
{
	struct rig *r = *state;
	const uint32_t put[] = {11 + 5, VTEST_TRANSFER_PUT, 1, 0, 0, 0, 0, 0, 0, 4, 1, 1, 17};
	const uint32_t get[] = {11, VTEST_TRANSFER_GET, 1, 0, 16, 0, 0, 0, 0, 4, 4, 1, 70};
	const uint32_t submit[] = {2, VTEST_SUBMIT, 0x00010007, 7};
	uint8_t data[17];

	hello(r, 0);
	create(r, 1, 16);
	assert_int_equal(fake_virgl()->resources, 1);
	assert_int_equal(r->s.table.budget.used, 16 * 16 * 4 + sizeof(struct vtest_entry));
	memset(data, 0x5a, sizeof(data));
	for (size_t step = 1; step < 20; step++) {
		r->n = 0;
		give(r, put, sizeof(put), step);
		give(r, data, sizeof(data), step);
		give(r, submit, sizeof(submit), step);
		assert_int_equal(fake_virgl()->first_word, 0x00010007);
		assert_int_equal(fake_virgl()->last_words, 2);
		fake_virgl()->read_short = 6;
		give(r, get, sizeof(get), step);
		assert_int_equal(r->result, VTEST_NEED_BYTES);
		assert_int_equal(r->n, 70);
		assert_int_equal(r->got[63], 0x5a);
		assert_int_equal(r->got[64], 0);
	}
	assert_int_equal(fake_virgl()->writes, 19);
	/* What the renderer refuses is all zero, not what was there. */
	fake_virgl()->refuse = true;
	r->n = 0;
	give(r, get, sizeof(get), SIZE_MAX);
	fake_virgl()->refuse = false;
	assert_int_equal(r->n, 70);
	for (size_t i = 0; i < 70; i++) {
		assert_int_equal(r->got[i], 0);
	}
	WORDS(r, 1, VTEST_RESOURCE_UNREF, 1);
	assert_int_equal(r->result, VTEST_NEED_BYTES);
	assert_int_equal(fake_virgl()->resources, 0);
	assert_int_equal(r->s.table.budget.used, 0);
}

/* Version 2: memory of both, that nobody can cut off. */
static void test_shared_memory(void **state)
{
	struct rig *r = *state;
	uint8_t *memory;

	hello(r, 2);
	create2(r, 7, 16, 16 * 16 * 4);
	assert_int_equal(r->result, VTEST_NEED_BYTES);
	assert_true(r->fd >= 0);
	memory = mmap(NULL, 1024, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, 0);
	assert_true(memory != MAP_FAILED);
	memory[0] = 0x77;
	assert_int_equal(*(uint8_t *)vtest_table_find(&r->s.table, 7)->shared.iov_base, 0x77);
	assert_int_equal(ftruncate(r->fd, 0), -1);
	assert_int_equal(errno, EPERM);
	munmap(memory, 1024);
	/* Mesa counts the data in the length, and sends none. */
	WORDS(r, 10 + 256, VTEST_TRANSFER_PUT2, 7, 0, 0, 0, 0, 16, 16, 1, 1024, 0);
	WORDS(r, 10, VTEST_TRANSFER_GET2, 7, 0, 0, 0, 0, 16, 1, 1, 64, 960);
	assert_int_equal(r->result, VTEST_NEED_BYTES);
	assert_int_equal(fake_virgl()->writes, 1);
	assert_int_equal(fake_virgl()->reads, 1);
	assert_int_equal(r->n, 0);
	/* Without: many samples. */
	r->fd = safe_close(r->fd);
	create2(r, 8, 16, 0);
	assert_int_equal(r->fd, -1);
	assert_int_equal(r->result, VTEST_NEED_BYTES);
	WORDS(r, 10, VTEST_TRANSFER_GET2, 8, 0, 0, 0, 0, 16, 1, 1, 64, 0);
	assert_int_equal(r->result, -ERANGE);
}

static void test_fences(void **state)
{
	struct rig *r = *state;
	struct fake_virgl *f = fake_virgl();

	hello(r, 2);
	/* Nothing was drawn: no fence. */
	WORDS(r, 2, VTEST_BUSY_WAIT, 1, 1);
	assert_int_equal(f->fences, 0);
	assert_int_equal(word(r, 2), 0);
	r->n = 0;
	WORDS(r, 1, VTEST_SUBMIT, 7, 1, VTEST_SUBMIT, 7, 2, VTEST_BUSY_WAIT, 1, 0);
	assert_int_equal(f->fences, 1);
	assert_int_equal(word(r, 2), 1);
	r->n = 0;
	/* The same one is waited for; what comes behind it waits, too. */
	WORDS(r, 2, VTEST_BUSY_WAIT, 1, 1, 0, VTEST_PING_VERSION);
	assert_int_equal(f->fences, 1);
	assert_int_equal(r->result, VTEST_NEED_FENCE);
	assert_int_equal(r->n, 0);
	f->reached = 3; /* of nobody */
	run(r);
	assert_int_equal(r->result, VTEST_NEED_FENCE);
	f->reached = 1;
	run(r);
	assert_int_equal(r->result, VTEST_NEED_BYTES);
	assert_int_equal(r->n, 12 + 8);
	assert_int_equal(word(r, 2), 0);
	assert_int_equal(f->submits, 2);
	/* Where nothing more is to be done, there is one that nobody asked for; up to a limit. */
	for (uint32_t i = 0; i < 200; i++) {
		WORDS(r, 1, VTEST_SUBMIT, 7);
		assert_int_equal(f->fences, 1 + (i < 64 ? i + 1 : 64));
	}
	f->reached = f->fences;
	WORDS(r, 2, VTEST_BUSY_WAIT, 1, 1);
	assert_int_equal(r->result, VTEST_NEED_FENCE);
	assert_int_equal(f->fences, 66);
	f->reached = 66;
	run(r);
	assert_int_equal(r->result, VTEST_NEED_BYTES);
}

static void test_budget(void **state)
{
	struct rig *r = *state;
	const uint32_t put[] = {11, VTEST_TRANSFER_PUT, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1, 6U << 20};
	uint64_t used;
	size_t room;

	hello(r, 2);
	create(r, 1, 1024);
	assert_int_equal(r->result, VTEST_NEED_BYTES);
	used = r->s.table.budget.used;
	/* A message that needs more than there is. */
	give(r, put, sizeof(put), SIZE_MAX);
	assert_int_equal(r->result, -EDQUOT);
	assert_non_null(strstr(r->s.why, "budget"));
	assert_int_equal(r->s.table.budget.used, used);
	vtest_session_finish(&r->s);

	assert_int_equal(vtest_session_init(&r->s, &fake_virgl_ops, BUDGET), 0);
	r->result = 0;
	r->n = 0;
	hello(r, 2);
	/* One that fits is charged, and given back behind it. */
	create(r, 1, 16);
	used = r->s.table.budget.used;
	{
		uint32_t big[] = {11, VTEST_TRANSFER_PUT, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1, 3U << 20};
		uint8_t *data = calloc(1, 3U << 20);

		give(r, big, sizeof(big), SIZE_MAX);
		assert_int_equal(r->result, VTEST_NEED_BYTES);
		assert_true(r->s.table.budget.used > used + (2U << 20));
		give(r, data, 3U << 20, 10007);
		assert_int_equal(fake_virgl()->writes, 1);
		assert_int_equal(r->s.table.budget.used, used);
		vtest_session_room(&r->s, &room);
		assert_true(room <= 1U << 20);
		free(data);
	}
	/* Shared memory counts. */
	create2(r, 2, 16, BUDGET);
	assert_int_equal(r->result, -EDQUOT);
	assert_non_null(strstr(r->s.why, "budget"));
	assert_int_equal(r->s.table.budget.used, used);
}

/* Each of these ends its client, with a word. */
static void test_refused(void **state)
{
	struct rig *r = *state;
	const struct {
		const char *what;
		uint32_t words[16];
		uint32_t n;
		int error;
	} bad[] = {
		{"no such request", {0, 0}, 2, -EPROTO},
		{"of version 3", {1, 15, 1}, 3, -EPROTO},
		{"far away", {0, UINT32_MAX}, 2, -EPROTO},
		{"short", {9, VTEST_RESOURCE_CREATE}, 2, -EMSGSIZE},
		{"long", {11, VTEST_RESOURCE_CREATE}, 2, -EMSGSIZE},
		{"caps with a body", {1, VTEST_GET_CAPS}, 2, -EMSGSIZE},
		{"4 GiB", {UINT32_MAX / 4, VTEST_SUBMIT}, 2, -EMSGSIZE},
		{"16 GiB", {UINT32_MAX, VTEST_SUBMIT}, 2, -EMSGSIZE},
		{"5 MiB", {5U << 18, VTEST_SUBMIT}, 2, -EMSGSIZE},
		{"a command that ends behind its buffer", {2, VTEST_SUBMIT, 7 | 2 << 16, 0}, 4,
			-EPROTO},
		{"no such command", {1, VTEST_SUBMIT, 99}, 3, -EPROTO},
		{"a bomb of storage",
			{12, VTEST_SUBMIT, 48 | 11 << 16, TARGET, RGBA, 2, 16384, 16384, 1, 1, 0, 0,
				0, 1},
			14, -EDQUOT},
		{"twice", {4, VTEST_CREATE_RENDERER, 0}, 3, -EPROTO},
		{"id 0", {10, VTEST_RESOURCE_CREATE, 0, TARGET, RGBA, 2, 4, 4, 1, 1, 0, 0}, 12,
			-EINVAL},
		{"there is one", {10, VTEST_RESOURCE_CREATE, 1, TARGET, RGBA, 2, 4, 4, 1, 1, 0, 0},
			12, -EEXIST},
		{"no pixels", {10, VTEST_RESOURCE_CREATE, 2, TARGET, RGBA, 2, 0, 4, 1, 1, 0, 0}, 12,
			-EINVAL},
		{"no target", {10, VTEST_RESOURCE_CREATE, 2, 99, RGBA, 2, 4, 4, 1, 1, 0, 0}, 12,
			-EINVAL},
		{"no format", {10, VTEST_RESOURCE_CREATE, 2, TARGET, 0xffff, 2, 4, 4, 1, 1, 0, 0},
			12, -EINVAL},
		{"overflow",
			{10, VTEST_RESOURCE_CREATE, 2, TARGET, RGBA, 2, UINT32_MAX, UINT32_MAX,
				UINT32_MAX, UINT32_MAX, 0, 0},
			12, -EINVAL},
		{"over budget",
			{10, VTEST_RESOURCE_CREATE, 2, TARGET, RGBA, 2, 4096, 4096, 1, 1, 0, 0}, 12,
			-EDQUOT},
		{"none to unref", {1, VTEST_RESOURCE_UNREF, 2}, 3, -ENOENT},
		{"none to read", {11, VTEST_TRANSFER_GET, 2, 0, 0, 0, 0, 0, 0, 1, 1, 1, 4}, 13,
			-ENOENT},
		{"none to write", {12, VTEST_TRANSFER_PUT, 2, 0, 0, 0, 0, 0, 0, 1, 1, 1, 4}, 13,
			-ENOENT},
		{"outside", {11, VTEST_TRANSFER_GET, 1, 0, 0, 0, 1, 0, 0, 16, 1, 1, 64}, 13,
			-ERANGE},
		{"wraps", {11, VTEST_TRANSFER_GET, 1, 0, 0, 0, UINT32_MAX, 0, 0, 2, 1, 1, 64}, 13,
			-ERANGE},
		{"no level", {11, VTEST_TRANSFER_GET, 1, 1, 0, 0, 0, 0, 0, 1, 1, 1, 64}, 13,
			-ERANGE},
		{"too short", {11, VTEST_TRANSFER_GET, 1, 0, 0, 0, 0, 0, 0, 16, 1, 1, 63}, 13,
			-ERANGE},
		{"too long a stride",
			{11, VTEST_TRANSFER_PUT, 1, 0, UINT32_MAX, 0, 0, 0, 0, 16, 2, 1, 128}, 13,
			-ERANGE},
		{"nothing shared", {10, VTEST_TRANSFER_GET2, 1, 0, 0, 0, 0, 1, 1, 1, 4, 0}, 12,
			-ERANGE},
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		uint64_t used;

		hello(r, 2);
		create(r, 1, 16);
		assert_int_equal(r->result, VTEST_NEED_BYTES);
		used = r->s.table.budget.used;
		give(r, bad[i].words, bad[i].n * 4U, SIZE_MAX);
		if (r->result != bad[i].error) {
			fail_msg("%s: %d instead of %d (%s)", bad[i].what, r->result, bad[i].error,
				r->s.why);
		}
		assert_true(r->s.why[0] != '\0');
		assert_int_equal(r->s.table.budget.used, used);
		vtest_session_finish(&r->s);
		assert_int_equal(fake_virgl()->resources, 0);
		assert_int_equal(vtest_session_init(&r->s, &fake_virgl_ops, BUDGET), 0);
		r->result = 0;
		r->n = 0;
	}
}

/* Requests of version 2 are none before it was agreed on, and nothing comes before a name. */
static void test_order(void **state)
{
	struct rig *r = *state;

	WORDS(r, 0, VTEST_GET_CAPS);
	assert_int_equal(r->result, -EPROTO);
	vtest_session_finish(&r->s);
	assert_int_equal(vtest_session_init(&r->s, &fake_virgl_ops, BUDGET), 0);
	r->result = 0;
	hello(r, 1);
	create2(r, 1, 16, 1024);
	assert_int_equal(r->result, -EPROTO);
	assert_int_equal(fake_virgl()->resources, 0);
}

/* Answers pile up to a mark, and then nothing more is done. */
static void test_never_reads(void **state)
{
	struct rig *r = *state;
	uint32_t pings[2 * 1024];
	size_t room, done = 0;
	int result = VTEST_NEED_BYTES;

	hello(r, 2);
	for (size_t i = 0; i < ARRAY_SIZE(pings); i += 2) {
		pings[i] = 0;
		pings[i + 1] = VTEST_GET_CAPS2;
	}
	for (size_t i = 0; i < 100 && result == VTEST_NEED_BYTES; i++) {
		memcpy(vtest_session_room(&r->s, &room), pings, sizeof(pings));
		vtest_session_received(&r->s, sizeof(pings));
		result = vtest_session_run(&r->s);
		done++;
	}
	assert_int_equal(done, 1);
	assert_int_equal(result, VTEST_NEED_SEND);
	assert_int_equal(vtest_session_run(&r->s), VTEST_NEED_SEND);
	assert_true(r->s.out.end < 70 << 10);
	assert_int_equal(r->s.table.budget.used, 0);
}

/* The renderer says no. */
static void test_renderer_refuses(void **state)
{
	struct rig *r = *state;

	hello(r, 2);
	fake_virgl()->refuse = true;
	create2(r, 1, 16, 1024);
	assert_int_equal(r->result, -EINVAL);
	fake_virgl()->refuse = false;
	assert_int_equal(r->s.table.budget.used, 0);
	vtest_session_finish(&r->s);
	assert_int_equal(vtest_session_init(&r->s, &fake_virgl_ops, BUDGET), 0);
	r->result = 0;
	r->n = 0;
	hello(r, 2);
	fake_virgl()->refuse = true;
	WORDS(r, 1, VTEST_SUBMIT, 7);
	assert_int_equal(r->result, -EPROTO);
	fake_virgl()->refuse = false;
}

/* Objects inside a stream are charged while they are there. */
static void test_streams(void **state)
{
	struct rig *r = *state;
	uint64_t used;

	hello(r, 2);
	used = r->s.table.budget.used;
	/* A shader, and a surface. */
	WORDS(r, 6 + 6, VTEST_SUBMIT, 1 | 4 << 8 | 5 << 16, 7, 0, 0, 0, 0, 1 | 8 << 8 | 5 << 16, 8,
		1, RGBA, 0, 0);
	assert_int_equal(r->result, VTEST_NEED_BYTES);
	assert_int_equal(fake_virgl()->submits, 1);
	assert_true(r->s.table.budget.used >= used + SUBMIT_SHADER_BYTES + SUBMIT_OBJECT_BYTES);
	WORDS(r, 2, VTEST_SUBMIT, 3 | 4 << 8 | 1 << 16, 7);
	WORDS(r, 2, VTEST_SUBMIT, 3 | 8 << 8 | 1 << 16, 8);
	assert_int_equal(r->result, VTEST_NEED_BYTES);
	assert_int_equal(r->s.table.budget.used, used);
}

static void test_many_resources(void **state)
{
	struct rig *r = *state;
	uint32_t n = 0;

	hello(r, 2);
	while (r->result == VTEST_NEED_BYTES && n < VTEST_RESOURCES_MAX + 1) {
		create(r, ++n * VTEST_BUCKETS / 4 + 1, 1);
	}
	assert_int_equal(r->result, -ENOSPC);
	assert_int_equal(n, VTEST_RESOURCES_MAX + 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_versions, setup, teardown),
		cmocka_unit_test_setup_teardown(test_inline_data, setup, teardown),
		cmocka_unit_test_setup_teardown(test_shared_memory, setup, teardown),
		cmocka_unit_test_setup_teardown(test_fences, setup, teardown),
		cmocka_unit_test_setup_teardown(test_budget, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_order, setup, teardown),
		cmocka_unit_test_setup_teardown(test_never_reads, setup, teardown),
		cmocka_unit_test_setup_teardown(test_renderer_refuses, setup, teardown),
		cmocka_unit_test_setup_teardown(test_streams, setup, teardown),
		cmocka_unit_test_setup_teardown(test_many_resources, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
