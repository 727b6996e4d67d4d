/* SPDX-License-Identifier: MIT
 * The front alone: what it tells each renderer, what it makes the VMM wait for, pictures and modes
 * for its parent, and renderers that mean harm.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "tests/gpu/bare-front.h"
#include "tests/unit/test.h"

#define SIDE 64

static void done(struct bare_front *b, uint32_t type, uint64_t generation, int error)
{
	union link_msg m;

	link_init(&m, LINK_DONE);
	m.done.type = type;
	m.done.generation = generation;
	m.done.error = error;
	bare_send(b, &m, -1);
}

static void check_start(struct bare_front *b, uint32_t queue, struct link_start *out)
{
	union link_msg m;

	assert_int_equal(bare_expect(b, LINK_START, &m), 2);
	assert_int_equal(m.start.queue, queue);
	assert_int_equal(m.start.size, BARE_RING);
	assert_int_equal(m.start.next_avail, 7);
	assert_int_equal(m.start.fds, LINK_HAS_KICK | LINK_HAS_CALL);
	assert_int_equal(m.start.desc, sim_memory_user(&b->vmm.memory, 0x10000 * (queue + 1)));
	*out = m.start;
}

/* Everything that the VMM said before there was a renderer, and again to the next one. */
static void tells_everything(void **state)
{
	struct bare_front *b = *state;
	struct link_start first[2], again[2];
	struct link_setup setup;
	struct parent_msg lost;

	bare_ring(b, 0);
	bare_ring(b, 1);
	bare_renderer(b);
	assert_int_equal(b->setup.flags, 0);
	assert_int_equal(b->n_regions, 2);
	assert_int_equal(b->regions[1].guest, SIM_HIGH);
	assert_int_equal(b->regions[1].offset, b->regions[0].size);
	check_start(b, 0, &first[0]);
	check_start(b, 1, &first[1]);
	assert_int_not_equal(first[0].run, first[1].run);
	bare_expect_nothing(b, 50);
	setup = b->setup;
	b->link = safe_close(b->link);
	assert_int_equal(bare_hear(b, PARENT_RENDERER_LOST, &lost), -1);
	assert_true(bare_serves(b));
	bare_renderer(b);
	assert_int_equal(b->setup.flags, LINK_SETUP_RECOVER);
	assert_memory_equal(b->setup.uuid_seed, setup.uuid_seed, sizeof(setup.uuid_seed));
	check_start(b, 0, &again[0]);
	check_start(b, 1, &again[1]);
	assert_memory_equal(first, again, sizeof(first));
}

/* The control queue waits for the display's features, the cursor's doesn't. */
static void display_first(void **state)
{
	struct bare_front *b = *state;
	struct link_start start;
	union link_msg m;

	bare_renderer(b);
	bare_screen(b);
	bare_ring(b, 0);
	bare_ring(b, 1);
	/* It runs from its kick on; the rest comes behind. */
	assert_int_equal(bare_expect(b, LINK_START, &m), 1);
	assert_int_equal(m.start.queue, 1);
	assert_int_equal(bare_expect(b, LINK_CALL, &m), 1);
	assert_int_equal(bare_expect(b, LINK_ENABLE, &m), 0);
	bare_expect_nothing(b, 50);
	for (int i = 0; i < 20 && b->screen.n_messages[DISPLAY_SET_PROTOCOL_FEATURES] == 0; i++) {
		assert_true(sim_screen_read(&b->screen));
		usleep(5000);
	}
	check_start(b, 0, &start);
}

/* Memory is acknowledged when the renderer has let go of the old: not before, and by the next
 * renderer if this one dies meanwhile. */
