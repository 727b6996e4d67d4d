/* SPDX-License-Identifier: MIT
 * What a renderer makes of the journal of one that was killed: the picture is back, and nonsense in
 * it harms nobody.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "tests/integration/gpu-guest.h"
#include "tests/unit/test.h"

static void check_scanout(struct rig *r, uint32_t n, uint32_t id)
{
	union link_msg m;
	void *p;

	while (r->f->image_fds[n] < 0) {
		assert_true(fake_front_wait(r->f, LINK_SCANOUT, &m, 5000));
	}
	p = mmap(NULL, BYTES, PROT_READ, MAP_SHARED, r->f->image_fds[n], 0);
	assert_true(p != MAP_FAILED);
	assert_memory_equal(p, r->f->guest + AREA + id * BYTES, BYTES);
	munmap(p, BYTES);
}

static void brings_the_picture_back(void **state)
{
	const struct virtio_gpu_rect all = {0, 0, SIDE, SIDE}, half = {16, 8, 32, 16};
	const struct virtio_gpu_update_cursor cursor = {
		{.type = VIRTIO_GPU_CMD_UPDATE_CURSOR}, {1, 50, 60, 0}, 3, 4, 5, 0};
	struct virtio_gpu_update_cursor move = cursor;
	struct rig *r = *state;
	struct journal_cursor got;
	struct timespec start, end;
	bool fresh;
	uint32_t written;

	for (uint32_t i = 0; i < 4 * BYTES; i++) {
		r->f->guest[AREA + i] = (uint8_t)(i * 7 + i / 255);
	}
	for (uint32_t id = 1; id <= 3; id++) {
		OFFER(r, OK, create,
			{{.type = VIRTIO_GPU_CMD_RESOURCE_CREATE_2D}, id, BGRX, SIDE, SIDE});
		OFFER(r, OK, attach,
			{{{.type = VIRTIO_GPU_CMD_RESOURCE_ATTACH_BACKING}, id, 1},
				{AREA + id * BYTES, BYTES, 0}});
		OFFER(r, OK, transfer,
			{{.type = VIRTIO_GPU_CMD_TRANSFER_TO_HOST_2D}, all, 0, id, 0});
	}
	OFFER(r, OK, scanout, {{.type = VIRTIO_GPU_CMD_SET_SCANOUT}, all, 0, 1});
	OFFER(r, OK, scanout, {{.type = VIRTIO_GPU_CMD_SET_SCANOUT}, all, 0, 2});
	OFFER(r, OK, scanout, {{.type = VIRTIO_GPU_CMD_SET_SCANOUT}, half, 1, 1});
	fake_ring_kick(r->f, CONTROL);
	guest_take_all(r);
	fake_ring_offer(r->f, CURSOR, &cursor, sizeof(cursor), 0);
	fake_ring_kick(r->f, CURSOR);
	assert_true(fake_ring_next(r->f, CURSOR, 5000, &written) >= 0);
	for (int i = 0; i < 5; i++) {
		clock_gettime(CLOCK_MONOTONIC, &start);
		guest_replace(r);
		memset(r->f->scanouts, 0, sizeof(r->f->scanouts));
		check_scanout(r, 0, 2);
		clock_gettime(CLOCK_MONOTONIC, &end);
		assert_true((end.tv_sec - start.tv_sec) * 1000 +
				    (end.tv_nsec - start.tv_nsec) / 1000000 <
			    1000);
		check_scanout(r, 1, 1);
		assert_int_equal(r->f->scanouts[1].x, 16);
		assert_int_equal(r->f->scanouts[1].scanout_height, 16);
		/* The cursor's image and hot spot are what they were when it moves on. */
		move.hdr.type = VIRTIO_GPU_CMD_MOVE_CURSOR;
		move.pos.x = 100 + (uint32_t)i;
		move.resource_id = 0;
		fake_ring_offer(r->f, CURSOR, &move, sizeof(move), 0);
		fake_ring_kick(r->f, CURSOR);
		assert_true(fake_ring_next(r->f, CURSOR, 5000, &written) >= 0);
		assert_true(journal_take_cursor(r->f->journal, &r->f->reader, 1, &got, &fresh));
		assert_int_equal(fresh, i == 0);
		assert_true(got.x == 100U + (uint32_t)i && got.hot_x == 4 && got.resource_id == 3);
	}
	/* All three are there, and still backed. */
	for (uint32_t id = 1; id <= 3; id++) {
		OFFER(r, OK, detach, {{.type = VIRTIO_GPU_CMD_RESOURCE_DETACH_BACKING}, id, 0});
		OFFER(r, OK, unref, {{.type = VIRTIO_GPU_CMD_RESOURCE_UNREF}, id, 0});
	}
	fake_ring_kick(r->f, CONTROL);
	guest_take_all(r);
}

