/* SPDX-License-Identifier: MIT
 * A split ring from the driver's side: good chains, each way to break one, batches and
 * notifications, and rings of random bytes.
 */
#include "gpu/vring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"
#include "gpu/memory.h"
#include "tests/unit/test.h"

#define PAGE  4096
#define PAGES 16 /* of the first region; as many follow at once in the second, and then none */
#define N     8
#define USER  0x7f0000000000

enum { NEXT = 1, WRITE = 2, INDIRECT = 4 };
enum { DESC = 0, AVAIL = PAGE, USED = 2 * PAGE, TABLE = 3 * PAGE, DATA = 4 * PAGE };

struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};

struct rig {
	struct memory memory;
	struct vring q;
	struct vring_chain chain;
	uint8_t *guest;
	int fd;
	uint16_t avail;
};

static const struct vring_setup normal = {
	.size = N,
	.desc = USER + DESC,
	.avail = USER + AVAIL,
	.used = USER + USED,
	.event_idx = true,
	.indirect = true,
};

static int setup(void **state)
{
	struct rig *r = calloc(1, sizeof(*r));
	const struct memory_region first = {0, USER, PAGES * PAGE, 0};
	const struct memory_region second = {PAGES * PAGE, USER << 1, PAGES * PAGE, PAGES * PAGE};

	r->fd = memfd_create("guest", MFD_CLOEXEC);
	assert_int_equal(ftruncate(r->fd, 2 * PAGES * PAGE), 0);
	r->guest = mmap(NULL, 2 * PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, 0);
	assert_true(r->guest != MAP_FAILED);
	memory_init(&r->memory);
	assert_int_equal(memory_add(&r->memory, &first, r->fd), 0);
	assert_int_equal(memory_add(&r->memory, &second, r->fd), 0);
	assert_int_equal(vring_start(&r->q, &r->memory, &normal), 0);
	*state = r;
	return 0;
}

static int teardown(void **state)
{
	struct rig *r = *state;

	memory_finish(&r->memory);
	munmap(r->guest, 2 * PAGES * PAGE);
	close(r->fd);
	free(r);
	return 0;
}

static struct desc *desc(struct rig *r, uint64_t table, int n)
{
	return (struct desc *)(void *)(r->guest + table) + n;
}

static uint16_t *avail(struct rig *r)
{
	return (uint16_t *)(void *)(r->guest + AVAIL);
}

static uint16_t *used(struct rig *r)
{
	return (uint16_t *)(void *)(r->guest + USED);
}

static uint32_t *used_entry(struct rig *r, int n)
{
	return (uint32_t *)(void *)(r->guest + USED + 4) + 2 * (n % N);
}

static void offer(struct rig *r, uint16_t head)
{
	avail(r)[2 + r->avail % N] = head;
	avail(r)[1] = ++r->avail;
}

static int take(struct rig *r)
{
	uint16_t head;
	int err = vring_peek(&r->q, &head);

	if (err <= 0) {
		return err;
	}
	vring_take(&r->q);
	err = vring_read(&r->q, &r->memory, head, &r->chain);
	return err < 0 ? err : 1;
}

static void restart(struct rig *r)
{
	memset(r->guest, 0, 4 * PAGE);
	r->avail = 0;
	assert_int_equal(vring_start(&r->q, &r->memory, &normal), 0);
}