static void memory_waits(void **state)
{
	struct bare_front *b = *state;
	const int fds[2] = {b->vmm.memory.fd, b->vmm.memory.fd};
	struct vhost_user_memory table;
	struct parent_msg lost;
	uint64_t answer, generation;
	union link_msg m;

	bare_renderer(b);
	generation = b->memory.generation;
	sim_memory_table(&b->vmm.memory, &table);
	for (int round = 0; round < 3; round++) {
		assert_int_equal(sim_vmm_send(&b->vmm, VHOST_USER_SET_MEM_TABLE,
					 VHOST_USER_NEED_REPLY, &table, sizeof(table), fds, 2),
			0);
		assert_int_equal(bare_expect(b, LINK_MEMORY, &m), 0);
		assert_true(m.memory.generation > generation);
		generation = m.memory.generation;
		bare_expect(b, LINK_REGION, &m);
		bare_expect(b, LINK_REGION, &m);
		done(b, LINK_MEMORY, generation - 1, 0); /* of the one before */
		usleep(50000);
		assert_int_equal(recv(b->vhost, &answer, 1, MSG_DONTWAIT | MSG_PEEK), -1);
		if (round == 2) {
			b->link = safe_close(b->link);
			assert_int_equal(bare_hear(b, PARENT_RENDERER_LOST, &lost), -1);
			bare_renderer(b);
			assert_int_equal(b->memory.generation, generation);
		}
		done(b, LINK_MEMORY, generation, round == 1 ? -ENOMEM : 0);
		assert_int_equal(sim_vmm_reply(&b->vmm, VHOST_USER_SET_MEM_TABLE, &answer, 8), 0);
		assert_int_equal(answer, round == 1 ? 1 : 0);
	}
}

/* So is the end of a ring. */
static void stop_waits(void **state)
{
	struct bare_front *b = *state;
	const struct vhost_user_vring_state queue = {0, 0};
	struct vhost_user_vring_state state_out;
	struct link_start start;
	struct parent_msg lost;
	union link_msg m;

	bare_ring(b, 0);
	bare_renderer(b);
	check_start(b, 0, &start);
	assert_int_equal(
		sim_vmm_send(&b->vmm, VHOST_USER_GET_VRING_BASE, 0, &queue, sizeof(queue), NULL, 0),
		0);
	assert_int_equal(bare_expect(b, LINK_STOP, &m), 0);
	b->link = safe_close(b->link);
	assert_int_equal(bare_hear(b, PARENT_RENDERER_LOST, &lost), -1);
	bare_renderer(b);
	check_start(b, 0, &start);
	assert_int_equal(bare_expect(b, LINK_STOP, &m), 0);
	link_init(&m, LINK_STOPPED);
	m.stopped.next_avail = 4711;
	bare_send(b, &m, -1);
	assert_int_equal(sim_vmm_reply(&b->vmm, VHOST_USER_GET_VRING_BASE, &state_out, 8), 0);
	assert_int_equal(state_out.num, 4711);
}

/* The VMM waits for its device to be reset, and the renderer knows of it. */
static void ask_for_reset(struct bare_front *b)
{
	union link_msg m;

	bare_renderer(b);
	assert_int_equal(sim_vmm_send(&b->vmm, VHOST_USER_RESET_DEVICE, VHOST_USER_NEED_REPLY, NULL,
				 0, NULL, 0),
		0);
	assert_int_equal(bare_expect(b, LINK_RESET, &m), 0);
}

static void end_reset(struct bare_front *b)
{
	uint64_t answer;

	done(b, LINK_RESET, 0, 0);
	assert_int_equal(sim_vmm_reply(&b->vmm, VHOST_USER_RESET_DEVICE, &answer, 8), 0);
	assert_int_equal(answer, 0);
}

/* A renderer that doesn't answer what the VMM waits for is given up. */
static void hangs(void **state)
{
	struct bare_front *b = *state;
	union link_msg m;

	ask_for_reset(b);
	bare_expect_lost(b);
	bare_renderer(b);
	assert_int_equal(bare_expect(b, LINK_RESET, &m), 0);
	end_reset(b);
}

/* On a host that does not run the front in time the renderer gets more time, too. */
static void hangs_on_a_busy_host(void **state)
{
	struct bare_front *b = *state;

	ask_for_reset(b);
	for (int i = 0; i < 6; i++) {
		assert_int_equal(kill(b->pid, SIGSTOP), 0);
		usleep(550000);
		assert_int_equal(kill(b->pid, SIGCONT), 0);
		usleep(20000);
	}
	end_reset(b);
}

static void damage(struct bare_front *b, uint32_t x, uint32_t y, uint32_t w, uint32_t h)
{
	const struct journal_damage d = {.scanout = 0, .x = x, .y = y, .width = w, .height = h};
	const uint64_t one = 1;

	if (journal_put_damage(b->journal, &d)) {
		assert_int_equal(write(b->bell, &one, sizeof(one)), sizeof(one));
	}
}

