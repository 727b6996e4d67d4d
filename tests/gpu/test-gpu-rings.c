/* SPDX-License-Identifier: MIT
 * A guest that breaks its rings, in every way that there is: the queue stops, the other one goes
 * on, no process ends, and after the driver's reset everything works again.
 */
#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "tests/gpu/gpu-case.h"
#include "tests/unit/test.h"

#define HOLE  UINT64_C(0x90000000) /* between the two regions */
#define TABLE UINT64_C(0x300000)   /* of indirect descriptors */
#define ABOVE UINT16_C(1)          /* a descriptor that is no head */

/* Two descriptors of a good command in the places 0 and 1. */
static void put_good(struct sim *s, uint32_t queue)
{
	struct virtio_gpu_ctrl_hdr *hdr = sim_memory_at(&s->vmm.memory, SIM_SLOTS);
	struct vring_desc *d = s->rings[queue].desc;

	*hdr = (struct virtio_gpu_ctrl_hdr){.type = VIRTIO_GPU_CMD_GET_DISPLAY_INFO};
	d[0] = (struct vring_desc){SIM_SLOTS, sizeof(*hdr), VRING_DESC_F_NEXT, 1};
	d[1] = (struct vring_desc){SIM_SLOTS + SIM_ANSWER_AT, 1024, VRING_DESC_F_WRITE, 0};
}

/* An indirect table of n in place 0; its entries are those of a good command, one after another. */
static struct vring_desc *put_table(struct sim *s, uint32_t queue, uint32_t bytes)
{
	struct vring_desc *t = sim_memory_at(&s->vmm.memory, TABLE);
	struct vring_desc *d = s->rings[queue].desc;

	put_good(s, queue);
	memcpy(t, d, 2 * sizeof(*d));
	d[0] = (struct vring_desc){TABLE, bytes, VRING_DESC_F_INDIRECT, 0};
	return t;
}

static void publish(struct sim *s, uint32_t queue)
{
	sim_ring_publish(&s->rings[queue], 0);
}

static void head_too_large(struct sim *s, uint32_t q)
{
	put_good(s, q);
	sim_ring_publish(&s->rings[q], (uint16_t)s->rings[q].vmm.size);
}

static void head_far_too_large(struct sim *s, uint32_t q)
{
	put_good(s, q);
	sim_ring_publish(&s->rings[q], UINT16_MAX);
}

static void index_jumps(struct sim *s, uint32_t q)
{
	put_good(s, q);
	s->rings[q].avail->idx = (uint16_t)(s->rings[q].avail->idx + s->rings[q].vmm.size + 1);
}

static void index_goes_back(struct sim *s, uint32_t q)
{
	put_good(s, q);
	s->rings[q].avail->idx--;
}

static void loops_on_itself(struct sim *s, uint32_t q)
{
	put_good(s, q);
	s->rings[q].desc[0].next = 0;
	publish(s, q);
}

static void loops_in_two(struct sim *s, uint32_t q)
{
	put_good(s, q);
	s->rings[q].desc[1].flags = VRING_DESC_F_NEXT;
	s->rings[q].desc[1].next = 0;
	publish(s, q);
}

static void next_too_large(struct sim *s, uint32_t q)
{
	put_good(s, q);
	s->rings[q].desc[0].next = (uint16_t)s->rings[q].vmm.size;
	publish(s, q);
}

static void no_bytes(struct sim *s, uint32_t q)
{
	put_good(s, q);
	s->rings[q].desc[0].len = 0;
	publish(s, q);
}

static void in_a_hole(struct sim *s, uint32_t q)
{
	put_good(s, q);
	s->rings[q].desc[0].addr = HOLE;
	publish(s, q);
}

static void answer_in_a_hole(struct sim *s, uint32_t q)
{
	put_good(s, q);
	s->rings[q].desc[1].addr = HOLE;
	publish(s, q);
}

static void wraps(struct sim *s, uint32_t q)
{
	put_good(s, q);
	s->rings[q].desc[0].addr = UINT64_MAX - 7;
	publish(s, q);
}

static void past_a_region(struct sim *s, uint32_t q)
{
	put_good(s, q);
	s->rings[q].desc[0].addr = CASE_MEMORY / 2 - 4;
	publish(s, q);
}

static void four_gigabytes(struct sim *s, uint32_t q)
{
	put_good(s, q);
	s->rings[q].desc[1].len = UINT32_MAX;
	publish(s, q);
}

static void reads_behind_writes(struct sim *s, uint32_t q)
{
	put_good(s, q);
	s->rings[q].desc[0].flags |= VRING_DESC_F_WRITE;
	s->rings[q].desc[1].flags = 0;
	publish(s, q);
}