/* Killed between STOP and STOPPED, or when it was stopped: the next one knows where. */
static void stopped(void **state)
{
	struct rig *r = *state;

	guest_offer_life(r, 1);
	fake_ring_kick(r->f, CONTROL);
	guest_take_all(r);
	assert_int_equal(fake_ring_stop(r->f, CONTROL), 11);
	guest_replace(r); /* is sent the START of that run again */
	assert_int_equal(fake_ring_stop(r->f, CONTROL), 11);
	/* The VMM starts it anew, from zero. */
	fake_ring_reset(r->f, CONTROL);
	guest_offer_life(r, 2);
	fake_ring_kick(r->f, CONTROL);
	guest_take_all(r);
}

static void garble(struct rig *r, int kind)
{
	struct journal *j = r->f->journal;
	uint8_t *bytes = (uint8_t *)j->queues;
	size_t size = offsetof(struct journal, entries) - offsetof(struct journal, queues);

	for (int i = 0; i < 200; i++) {
		switch (kind) {
		case 0: /* any bytes anywhere */
			bytes[(size_t)rand() % size] = (uint8_t)rand();
			break;
		case 1: { /* resources that nearly can be */
			struct journal_resource *res = &j->resources[rand() % JOURNAL_RESOURCES];

			*res = (struct journal_resource){.created = 1,
				.attached = 1,
				.id = 1 + (uint32_t)rand() % 20,
				.format = rand() % 3 ? 1 : (uint32_t)rand(),
				.width = 1U << rand() % 32,
				.height = 1U << rand() % 16,
				.first_entry = (uint32_t)rand() % (2 * JOURNAL_ENTRIES),
				.n_entries = (uint32_t)rand() % 20000};
			j->done = 5;
			break;
		}
		case 2: /* scanouts of anything */
			j->scanouts[i % 2].versions[i / 2 % 2].order = (uint64_t)rand() % 4;
			j->scanouts[i % 2].versions[i / 2 % 2].resource_id = (uint32_t)rand() % 20;
			j->scanouts[i % 2].versions[i / 2 % 2].width = (uint32_t)rand();
			j->scanouts[i % 2].versions[i / 2 % 2].x = (uint32_t)rand();
			break;
		case 3: /* heads in flight that nobody offered */
			j->queues[i % 2].heads[rand() % JOURNAL_HEADS] =
				(struct journal_head){.order = (uint64_t)rand() % 100,
					.written = (uint32_t)rand(),
					.used_at = (uint16_t)rand(),
					.state = (uint16_t)(rand() % 4)};
			break;
		case 4:
			j->done = rand() % 2 ? UINT64_MAX : (uint64_t)rand() << 33;
			break;
		default:
			j->queues[i % 2].published = (uint16_t)rand();
			j->queues[i % 2].publishing = (uint16_t)rand();
			break;
		}
	}
}

static void hostile_journal(void **state)
{
	struct rig *r = *state;

	for (int i = 0; i < guest_kills(); i++) {
		union link_msg m;

		guest_offer_life(r, 1);
		fake_ring_kick(r->f, CONTROL);
		guest_take_all(r);
		OFFER(r, OK, create,
			{{.type = VIRTIO_GPU_CMD_RESOURCE_CREATE_2D}, 7, BGRX, SIDE, SIDE});
		fake_ring_kick(r->f, CONTROL);
		guest_take_all(r);
		fake_front_kill(r->f);
		garble(r, i % 6);
		fake_front_start(r->f, "64M");
		/* It lives, and a driver that resets the device has a working one. */
		for (uint32_t q = 0; q < LINK_QUEUES; q++) {
			fake_ring_stop(r->f, q);
		}
		link_init(&m, LINK_RESET);
		fake_front_send(r->f, &m, NULL, 0);
		assert_true(fake_front_wait(r->f, LINK_DONE, &m, 5000));
		fake_ring_reset(r->f, CONTROL);
		fake_ring_reset(r->f, CURSOR);
		link_init(&m, LINK_PING);
		fake_front_send(r->f, &m, NULL, 0);
		assert_true(fake_front_wait(r->f, LINK_PONG, &m, 5000));
		assert_int_equal(m.pong.resources, 0);
		assert_int_equal(m.pong.bytes, 0);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, guest_setup, guest_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(brings_the_picture_back),
		TEST(stopped),
		TEST(hostile_journal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
