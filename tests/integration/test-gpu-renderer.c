/* SPDX-License-Identifier: MIT
 * The real renderer in its sandbox, between a front and a guest that are ours: commands, rings that
 * break, memory that goes, messages that can't be.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "tests/integration/fake-front.h"
#include "tests/unit/test.h"

#define BGRX VIRTIO_GPU_FORMAT_B8G8R8X8_UNORM
#define BGRA VIRTIO_GPU_FORMAT_B8G8R8A8_UNORM

enum {
	OK = VIRTIO_GPU_RESP_OK_NODATA,
	NO_MEMORY = VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY,
	BAD_RESOURCE = VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID,
	BAD_PARAMETER = VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER,
};

#define COMMAND(f, ...)                                   \
	({                                                \
		__typeof__(__VA_ARGS__) c_ = __VA_ARGS__; \
		fake_command(f, &c_, sizeof(c_));         \
	})

static uint32_t create(struct fake_front *f, uint32_t id, uint32_t format, uint32_t w, uint32_t h)
{
	return COMMAND(f, (struct virtio_gpu_resource_create_2d){
				  {.type = VIRTIO_GPU_CMD_RESOURCE_CREATE_2D}, id, format, w, h});
}

static uint32_t attach(struct fake_front *f, uint32_t id, uint64_t addr, uint32_t bytes)
{
	struct {
		struct virtio_gpu_resource_attach_backing c;
		struct virtio_gpu_mem_entry e;
	} m = {{{.type = VIRTIO_GPU_CMD_RESOURCE_ATTACH_BACKING}, id, 1}, {addr, bytes, 0}};

	return fake_command(f, &m, sizeof(m));
}

static uint32_t transfer(struct fake_front *f, uint32_t id, uint32_t w, uint32_t h)
{
	return COMMAND(
		f, (struct virtio_gpu_transfer_to_host_2d){
			   {.type = VIRTIO_GPU_CMD_TRANSFER_TO_HOST_2D}, {0, 0, w, h}, 0, id, 0});
}

static uint32_t scanout(struct fake_front *f, uint32_t n, uint32_t id, uint32_t w, uint32_t h)
{
	return COMMAND(f, (struct virtio_gpu_set_scanout){
				  {.type = VIRTIO_GPU_CMD_SET_SCANOUT}, {0, 0, w, h}, n, id});
}

static uint32_t flush(struct fake_front *f, uint32_t id, uint32_t w, uint32_t h)
{
	return COMMAND(f, (struct virtio_gpu_resource_flush){
				  {.type = VIRTIO_GPU_CMD_RESOURCE_FLUSH}, {0, 0, w, h}, id, 0});
}

static uint32_t unref(struct fake_front *f, uint32_t id)
{
	return COMMAND(f,
		(struct virtio_gpu_resource_unref){{.type = VIRTIO_GPU_CMD_RESOURCE_UNREF}, id, 0});
}

static int setup(void **state)
{
	*state = fake_front_create();
	fake_front_start(*state, "64M");
	return 0;
}

static int teardown(void **state)
{
	fake_front_destroy(*state);
	return 0;
}

static void paint(struct fake_front *f, uint32_t at, uint32_t bytes, uint8_t seed)
{
	for (uint32_t i = 0; i < bytes; i++) {
		f->guest[at + i] = (uint8_t)(seed + i * 31 + i / 253);
	}
}

/* What the front would show of a scanout. */
static void check_image(struct fake_front *f, uint32_t n, uint32_t at, uint32_t bytes)
{
	struct stat st;
	void *p;

	fake_front_drain(f);
	assert_true(f->image_fds[n] >= 0);
	assert_int_equal(fstat(f->image_fds[n], &st), 0);
	assert_int_equal(st.st_size, bytes);
	assert_true(fcntl(f->image_fds[n], F_GET_SEALS) & F_SEAL_SHRINK);
	p = mmap(NULL, bytes, PROT_READ, MAP_SHARED, f->image_fds[n], 0);
	assert_true(p != MAP_FAILED);
	assert_memory_equal(p, f->guest + at, bytes);
	munmap(p, bytes);
}