static void table_of_odd_size(struct sim *s, uint32_t q)
{
	put_table(s, q, 2 * sizeof(struct vring_desc) + 1);
	publish(s, q);
}

static void table_of_no_size(struct sim *s, uint32_t q)
{
	put_table(s, q, 0);
	publish(s, q);
}

static void table_in_a_hole(struct sim *s, uint32_t q)
{
	put_table(s, q, 2 * sizeof(struct vring_desc));
	s->rings[q].desc[0].addr = HOLE;
	publish(s, q);
}

static void table_wraps(struct sim *s, uint32_t q)
{
	put_table(s, q, 2 * sizeof(struct vring_desc));
	s->rings[q].desc[0].addr = UINT64_MAX - 15;
	publish(s, q);
}

static void table_in_a_table(struct sim *s, uint32_t q)
{
	struct vring_desc *t = put_table(s, q, 2 * sizeof(struct vring_desc));

	t[0] = s->rings[q].desc[0];
	publish(s, q);
}

static void table_loops(struct sim *s, uint32_t q)
{
	struct vring_desc *t = put_table(s, q, 2 * sizeof(struct vring_desc));

	t[0].next = 0;
	publish(s, q);
}

static void table_leaves_itself(struct sim *s, uint32_t q)
{
	struct vring_desc *t = put_table(s, q, 2 * sizeof(struct vring_desc));

	t[0].next = 2;
	publish(s, q);
}

static void table_with_a_next(struct sim *s, uint32_t q)
{
	put_table(s, q, 2 * sizeof(struct vring_desc));
	s->rings[q].desc[0].flags |= VRING_DESC_F_NEXT;
	s->rings[q].desc[0].next = ABOVE;
	publish(s, q);
}

static void table_of_four_gigabytes(struct sim *s, uint32_t q)
{
	struct vring_desc *t = put_table(s, q, UINT32_MAX - 15);

	t[0].next = UINT16_MAX;
	publish(s, q);
}

static void head_twice(struct sim *s, uint32_t q)
{
	put_good(s, q);
	publish(s, q);
	publish(s, q);
}

static const struct way {
	const char *name;
	void (*break_it)(struct sim *s, uint32_t queue);
	bool twice;
} ways[] = {
	{"head of the ring's size", head_too_large, false},
	{"head of 65535", head_far_too_large, false},
	{"index that jumps", index_jumps, false},
	{"index that goes back", index_goes_back, false},
	{"descriptor that loops on itself", loops_on_itself, false},
	{"loop of two", loops_in_two, false},
	{"next out of range", next_too_large, false},
	{"descriptor of no bytes", no_bytes, false},
	{"address in a hole", in_a_hole, false},
	{"answer's address in a hole", answer_in_a_hole, false},
	{"address that wraps", wraps, false},
	{"address past its region", past_a_region, false},
	{"buffer of 4 GiB", four_gigabytes, false},
	{"readable behind writable", reads_behind_writes, false},
	{"indirect table of odd size", table_of_odd_size, false},
	{"indirect table of no size", table_of_no_size, false},
	{"indirect table in a hole", table_in_a_hole, false},
	{"indirect table that wraps", table_wraps, false},
	{"indirect table in an indirect table", table_in_a_table, false},
	{"indirect table that loops", table_loops, false},
	{"indirect table that leaves itself", table_leaves_itself, false},
	{"indirect table with a next", table_with_a_next, false},
	{"indirect table of 4 GiB", table_of_four_gigabytes, false},
	{"head that is in flight", head_twice, true},
};

static bool cursor_answers(struct sim *s)
{
	const struct virtio_gpu_update_cursor c = {
		{.type = VIRTIO_GPU_CMD_MOVE_CURSOR}, {0, 1, 2, 0}, 0, 0, 0, 0};
	uint32_t written;
	int head = sim_offer(s, SIM_CURSOR, &c, sizeof(c), 0);

	sim_ring_kick(&s->rings[SIM_CURSOR]);
	return head >= 0 && sim_take(s, SIM_CURSOR, 2000, &written) == head;
}

static bool control_answers(struct sim *s)
{
	const struct virtio_gpu_ctrl_hdr c = {.type = VIRTIO_GPU_CMD_GET_DISPLAY_INFO};

	return sim_command(s, &c, sizeof(c)) == VIRTIO_GPU_RESP_OK_DISPLAY_INFO;
}