static void check_pixels(const struct bare_front *b, const uint32_t *map)
{
	assert_int_equal(b->screen.scanouts[0].width, SIDE);
	assert_memory_equal(b->screen.scanouts[0].pixels, map, SIDE * SIDE * 4);
}

/* From the renderer's image to the display; and on from there without it. */
static void pictures(void **state)
{
	struct bare_front *b = *state;
	uint32_t *map, *other;
	struct parent_msg lost;
	int fd = bare_image(SIDE, &map), fd2 = bare_image(SIDE, &other);

	bare_renderer(b);
	bare_screen(b);
	bare_show(b, 1, SIDE, fd);
	bare_look(b, 0, 1);
	check_pixels(b, map);
	for (uint64_t i = 2; i < 50; i++) {
		map[i * SIDE + i] = 0x1000000 + (uint32_t)i;
		damage(b, (uint32_t)i, (uint32_t)i, 1, 1);
		bare_look(b, 0, i);
		check_pixels(b, map);
	}
	assert_int_equal(b->screen.scanouts[0].last.width, 1);
	/* A dead renderer's picture stays, and the next one may use its number for another. */
	b->link = safe_close(b->link);
	assert_int_equal(bare_hear(b, PARENT_RENDERER_LOST, &lost), -1);
	bare_screen(b);
	bare_look(b, 0, 1);
	check_pixels(b, map);
	bare_renderer(b);
	other[0] = 0xabcdef;
	bare_show(b, 1, SIDE, fd2);
	bare_look(b, 0, 2);
	check_pixels(b, other);
	munmap(map, SIDE * SIDE * 4);
	munmap(other, SIDE * SIDE * 4);
	safe_close(fd);
	safe_close(fd2);
}

static void screenshot(void **state)
{
	struct bare_front *b = *state;
	const struct parent_msg ask = {.type = PARENT_SCREENSHOT, .seq = 5};
	const struct parent_msg dark = {.type = PARENT_SCREENSHOT, .scanout = 3, .seq = 6};
	struct parent_msg m;
	uint32_t *map, pixels[40 * 30];
	union link_msg show;
	struct stat st;
	int fd = bare_image(SIDE, &map), shot;

	bare_renderer(b);
	bare_scanout(&show, 9, SIDE);
	show.scanout.x = 10;
	show.scanout.y = 20;
	show.scanout.scanout_width = 40;
	show.scanout.scanout_height = 30;
	bare_send(b, &show, fd);
	/* No VMM is needed for it. */
	for (int i = 0; i < 50; i++) {
		bare_ask(b, &ask);
		shot = bare_hear(b, PARENT_PICTURE, &m);
		if (m.error == 0) {
			break;
		}
		usleep(10000);
	}
	assert_int_equal(m.error, 0);
	assert_int_equal(m.seq, 5);
	assert_int_equal(m.width, 40);
	assert_int_equal(m.height, 30);
	assert_int_equal(fstat(shot, &st), 0);
	assert_int_equal(st.st_size, sizeof(pixels));
	assert_int_equal(pread(shot, pixels, sizeof(pixels), 0), sizeof(pixels));
	for (uint32_t y = 0; y < 30; y++) {
		assert_memory_equal(pixels + 40 * y, map + (size_t)(20 + y) * SIDE + 10, 40 * 4);
	}
	safe_close(shot);
	bare_ask(b, &dark);
	assert_int_equal(bare_hear(b, PARENT_PICTURE, &m), -1);
	assert_int_equal(m.error, -ENOENT);
	assert_int_equal(m.seq, 6);
	munmap(map, SIDE * SIDE * 4);
	safe_close(fd);
}