static void shows_a_picture(void **state)
{
	struct fake_front *f = *state;
	struct journal_damage d;

	paint(f, 8 << 20, 64 * 48 * 4, 1);
	assert_int_equal(create(f, 1, BGRX, 64, 48), OK);
	assert_int_equal(attach(f, 1, 8 << 20, 64 * 48 * 4), OK);
	assert_int_equal(scanout(f, 0, 1, 64, 48), OK);
	assert_int_equal(transfer(f, 1, 64, 48), OK);
	assert_false(journal_sleep(f->journal, &f->reader));
	assert_int_equal(flush(f, 1, 64, 48), OK);
	check_image(f, 0, 8 << 20, 64 * 48 * 4);
	assert_int_equal(f->scanouts[0].scanout_width, 64);
	assert_int_equal(f->scanouts[0].height, 48);
	assert_int_equal(journal_take_damage(f->journal, &f->reader, &d), 1);
	assert_true(d.scanout == 0 && d.width == 64 && d.height == 48);
	assert_int_equal(journal_take_damage(f->journal, &f->reader, &d), 0);
	assert_int_equal(read(f->bell, &(uint64_t){0}, 8), 8);
	/* The image is sent once; on another scanout too. */
	assert_int_equal(scanout(f, 1, 1, 64, 48), OK);
	fake_front_drain(f);
	assert_int_equal(f->scanouts[1].image, f->scanouts[0].image);
	assert_int_equal(f->image_fds[1], -1);
	assert_int_equal(unref(f, 1), OK);
	fake_front_drain(f);
	assert_int_equal(f->scanouts[0].image, 0);
	assert_int_equal(f->scanouts[1].image, 0);
}

static void cursor(void **state)
{
	struct fake_front *f = *state;
	struct virtio_gpu_update_cursor c = {
		{.type = VIRTIO_GPU_CMD_UPDATE_CURSOR}, {0, 5, 6, 0}, 3, 1, 2, 0};
	struct journal_cursor got;
	bool fresh = false;
	uint32_t written;
	union link_msg m;

	paint(f, 8 << 20, JOURNAL_CURSOR_BYTES, 9);
	assert_int_equal(create(f, 3, BGRA, 64, 64), OK);
	assert_int_equal(attach(f, 3, 8 << 20, JOURNAL_CURSOR_BYTES), OK);
	assert_int_equal(transfer(f, 3, 64, 64), OK);
	fake_ring_offer(f, CURSOR, &c, sizeof(c), 0);
	fake_ring_kick(f, CURSOR);
	assert_true(fake_ring_next(f, CURSOR, 5000, &written) >= 0);
	assert_int_equal(written, 0);
	assert_true(journal_take_cursor(f->journal, &f->reader, 0, &got, &fresh));
	assert_true(fresh && got.x == 5 && got.y == 6 && got.hot_y == 2);
	assert_memory_equal(got.pixels, f->guest + (8 << 20), JOURNAL_CURSOR_BYTES);
	/* The next guest has none. */
	link_init(&m, LINK_RESET);
	fake_front_send(f, &m, NULL, 0);
	assert_true(fake_front_wait(f, LINK_DONE, &m, 5000));
	assert_true(journal_take_cursor(f->journal, &f->reader, 0, &got, &fresh));
	assert_int_equal(got.resource_id, 0);
}