static void good_chains(void **state)
{
	struct rig *r = *state;
	char text[16] = {0};

	assert_int_equal(take(r), 0);
	/* Out in two pieces, in in one. */
	memcpy(r->guest + DATA, "first ", 6);
	memcpy(r->guest + DATA + 100, "second", 6);
	*desc(r, DESC, 7) = (struct desc){DATA, 6, NEXT, 3};
	*desc(r, DESC, 3) = (struct desc){DATA + 100, 6, NEXT, 0};
	*desc(r, DESC, 0) = (struct desc){DATA + 200, 50, WRITE, 99};
	offer(r, 7);
	assert_int_equal(take(r), 1);
	assert_int_equal(r->chain.head, 7);
	assert_int_equal(r->chain.out_bytes, 12);
	assert_int_equal(r->chain.in_bytes, 50);
	assert_int_equal(vring_copy_out(&r->chain, 0, text, sizeof(text)), 12);
	assert_string_equal(text, "first second");
	assert_int_equal(vring_copy_out(&r->chain, 8, text, 3), 3);
	assert_memory_equal(text, "con", 3);
	assert_int_equal(vring_copy_out(&r->chain, 12, text, 3), 0);
	assert_int_equal(vring_copy_in(&r->chain, "answer", 6), 6);
	assert_memory_equal(r->guest + DATA + 200, "answer", 6);
	assert_int_equal(take(r), 0);

	/* The same in an indirect table at an odd address, behind a descriptor of the ring, with a
	 * buffer over the border of the regions. */
	*desc(r, DESC, 2) = (struct desc){DATA, 6, NEXT, 5};
	*desc(r, DESC, 5) = (struct desc){TABLE + 1, 48, INDIRECT, 0};
	memcpy(r->guest + TABLE + 1, &(struct desc){DATA + 100, 6, NEXT, 2}, 16);
	memcpy(r->guest + TABLE + 33, &(struct desc){PAGES * PAGE - 4, 10, WRITE, 0}, 16);
	offer(r, 2);
	assert_int_equal(take(r), 1);
	assert_int_equal(r->chain.n_out, 2);
	assert_int_equal(r->chain.n_in, 2);
	assert_int_equal(r->chain.in_bytes, 10);
	assert_int_equal(vring_copy_in(&r->chain, "0123456789abcdef", 16), 10);
	assert_memory_equal(r->guest + PAGES * PAGE - 4, "0123456789", 10);

	/* As long as the ring, and no room for an answer. */
	for (int i = 0; i < N; i++) {
		*desc(r, DESC, i) = (struct desc){DATA, 1, i < N - 1 ? NEXT : 0, (uint16_t)(i + 1)};
	}
	offer(r, 0);
	assert_int_equal(take(r), 1);
	assert_int_equal(r->chain.n_out, N);
	assert_int_equal(vring_copy_in(&r->chain, "x", 1), 0);
}

struct broken {
	const char *name;
	struct desc ring[3];
	struct desc table[2];
};