static void set_display(void **state)
{
	struct bare_front *b = *state;
	const struct parent_msg mode = {.type = PARENT_DISPLAY, .width = 1024, .height = 768};
	const struct parent_msg own = {.type = PARENT_DISPLAY};
	const uint32_t widths[] = {640, 1024, 640};
	union link_msg m;

	bare_renderer(b);
	bare_screen(b);
	for (size_t i = 0; i < 3; i++) {
		if (i > 0) {
			bare_ask(b, i == 1 ? &mode : &own);
			usleep(50000); /* another socket: no order between them */
		}
		link_init(&m, LINK_MODES_WANTED);
		bare_send(b, &m, -1);
		for (int k = 0; k < 50 && b->screen.n_messages[DISPLAY_GET_DISPLAY_INFO] <= i;
			k++) {
			assert_true(sim_screen_read(&b->screen));
			usleep(5000);
		}
		assert_int_equal(bare_expect(b, LINK_MODES, &m), 0);
		assert_int_equal(m.modes.modes[0].width, widths[i]);
		assert_int_equal(m.modes.modes[1].width, 0);
	}
}

/* Each is given up with nothing left behind; the VMM goes on, with the next one. */
static void harmful(void **state)
{
	struct bare_front *b = *state;
	uint32_t *map;
	int good = bare_image(SIDE, &map), unsealed = memfd_create("image", MFD_CLOEXEC);
	unsigned int fds = 0;
	union link_msg m;

	assert_int_equal(ftruncate(unsealed, SIDE * SIDE * 4), 0);
	for (int i = 0; i < 14; i++) {
		int fd = good;

		if (i < 2) {
			bare_plug(b);
		} else {
			bare_renderer(b);
		}
		bare_scanout(&m, 1, SIDE);
		switch (i) {
		case 0:
			break; /* before it is ready */
		case 1:
			link_init(&m, LINK_READY);
			m.ready.version = LINK_VERSION + 1;
			fd = -1;
			break;
		case 2:
			link_init(&m, LINK_READY); /* a second one */
			m.ready.version = LINK_VERSION;
			fd = -1;
			break;
		case 3:
			m.scanout.height = m.scanout.scanout_height =
				SIDE + 1; /* beyond the file */
			break;
		case 4:
			m.scanout.width = m.scanout.height = 16385;
			break;
		case 5:
			fd = unsealed;
			break;
		case 6:
			fd = -1; /* an image that the front does not have */
			m.scanout.fds = 0;
			break;
		case 7:
			fd = b->bell;
			break;
		case 8:
			m.scanout.x = UINT32_MAX;
			break;
		case 9:
			m.scanout.scanout = LINK_SCANOUTS;
			break;
		case 10:
			m.header.size--;
			break;
		case 11:
			link_init(&m, LINK_STOPPED); /* that nobody asked for */
			fd = -1;
			break;
		case 12:
			link_init(&m, LINK_BROKEN);
			memset(m.broken.reason, 'a', sizeof(m.broken.reason));
			fd = -1;
			break;
		default:
			link_init(&m, LINK_STOP); /* the other direction */
			fd = -1;
		}
		bare_send(b, &m, fd);
		bare_expect_lost(b);
		assert_true(bare_serves(b));
		fds = i == 4 ? bare_fds(b) : fds;
		assert_true(i <= 4 || bare_fds(b) == fds);
	}
	munmap(map, SIDE * SIDE * 4);
	safe_close(good);
	safe_close(unsealed);
}

static uint32_t extreme(unsigned int *seed)
{
	switch (rand_r(seed) % 4) {
	case 0:
		return UINT32_MAX - (uint32_t)rand_r(seed) % 3;
	case 1:
		return (uint32_t)rand_r(seed);
	default:
		return (uint32_t)rand_r(seed) % (2 * SIDE);
	}
}

/* Damage that lies anywhere: what is within is shown, and nothing beyond. */
static void harmful_damage(void **state)
{
	struct bare_front *b = *state;
	unsigned int seed = 1;
	uint32_t *map;
	int fd = bare_image(SIDE, &map);

	bare_renderer(b);
	bare_screen(b);
	bare_show(b, 1, SIDE, fd);
	bare_look(b, 0, 1);
	for (unsigned int i = 0; i < 3000; i++) {
		uint32_t x = extreme(&seed), y = extreme(&seed);

		map[rand_r(&seed) % (SIDE * SIDE)] = i;
		damage(b, x, y, extreme(&seed), extreme(&seed));
		assert_true(sim_screen_read(&b->screen));
		assert_string_equal(b->screen.wrong, "");
	}
	damage(b, 0, 0, UINT32_MAX, UINT32_MAX);
	for (int i = 0; i < 100; i++) {
		assert_true(sim_screen_read(&b->screen));
		usleep(2000);
	}
	check_pixels(b, map);
	munmap(map, SIDE * SIDE * 4);
	safe_close(fd);
}