static void display_queries_wait(void **state)
{
	struct fake_front *f = *state;
	const struct virtio_gpu_ctrl_hdr info = {.type = VIRTIO_GPU_CMD_GET_DISPLAY_INFO};
	const struct virtio_gpu_resp_display_info *answer;
	union link_msg m;
	uint16_t first, second;
	uint32_t written;

	f->answers_modes = false;
	first = fake_ring_offer(f, CONTROL, &info, sizeof(info), ANSWER_ROOM);
	fake_ring_kick(f, CONTROL);
	assert_true(fake_front_wait(f, LINK_MODES_WANTED, &m, 5000));
	/* What comes behind it does not wait, and another query does for an answer of its own. */
	assert_int_equal(create(f, 1, BGRX, 8, 8), OK);
	second = fake_ring_offer(f, CONTROL, &info, sizeof(info), ANSWER_ROOM);
	fake_ring_kick(f, CONTROL);
	assert_int_equal(fake_ring_next(f, CONTROL, 100, &written), -1);
	f->answers_modes = true;
	link_init(&m, LINK_MODES);
	m.modes.modes[0] = (struct link_mode){0, 0, 800, 600};
	fake_front_send(f, &m, NULL, 0);
	assert_int_equal(fake_ring_next(f, CONTROL, 5000, &written), first);
	assert_int_equal(written, sizeof(*answer));
	answer = fake_answer(f, CONTROL, first);
	assert_int_equal(answer->hdr.type, VIRTIO_GPU_RESP_OK_DISPLAY_INFO);
	assert_int_equal(answer->pmodes[0].r.width, 800);
	assert_int_equal(answer->pmodes[1].enabled, 0);
	assert_int_equal(fake_ring_next(f, CONTROL, 5000, &written), second);
	answer = fake_answer(f, CONTROL, second);
	assert_int_equal(answer->pmodes[0].r.width, 1024);
	assert_int_equal(f->n_modes_wanted, 2);
	/* When the ring is stopped it is answered with what is known. */
	f->answers_modes = false;
	first = fake_ring_offer(f, CONTROL, &info, sizeof(info), ANSWER_ROOM);
	fake_ring_kick(f, CONTROL);
	assert_true(fake_front_wait(f, LINK_MODES_WANTED, &m, 5000));
	assert_int_equal(fake_ring_stop(f, CONTROL), f->rings[CONTROL].offered);
	assert_int_equal(fake_ring_next(f, CONTROL, 5000, &written), first);
}

static void batches(void **state)
{
	struct fake_front *f = *state;
	struct virtio_gpu_resource_unref c = {
		{.type = VIRTIO_GPU_CMD_RESOURCE_UNREF, .flags = VIRTIO_GPU_FLAG_FENCE}, 77, 0};
	uint64_t calls = 0;
	uint32_t written;

	_unused_ ssize_t n = read(f->rings[CONTROL].call, &calls, 8);
	for (uint32_t i = 0; i < RING_HEADS; i++) {
		c.hdr.fence_id = i;
		fake_ring_offer(f, CONTROL, &c, sizeof(c), ANSWER_ROOM);
	}
	/* The driver wants to hear of the last one only. */
	fake_ring_avail(f, CONTROL)[2 + RING_SIZE] =
		(uint16_t)(f->rings[CONTROL].seen + RING_HEADS - 1);
	fake_ring_kick(f, CONTROL);
	for (uint32_t i = 0; i < RING_HEADS; i++) {
		int head = fake_ring_next(f, CONTROL, 5000, &written);
		const struct virtio_gpu_ctrl_hdr *a = fake_answer(f, CONTROL, (uint16_t)head);

		assert_true(head >= 0);
		assert_int_equal(a->type, BAD_RESOURCE);
		assert_int_equal(a->fence_id, i);
	}
}

static void over_the_limit(void **state)
{
	struct fake_front *f = *state;
	union link_msg m;

	assert_int_equal(create(f, 1, BGRX, 4096, 4097), NO_MEMORY);
	assert_int_equal(create(f, 1, BGRX, 4000, 4000), OK);
	assert_int_equal(create(f, 2, BGRX, 4000, 4000), NO_MEMORY);
	link_init(&m, LINK_PING);
	m.ping.seq = 9;
	fake_front_send(f, &m, NULL, 0);
	assert_true(fake_front_wait(f, LINK_PONG, &m, 5000));
	assert_int_equal(m.pong.seq, 9);
	assert_int_equal(m.pong.bytes, 4000 * 4000 * 4);
	assert_int_equal(m.pong.bytes_max, 64 << 20);
	assert_int_equal(m.pong.resources, 1);
	assert_int_equal(m.pong.commands, 3);
	assert_int_equal(m.pong.errors, 2);
	assert_int_equal(unref(f, 1), OK);
	assert_int_equal(create(f, 2, BGRX, 4000, 4000), OK);
}