/* The other queue goes on, and nothing came back from this one, not even until it is stopped. */
static void check_stopped(struct sim *s, uint32_t queue, const struct way *way, uint16_t used)
{
	uint32_t base;

	for (int i = 0; i < 2; i++) {
		if (!(queue == SIM_CONTROL ? cursor_answers(s) : control_answers(s))) {
			fail_msg("%s: the other queue stopped too", way->name);
		}
	}
	assert_int_equal(sim_vmm_ring_stop(&s->vmm, queue, &base), 0);
	used = (uint16_t)(__atomic_load_n(&s->rings[queue].used->idx, __ATOMIC_ACQUIRE) - used);
	/* The first one of two was good. */
	if (used > (way->twice ? 1 : 0)) {
		fail_msg("%s: it was executed", way->name);
	}
}

static void break_each(struct gpu_case *c, uint32_t queue)
{
	struct sim *s = &c->sim;

	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		uint16_t before;

		/* It has run already: the indices are not zero. */
		assert_true(control_answers(s));
		assert_true(cursor_answers(s));
		before = s->rings[queue].used->idx;
		ways[i].break_it(s, queue);
		sim_ring_kick_always(&s->rings[queue]);
		check_stopped(s, queue, &ways[i], before);
		assert_int_equal(sim_reboot(s), 0);
		if (!control_answers(s) || !cursor_answers(s)) {
			fail_msg("%s: the queue doesn't work after the reset", ways[i].name);
		}
	}
	case_check_serves(c, 1);
}

static void test_control(void **state)
{
	break_each(*state, SIM_CONTROL);
}

static void test_cursor(void **state)
{
	break_each(*state, SIM_CURSOR);
}

/* An indirect table without the feature. */
static void test_not_negotiated(void **state)
{
	struct gpu_case *c;
	struct sim *s;

	assert_int_equal(case_start(&c, UINT64_C(1) << 32), 0);
	*state = c;
	s = &c->sim;
	put_table(s, SIM_CONTROL, 2 * sizeof(struct vring_desc));
	publish(s, SIM_CONTROL);
	sim_ring_kick_always(&s->rings[SIM_CONTROL]);
	assert_true(cursor_answers(s));
	assert_int_equal(s->rings[SIM_CONTROL].used->idx, 0);
	assert_int_equal(sim_reboot(s), 0);
	case_check_serves(c, 1);
}

/* Where it is negotiated an indirect table is a good thing, also over the border of regions. */
static void test_good_tables(void **state)
{
	struct gpu_case *c = *state;
	struct sim *s = &c->sim;
	struct virtio_gpu_ctrl_hdr *hdr = sim_memory_at(&s->vmm.memory, SIM_HIGH + 0x1000);
	uint8_t *answer = sim_memory_at(&s->vmm.memory, SIM_PIXELS);
	struct sim_segment segments[25] = {
		{SIM_HIGH + 0x1000, 11, false}, {SIM_HIGH + 0x1000 + 11, 13, false}};
	uint32_t written = 0;
	int head;

	*hdr = (struct virtio_gpu_ctrl_hdr){.type = VIRTIO_GPU_CMD_GET_DISPLAY_INFO,
		.flags = VIRTIO_GPU_FLAG_FENCE,
		.fence_id = 77};
	for (uint32_t i = 0; i < 23; i++) {
		/* In pieces of 31 bytes, the second half in the other region. */
		segments[i + 2] = (struct sim_segment){
			(i < 12 ? SIM_PIXELS : SIM_HIGH + SIM_PIXELS) + i * 31, 31, true};
	}
	head = sim_ring_offer_indirect(
		&s->rings[SIM_CONTROL], &s->vmm.memory, TABLE + 8, segments, ARRAY_SIZE(segments));
	assert_true(head >= 0);
	sim_ring_kick(&s->rings[SIM_CONTROL]);
	assert_int_equal(sim_take(s, SIM_CONTROL, 2000, &written), head);
	assert_int_equal(written, sizeof(struct virtio_gpu_resp_display_info));
	memcpy(hdr, answer, sizeof(*hdr));
	assert_int_equal(hdr->type, VIRTIO_GPU_RESP_OK_DISPLAY_INFO);
	assert_int_equal(hdr->flags, VIRTIO_GPU_FLAG_FENCE);
	assert_int_equal(hdr->fence_id, 77);
}