/* Random words all over what is shown in the journal: it goes on showing what is shown. */
static void harmful_journal(void **state)
{
	struct bare_front *b = *state;
	const uint64_t one = 1;
	uint32_t *map, *words;
	unsigned int seed = 1;
	int fd = bare_image(SIDE, &map);

	bare_renderer(b);
	bare_screen(b);
	bare_show(b, 1, SIDE, fd);
	bare_look(b, 0, 1);
	words = (uint32_t *)b->journal;
	for (unsigned int i = 0; i < 3000; i++) {
		for (int k = 0; k < 20; k++) {
			size_t n = i % 2 ? (size_t)rand_r(&seed) % 64
					 : (size_t)rand_r(&seed) %
						   (offsetof(struct journal, done) / 4);

			words[n] = rand_r(&seed) % 2 ? (uint32_t)rand_r(&seed)
						     : (uint32_t)rand_r(&seed) % 80;
		}
		assert_int_equal(write(b->bell, &one, sizeof(one)), sizeof(one));
		if (i % 16 == 0) {
			assert_true(sim_screen_read(&b->screen));
			assert_string_equal(b->screen.wrong, "");
		}
	}
	assert_true(bare_serves(b));
	/* What the display was shown last is right all the same. */
	map[0] = 0xfedcba;
	__atomic_store_n(&b->journal->front_sleeps, 0, __ATOMIC_SEQ_CST);
	b->journal->damage_lost++;
	assert_int_equal(write(b->bell, &one, sizeof(one)), sizeof(one));
	for (int i = 0; i < 100 && b->screen.scanouts[0].pixels[0] != 0xfedcba; i++) {
		assert_true(sim_screen_read(&b->screen));
		usleep(5000);
	}
	check_pixels(b, map);
	munmap(map, SIDE * SIDE * 4);
	safe_close(fd);
}

/* A bell that has been made to block, and is emptied under the front's nose, holds up nobody. */
static void harmful_bell(void **state)
{
	struct bare_front *b = *state;
	uint64_t n, before;
	const uint64_t one = 1;

	bare_renderer(b);
	assert_int_equal(fd_set_nonblock(b->bell, false), 0);
	for (int i = 0; i < 2000; i++) {
		assert_int_equal(write(b->bell, &one, sizeof(one)), sizeof(one));
		assert_int_equal(fd_set_nonblock(b->bell, true), 0);
		_unused_ ssize_t got = read(b->bell, &n, sizeof(n));
		assert_int_equal(fd_set_nonblock(b->bell, false), 0);
		if (i % 100 == 0) {
			assert_true(bare_serves(b));
		}
	}
	assert_true(bare_serves(b));
	/* Nor does one that stays full cost anything. */
	assert_int_equal(write(b->bell, &one, sizeof(one)), sizeof(one));
	usleep(50000);
	before = bare_cpu_ms(b);
	usleep(500000);
	assert_true(bare_cpu_ms(b) - before < 100);
}

static void ends(void **state)
{
	struct bare_front *b = *state;

	bare_renderer(b);
	b->vhost = safe_close(b->vhost);
	b->vmm.fd = -1;
	assert_int_equal(bare_exit_code(b), 0);
}

static void ends_with_its_parent(void **state)
{
	struct bare_front *b = *state;

	bare_renderer(b);
	b->control = safe_close(b->control);
	assert_int_equal(bare_exit_code(b), 1);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, bare_set_up, bare_tear_down)
	const struct CMUnitTest tests[] = {
		TEST(tells_everything),
		TEST(display_first),
		TEST(memory_waits),
		TEST(stop_waits),
		TEST(hangs),
		TEST(hangs_on_a_busy_host),
		TEST(pictures),
		TEST(screenshot),
		TEST(set_display),
		TEST(harmful),
		TEST(harmful_damage),
		TEST(harmful_journal),
		TEST(harmful_bell),
		TEST(ends),
		TEST(ends_with_its_parent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