static void broken_rings(void **state)
{
	struct fake_front *f = *state;
	const struct virtio_gpu_ctrl_hdr info = {.type = VIRTIO_GPU_CMD_GET_DISPLAY_INFO};
	const struct virtio_gpu_update_cursor move = {
		{.type = VIRTIO_GPU_CMD_MOVE_CURSOR}, {0, 1, 1, 0}, 0, 0, 0, 0};
	uint32_t written;
	union link_msg m;
	uint64_t n;

	assert_int_equal(create(f, 1, BGRX, 8, 8), OK);
	for (int round = 0; round < 4; round++) {
		fake_ring_offer(f, CONTROL, &info, sizeof(info), ANSWER_ROOM);
		if (round == 0) {
			fake_ring_avail(f, CONTROL)[1] = (uint16_t)(f->rings[CONTROL].offered - 9);
		} else if (round == 1) {
			fake_ring_avail(
				f, CONTROL)[2 + (f->rings[CONTROL].offered - 1) % RING_SIZE] =
				RING_SIZE;
		} else if (round == 2) {
			/* A head that is not given back yet. */
			f->answers_modes = false;
			fake_ring_kick(f, CONTROL);
			assert_true(fake_front_wait(f, LINK_MODES_WANTED, &m, 5000));
			fake_ring_avail(f, CONTROL)[2 + f->rings[CONTROL].offered % RING_SIZE] = 0;
			fake_ring_avail(f, CONTROL)[1] = (uint16_t)(f->rings[CONTROL].offered + 1);
		} else {
			memset(fake_ring_desc(f, CONTROL, 0), 0xff, 16);
		}
		fake_ring_kick(f, CONTROL);
		assert_true(fake_front_wait(f, LINK_BROKEN, &m, 5000));
		assert_int_equal(m.broken.queue, CONTROL);
		assert_int_equal(read(f->rings[CONTROL].err, &n, 8), 8);
		/* The other queue goes on. */
		fake_ring_offer(f, CURSOR, &move, sizeof(move), 24);
		fake_ring_kick(f, CURSOR);
		assert_true(fake_ring_next(f, CURSOR, 5000, &written) >= 0);
		/* And this one, when the driver has reset it. */
		f->answers_modes = true;
		fake_ring_reset(f, CONTROL);
		assert_int_equal(create(f, 1, BGRX, 8, 8), BAD_RESOURCE);
	}
	assert_true(fake_front_alive(f));
}

static void stop_and_go(void **state)
{
	struct fake_front *f = *state;
	union link_msg m;
	uint32_t written;
	uint16_t head;

	assert_int_equal(create(f, 1, BGRX, 8, 8), OK);
	assert_int_equal(fake_ring_stop(f, CONTROL), 1);
	head = fake_ring_offer(f, CONTROL,
		&(struct virtio_gpu_resource_unref){{.type = VIRTIO_GPU_CMD_RESOURCE_UNREF}, 1, 0},
		sizeof(struct virtio_gpu_resource_unref), ANSWER_ROOM);
	fake_ring_kick(f, CONTROL);
	assert_int_equal(fake_ring_next(f, CONTROL, 100, &written), -1);
	/* A pause of the VM: it goes on where it was, with the resource that was there. */
	f->rings[CONTROL].run++;
	f->rings[CONTROL].offered--;
	fake_ring_start(f, CONTROL);
	f->rings[CONTROL].offered++;
	assert_int_equal(fake_ring_next(f, CONTROL, 5000, &written), head);
	assert_int_equal(
		((const struct virtio_gpu_ctrl_hdr *)fake_answer(f, CONTROL, head))->type, OK);
	/* A reset of the device leaves nothing. */
	assert_int_equal(create(f, 1, BGRX, 8, 8), OK);
	assert_int_equal(scanout(f, 0, 1, 8, 8), OK);
	link_init(&m, LINK_RESET);
	fake_front_send(f, &m, NULL, 0);
	assert_true(fake_front_wait(f, LINK_DONE, &m, 5000));
	assert_int_equal(m.done.type, LINK_RESET);
	assert_true(fake_front_wait(f, LINK_IMAGE_GONE, &m, 5000));
	assert_int_equal(m.image_gone.image, 0);
	assert_int_equal(create(f, 1, BGRX, 8, 8), OK);
	/* Not enabled: nothing is taken. */
	link_init(&m, LINK_ENABLE);
	m.enable.queue = CONTROL;
	fake_front_send(f, &m, NULL, 0);
	link_init(&m, LINK_PING);
	fake_front_send(f, &m, NULL, 0);
	assert_true(fake_front_wait(f, LINK_PONG, &m, 5000));
	fake_ring_offer(f, CONTROL,
		&(struct virtio_gpu_ctrl_hdr){.type = VIRTIO_GPU_CMD_GET_DISPLAY_INFO}, 24, 24);
	fake_ring_kick(f, CONTROL);
	assert_int_equal(fake_ring_next(f, CONTROL, 100, &written), -1);
	link_init(&m, LINK_ENABLE);
	m.enable.queue = CONTROL;
	m.enable.enabled = 1;
	fake_front_send(f, &m, NULL, 0);
	assert_true(fake_ring_next(f, CONTROL, 5000, &written) >= 0);
}