static void broken_chains(void **state)
{
	static const struct broken cases[] = {
		{"loop to itself", {{DATA, 1, NEXT, 0}}, {{0}}},
		{"loop of two", {{DATA, 1, NEXT, 1}, {DATA, 1, NEXT, 0}}, {{0}}},
		{"next out of range", {{DATA, 1, NEXT, N}}, {{0}}},
		{"next far out of range", {{DATA, 1, NEXT, 0xffff}}, {{0}}},
		{"hole", {{2 * PAGES * PAGE, 1, 0, 0}}, {{0}}},
		{"into a hole", {{2 * PAGES * PAGE - 1, 2, 0, 0}}, {{0}}},
		{"wraps", {{UINT64_MAX, 2, 0, 0}}, {{0}}},
		{"4 GiB", {{DATA, UINT32_MAX, 0, 0}}, {{0}}},
		{"nothing", {{DATA, 0, 0, 0}}, {{0}}},
		{"order", {{DATA, 1, WRITE | NEXT, 1}, {DATA, 1, 0, 0}}, {{0}}},
		{"table of no size", {{TABLE, 0, INDIRECT, 0}}, {{DATA, 1, 0, 0}}},
		{"table of an odd size", {{TABLE, 17, INDIRECT, 0}}, {{DATA, 1, 0, 0}}},
		{"table in a hole", {{2 * PAGES * PAGE, 16, INDIRECT, 0}}, {{0}}},
		{"table that wraps", {{UINT64_MAX - 14, 16, INDIRECT, 0}}, {{0}}},
		{"table with a next", {{TABLE, 16, INDIRECT | NEXT, 1}}, {{DATA, 1, 0, 0}}},
		{"table in a table", {{TABLE, 16, INDIRECT, 0}}, {{TABLE, 16, INDIRECT, 0}}},
		{"loop in a table", {{TABLE, 16, INDIRECT, 0}}, {{DATA, 1, NEXT, 0}}},
		{"next outside a table", {{TABLE, 32, INDIRECT, 0}}, {{DATA, 1, NEXT, 2}}},
		{"hole in a table", {{TABLE, 16, INDIRECT, 0}}, {{2 * PAGES * PAGE, 1, 0, 0}}},
		{"table that ends in a hole", {{2 * PAGES * PAGE - 16, 32, INDIRECT, 0}}, {{0}}},
	};
	struct rig *r = *state;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		restart(r);
		/* For the last: one entry before the hole that leads into it. */
		*desc(r, 2 * PAGES * PAGE - 16, 0) = (struct desc){DATA, 1, NEXT, 1};
		memcpy(r->guest + DESC, cases[i].ring, sizeof(cases[i].ring));
		memcpy(r->guest + TABLE, cases[i].table, sizeof(cases[i].table));
		offer(r, 0);
		if (take(r) != -EPROTO || !r->q.broken) {
			fail_msg("%s was taken", cases[i].name);
		}
		/* And it stays broken, whatever comes. */
		*desc(r, DESC, 0) = (struct desc){DATA, 1, 0, 0};
		offer(r, 0);
		assert_int_equal(take(r), -EPROTO);
		assert_false(vring_listen(&r->q));
		restart(r);
		*desc(r, DESC, 0) = (struct desc){DATA, 1, 0, 0};
		offer(r, 0);
		assert_int_equal(take(r), 1);
	}
}

static void broken_indices(void **state)
{
	static const uint16_t indices[] = {0xffff, N + 1, 0x8000};
	struct rig *r = *state;
	struct vring_setup s = normal;

	for (size_t i = 0; i < ARRAY_SIZE(indices); i++) {
		restart(r);
		avail(r)[1] = indices[i]; /* back, or too far */
		assert_int_equal(take(r), -EPROTO);
	}
	restart(r);
	avail(r)[1] = N;
	assert_int_equal(vring_peek(&r->q, &(uint16_t){0}), 1);
	restart(r);
	offer(r, N);
	assert_int_equal(take(r), -EPROTO);
	restart(r);
	offer(r, 0xffff);
	assert_int_equal(take(r), -EPROTO);

	s.indirect = false;
	*desc(r, DESC, 0) = (struct desc){TABLE, 16, INDIRECT, 0};
	*desc(r, TABLE, 0) = (struct desc){DATA, 1, 0, 0};
	memset(r->guest + AVAIL, 0, PAGE);
	r->avail = 0;
	assert_int_equal(vring_start(&r->q, &r->memory, &s), 0);
	offer(r, 0);
	assert_int_equal(take(r), -EPROTO);
	vring_stop(&r->q);
	assert_int_equal(take(r), -EPROTO);
}