/* Ring addresses that can't be: the ring is broken, until it gets others. */
static void test_addresses(void **state)
{
	struct gpu_case *c = *state;
	struct sim *s = &c->sim;
	struct sim_vmm_ring good = s->rings[SIM_CONTROL].vmm, bad[5];

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		bad[i] = good;
	}
	bad[0].desc = HOLE;
	bad[1].avail = HOLE;
	bad[2].used = HOLE;
	bad[3].desc += 8; /* misaligned */
	bad[4].used = CASE_MEMORY / 2 - 16;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		uint32_t base;

		assert_int_equal(sim_vmm_ring_stop(&s->vmm, SIM_CONTROL, &base), 0);
		sim_ring_reset(&s->rings[SIM_CONTROL]);
		assert_int_equal(sim_vmm_ring_start(&s->vmm, SIM_CONTROL, &bad[i]), 0);
		sim_ring_kick_always(&s->rings[SIM_CONTROL]);
		assert_true(cursor_answers(s));
		assert_int_equal(sim_reboot(s), 0);
		assert_true(control_answers(s));
	}
	case_check_serves(c, 1);
}

/* Whatever is in the rings and in the tables: no process ends, and a reset helps. */
static void test_anything(void **state)
{
	struct gpu_case *c = *state;
	struct sim *s = &c->sim;
	uint32_t x = 12345;

	for (int round = 0; round < 60; round++) {
		for (uint32_t q = 0; q < SIM_QUEUES; q++) {
			struct sim_ring *r = &s->rings[q];
			uint8_t *bytes = (uint8_t *)r->desc;
			size_t n = r->vmm.size * sizeof(*r->desc);

			put_good(s, q);
			for (int k = 0; k < 1 + round % 7 * 40; k++) {
				x = x * 1103515245 + 12345;
				bytes[(x >> 8) % (round % 2 ? 32 : n)] = (uint8_t)(x >> 24);
			}
			sim_ring_publish(r, (uint16_t)(x >> 16) & (round % 3 ? 0 : 0x1f));
			sim_ring_kick_always(r);
		}
		sim_wait(s, 2);
		assert_int_equal(sim_reboot(s), 0);
		assert_true(control_answers(s));
	}
	case_check_serves(c, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, case_setup, case_teardown)

/* Has the device serve as many requests as its ring's index counts up to, and ends there. */
static void wind(struct gpu_case *c)
{
	struct virtio_gpu_resource_flush flush = {
		{.type = VIRTIO_GPU_CMD_RESOURCE_FLUSH}, {0, 0, 1, 1}, 1, 0};
	struct sim_ring *ring = &c->sim.rings[SIM_CONTROL];
	uint32_t written;

	while (ring->avail->idx != 0) {
		while (ring->avail->idx != 0 &&
			sim_offer(&c->sim, SIM_CONTROL, &flush, sizeof(flush), 64) >= 0) {
		}
		sim_ring_kick(ring);
		while (ring->used->idx != ring->avail->idx) {
			assert_true(sim_take(&c->sim, SIM_CONTROL, 5000, &written) >= 0);
		}
		while (sim_take(&c->sim, SIM_CONTROL, 0, &written) >= 0) {
		}
	}
}

/* QEMU pauses and resets a guest with the same messages. After 65536 requests both begin with the
 * ring's first entry: a guest that was reset finds nothing, one that was paused everything. */
static void test_index_at_zero(void **state)
{
	struct gpu_case *c = *state;
	struct sim *s = &c->sim;

	for (int reset = 0; reset < 2; reset++) {
		uint32_t base[SIM_QUEUES];

		case_check_serves(c, 1);
		wind(c);
		for (uint32_t q = 0; q < SIM_QUEUES; q++) {
			assert_int_equal(sim_vmm_ring_stop(&s->vmm, q, &base[q]), 0);
		}
		assert_int_equal(base[SIM_CONTROL], 0);
		if (reset) {
			assert_int_equal(sim_driver_ok(s, s->vmm.acked), 0);
		} else {
			assert_int_equal(sim_vmm_features(&s->vmm, s->vmm.acked), 0);
			assert_int_equal(sim_vmm_memory(&s->vmm), 0);
			for (uint32_t q = 0; q < SIM_QUEUES; q++) {
				s->rings[q].vmm.base = base[q];
				assert_int_equal(
					sim_vmm_ring_start(&s->vmm, q, &s->rings[q].vmm), 0);
			}
		}
		/* Its id is free, or it is still there. */
		assert_int_equal(sim_unref(s, 1), reset ? CASE_BAD_RESOURCE : CASE_OK);
	}
	case_check_serves(c, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_control),
		TEST(test_cursor),
		cmocka_unit_test_setup_teardown(test_not_negotiated, NULL, case_teardown),
		TEST(test_good_tables),
		TEST(test_addresses),
		TEST(test_index_at_zero),
		TEST(test_anything),
	};

	return cmocka_run_group_tests_name("gpu-rings", tests, NULL, NULL);
}