static void new_memory_table(void **state)
{
	struct fake_front *f = *state;
	union link_msg m;
	_cleanup_close_ int not_memory = open("/dev/null", O_RDWR | O_CLOEXEC);

	paint(f, 8 << 20, 4096, 3);
	assert_int_equal(create(f, 1, BGRX, 32, 32), OK);
	assert_int_equal(attach(f, 1, 8 << 20, 4096), OK);
	assert_int_equal(scanout(f, 0, 1, 32, 32), OK);
	for (int i = 0; i < 20; i++) {
		assert_int_equal(fake_front_memory(f), 0);
		paint(f, 8 << 20, 4096, (uint8_t)i);
		assert_int_equal(transfer(f, 1, 32, 32), OK);
		check_image(f, 0, 8 << 20, 4096);
	}
	/* One that can't be: the old one stays. */
	link_init(&m, LINK_MEMORY);
	m.memory.n_regions = 1;
	m.memory.generation = 99;
	fake_front_send(f, &m, NULL, 0);
	link_init(&m, LINK_REGION);
	m.region.size = 4096;
	fake_front_send(f, &m, &not_memory, 1);
	assert_true(fake_front_wait(f, LINK_DONE, &m, 5000));
	assert_int_equal(m.done.generation, 99);
	assert_true(m.done.error < 0);
	assert_int_equal(transfer(f, 1, 32, 32), OK);
	/* None at all: the rings are gone with it, and come back. */
	link_init(&m, LINK_MEMORY);
	fake_front_send(f, &m, NULL, 0);
	assert_true(fake_front_wait(f, LINK_DONE, &m, 5000));
	assert_int_equal(m.done.error, 0);
	assert_true(fake_front_wait(f, LINK_BROKEN, &m, 5000));
	assert_int_equal(fake_front_memory(f), 0);
	fake_ring_reset(f, CONTROL);
	/* Its backing was no longer in memory in between. */
	assert_int_equal(transfer(f, 1, 32, 32), VIRTIO_GPU_RESP_ERR_UNSPEC);
	assert_int_equal(attach(f, 1, 8 << 20, 4096), OK);
	assert_int_equal(transfer(f, 1, 32, 32), OK);
}

static void truncated_memory(void **state)
{
	struct fake_front *f = *state;
	union link_msg m;

	assert_int_equal(create(f, 1, BGRX, 1024, 1024), OK);
	assert_int_equal(attach(f, 1, GUEST_SECOND, 4 << 20), OK);
	assert_int_equal(transfer(f, 1, 1024, 1024), OK);
	assert_int_equal(ftruncate(f->memory_fd, GUEST_REGION + 4096), 0);
	/* The copy ends, and its answer comes or the ring breaks; the process lives. */
	transfer(f, 1, 1024, 1024);
	fake_front_drain(f);
	if (!f->broken[CONTROL].header.type) {
		assert_true(fake_front_wait(f, LINK_BROKEN, &m, 5000));
	}
	assert_string_equal(f->broken[CONTROL].reason, "guest memory was truncated");
	assert_true(fake_front_alive(f));
	/* A VMM that gives memory again gets its GPU again. */
	assert_int_equal(ftruncate(f->memory_fd, 2 * GUEST_REGION), 0);
	assert_int_equal(fake_front_memory(f), 0);
	fake_ring_reset(f, CONTROL);
	assert_int_equal(unref(f, 1), OK);
}