static void bad_setups(void **state)
{
	static const struct {
		uint32_t size;
		uint64_t desc, avail, used;
		int result;
	} cases[] = {
		{N, DESC, AVAIL, USED, 0},
		{0, DESC, AVAIL, USED, -EPROTO},
		{6, DESC, AVAIL, USED, -EPROTO},
		{2 * VRING_SIZE_MAX, DESC, AVAIL, USED, -EPROTO},
		{0x80000000, DESC, AVAIL, USED, -EPROTO},
		{N, DESC + 8, AVAIL, USED, -EPROTO},
		{N, DESC, AVAIL + 1, USED, -EPROTO},
		{N, DESC, AVAIL, USED + 2, -EPROTO},
		{N, -PAGE, AVAIL, USED, -EPROTO},
		{N, PAGES * PAGE - 16 * N, AVAIL, USED, 0},
		{N, PAGES * PAGE - 16 * N + 16, AVAIL, USED, -EPROTO}, /* not in one piece */
		{N, DESC, PAGES * PAGE - 22, USED, 0},
		{N, DESC, PAGES * PAGE - 20, USED, -EPROTO},
		{N, DESC, AVAIL, PAGES * PAGE - 72, 0},
		{N, DESC, AVAIL, PAGES * PAGE - 68, -EPROTO},
		{N, DESC, AVAIL, 2 * USER, -EPROTO},
	};
	struct rig *r = *state;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct vring_setup s = normal;

		s.size = cases[i].size;
		s.desc = USER + cases[i].desc;
		s.avail = USER + cases[i].avail;
		s.used = USER + cases[i].used;
		assert_int_equal(vring_start(&r->q, &r->memory, &s), cases[i].result);
		assert_int_equal(r->q.broken != NULL, cases[i].result != 0);
	}
}

static void batches(void **state)
{
	struct rig *r = *state;

	for (uint16_t i = 0; i < 3; i++) {
		*desc(r, DESC, i) = (struct desc){DATA, 8, WRITE, 0};
		offer(r, i);
	}
	for (int i = 0; i < 3; i++) {
		assert_int_equal(take(r), 1);
		vring_add(&r->q, r->chain.head, 8U + (uint32_t)i);
	}
	assert_int_equal(used(r)[1], 0); /* not shown yet */
	vring_publish(&r->q);
	assert_int_equal(used(r)[1], 3);
	assert_int_equal(vring_used_index(&r->q), 3);
	for (uint32_t i = 0; i < 3; i++) {
		assert_int_equal(used_entry(r, (int)i)[0], i);
		assert_int_equal(used_entry(r, (int)i)[1], 8 + i);
	}
	assert_true(vring_wants_call(&r->q)); /* the first always */
}

/* The driver wants to hear of used entry `event`; n more are used after `before` were. */
static bool call_wanted(struct rig *r, uint16_t before, uint16_t n, uint16_t event)
{
	r->q.next_used = before;
	vring_publish(&r->q);
	_unused_ bool ignored = vring_wants_call(&r->q);
	avail(r)[2 + N] = event;
	for (uint16_t i = 0; i < n; i++) {
		vring_add(&r->q, 0, 0);
	}
	vring_publish(&r->q);
	return vring_wants_call(&r->q);
}

static void notifications(void **state)
{
	struct rig *r = *state;
	struct vring_setup s = normal;

	assert_true(call_wanted(r, 10, 1, 10));
	assert_true(call_wanted(r, 10, 5, 10));
	assert_true(call_wanted(r, 10, 5, 14));
	assert_false(call_wanted(r, 10, 5, 15));
	assert_false(call_wanted(r, 10, 5, 9));
	assert_true(call_wanted(r, 0xfffe, 5, 1)); /* over the end of the numbers */
	assert_false(call_wanted(r, 10, 0, 10));

	/* Ours to the driver, and what comes in between. */
	restart(r);
	assert_false(vring_listen(&r->q));
	assert_int_equal(used(r)[2 + 4 * N], 0);
	*desc(r, DESC, 0) = (struct desc){DATA, 8, 0, 0};
	offer(r, 0);
	assert_true(vring_listen(&r->q));
	assert_int_equal(take(r), 1);
	assert_false(vring_listen(&r->q));
	assert_int_equal(used(r)[2 + 4 * N], 1);

	/* Without an event index: flags. */
	s.event_idx = false;
	restart(r);
	assert_int_equal(vring_start(&r->q, &r->memory, &s), 0);
	vring_ignore(&r->q);
	assert_int_equal(used(r)[0], 1);
	assert_false(vring_listen(&r->q));
	assert_int_equal(used(r)[0], 0);
	assert_true(vring_wants_call(&r->q));
	avail(r)[0] = 1;
	assert_false(vring_wants_call(&r->q));
}

/* More descriptors than a chain may have, in one table; and one that falls into too many pieces. */
static void long_tables(void **state)
{
	struct rig *r = *state;
	const int most = VRING_CHAIN_MAX;

	for (int extra = 0; extra < 2; extra++) {
		restart(r);
		for (int i = 0; i < most + extra; i++) {
			*desc(r, DATA, i) = (struct desc){
				DATA, 1, i + 1 < most + extra ? NEXT : 0, (uint16_t)(i + 1)};
		}
		*desc(r, DESC, 0) = (struct desc){DATA, 16 * ((uint32_t)most + 1), INDIRECT, 0};
		offer(r, 0);
		assert_int_equal(take(r), extra ? -EPROTO : 1);
	}
	restart(r);
	for (int i = 0; i < most; i++) {
		*desc(r, DATA, i) = (struct desc){
			PAGES * PAGE - 1, 2, i + 1 < most ? NEXT : 0, (uint16_t)(i + 1)};
	}
	*desc(r, DESC, 0) = (struct desc){DATA, 16 * (uint32_t)most, INDIRECT, 0};
	offer(r, 0);
	assert_int_equal(take(r), -EPROTO);
}

static uint64_t random_address(void)
{
	return rand() % 8 ? (uint64_t)rand() % (2 * PAGES * PAGE + PAGE) : (uint64_t)rand() << 33;
}

static void random_desc(struct desc *d)
{
	static const uint16_t flags[] = {0, WRITE, NEXT, NEXT, NEXT | WRITE, INDIRECT, 0xffff};

	*d = (struct desc){random_address(), 1U + (uint32_t)rand() % 300, flags[rand() % 7],
		(uint16_t)(rand() % (N + 1))};
	if (d->flags == INDIRECT) {
		d->addr = TABLE + (uint64_t)(rand() % 64);
		d->len = 16U * (1U + (uint32_t)rand() % 8);
	}
}

static void check_chain(const struct rig *r)
{
	uint64_t out = 0, in = 0;
	uint8_t byte = 0;

	assert_true(r->chain.n_out + r->chain.n_in <= VRING_PIECES_MAX);
	for (int i = 0; i < r->chain.n_out + r->chain.n_in; i++) {
		const struct iovec *v = &r->chain.pieces[i];

		/* Under ASan every first and last byte is there to be read. */
		byte ^= *(uint8_t *)v->iov_base ^ ((uint8_t *)v->iov_base)[v->iov_len - 1];
		*(i < r->chain.n_out ? &out : &in) += v->iov_len;
	}
	assert_true(out == r->chain.out_bytes && in == r->chain.in_bytes);
	(void)byte;
}

static void random_rings(void **state)
{
	struct rig *r = *state;
	int good = 0, bad = 0;

	srand(9);
	for (int round = 0; round < 20000; round++) {
		int err;

		restart(r);
		for (int i = 0; i < N; i++) {
			random_desc(desc(r, DESC, i));
			memcpy(r->guest + TABLE + 16 * i, desc(r, DESC, i), 16);
			random_desc(desc(r, DESC, i));
		}
		for (int i = 0; i < N; i++) {
			offer(r, (uint16_t)(rand() % (N + (rand() % 50 == 0))));
		}
		while ((err = take(r)) > 0) {
			check_chain(r);
			good++;
		}
		bad += err < 0;
	}
	assert_in_range(good, 1000, 1000000);
	assert_in_range(bad, 1000, 20000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(good_chains, setup, teardown),
		cmocka_unit_test_setup_teardown(broken_chains, setup, teardown),
		cmocka_unit_test_setup_teardown(broken_indices, setup, teardown),
		cmocka_unit_test_setup_teardown(bad_setups, setup, teardown),
		cmocka_unit_test_setup_teardown(batches, setup, teardown),
		cmocka_unit_test_setup_teardown(notifications, setup, teardown),
		cmocka_unit_test_setup_teardown(long_tables, setup, teardown),
		cmocka_unit_test_setup_teardown(random_rings, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