static void bad_messages(void **state)
{
	static const uint8_t nonsense[] = {1, 0, 0, 0, 8, 0, 0, 0};
	struct fake_front *f = *state;
	union link_msg m;

	for (int i = 0; i < 5; i++) {
		struct pollfd p = {.fd = f->link, .events = POLLIN};

		link_init(&m, i == 1 ? LINK_SETUP : LINK_REGION);
		if (i == 0) {
			assert_int_equal(fd_send(f->link, nonsense, 8, NULL, 0), 0);
		} else if (i == 1) {
			m.setup.version = LINK_VERSION;
			m.setup.n_scanouts = 1;
			fake_front_send(f, &m, (int[]){f->journal_fd, f->bell}, 2);
		} else if (i == 2) {
			m.region.size = 4096; /* of no table */
			fake_front_send(f, &m, &f->memory_fd, 1);
		} else if (i == 3) {
			link_init(&m, LINK_MEMORY);
			m.memory.n_regions = 1;
			fake_front_send(f, &m, NULL, 0);
			fake_front_send(f, &m, NULL, 0);
		} else {
			fake_front_send(f, &m, NULL, 0); /* no fd */
		}
		while (poll(&p, 1, 5000) == 1 && !(p.revents & POLLHUP)) {
			fake_front_drain(f);
		}
		assert_true(p.revents & POLLHUP);
		fake_front_kill(f);
		fake_front_start(f, "64M");
	}
	assert_int_equal(create(f, 1, BGRX, 8, 8), OK);
}

/* A front that doesn't read, and a guest that shows ever new images: what the front hears in the
 * end is the newest, and every image that it was given is gone by one message or another. */
static void front_that_does_not_read(void **state)
{
	struct fake_front *f = *state;
	union link_msg m;

	f->deaf = true;
	for (uint32_t i = 0; i < 4000; i++) {
		uint32_t id = 1 + i % 50;

		if (i >= 50) {
			assert_int_equal(unref(f, id), OK);
		}
		assert_int_equal(create(f, id, BGRX, 8 + i % 100, 8), OK);
		assert_int_equal(scanout(f, i % 2, id, 8 + i % 100, 8), OK);
	}
	f->deaf = false;
	link_init(&m, LINK_PING);
	m.ping.seq = 5;
	fake_front_send(f, &m, NULL, 0);
	assert_true(fake_front_wait(f, LINK_PONG, &m, 5000));
	assert_int_equal(m.pong.resources, 50);
	assert_int_equal(f->scanouts[0].width, 8 + 3998 % 100);
	assert_int_equal(f->scanouts[1].width, 8 + 3999 % 100);
	assert_in_range(f->n_images, 10, 3999);
	assert_true(f->n_gone_all > 0 || f->n_gone >= f->n_images - 50);
	assert_true(fake_front_alive(f));
}

static int count_fds(const struct fake_front *f)
{
	char path[64];
	int n = 0;

	for (int fd = 0; fd < 4096; fd++) {
		snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)f->pid, fd);
		n += faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
	}
	return n;
}

static void leaks_nothing(void **state)
{
	struct fake_front *f = *state;
	int before;

	/* By then it has taken all that it was sent. */
	assert_int_equal(unref(f, 1), BAD_RESOURCE);
	before = count_fds(f);
	for (int i = 0; i < 200; i++) {
		assert_int_equal(create(f, 1, BGRX, 64, 64), OK);
		assert_int_equal(attach(f, 1, 8 << 20, 64 * 64 * 4), OK);
		assert_int_equal(scanout(f, 0, 1, 64, 64), OK);
		assert_int_equal(flush(f, 1, 64, 64), OK);
		assert_int_equal(unref(f, 1), OK);
		if (i % 10 == 0) {
			assert_int_equal(fake_front_memory(f), 0);
			fake_ring_stop(f, CONTROL);
			fake_ring_reset(f, CONTROL);
		}
	}
	assert_int_equal(create(f, 1, BGRX, 64, 64), OK);
	assert_int_equal(unref(f, 1), OK);
	assert_true(before > 5);
	assert_int_equal(count_fds(f), before);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(shows_a_picture),
		TEST(cursor),
		TEST(display_queries_wait),
		TEST(batches),
		TEST(over_the_limit),
		TEST(broken_rings),
		TEST(stop_and_go),
		TEST(new_memory_table),
		TEST(truncated_memory),
		TEST(bad_messages),
		TEST(front_that_does_not_read),
		TEST(leaks_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
