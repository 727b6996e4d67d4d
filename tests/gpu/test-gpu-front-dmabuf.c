/* SPDX-License-Identifier: MIT
 * The front and DMABUFs, with the test as its renderer, its VMM and its parent: what a renderer
 * that means harm sends in their place, and what becomes of good ones. Those need a DRM device,
 * which tests/e2e/test_gpu_node.py has; without one these tests are skipped.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/fd.h"
#include "tests/gpu/bare-front.h"
#include "tests/gpu/real-dmabuf.h"
#include "tests/unit/test.h"

#define SIDE 64
#define XR24 0x34325258

static void send2(struct bare_front *b, const union link_msg *m, int image, int dmabuf)
{
	const int fds[] = {image, dmabuf};

	assert_int_equal(link_send(b->link, m, fds, 2), 0);
}

/* SCANOUT of an image with its DMABUF. */
static void dmabuf_scanout(union link_msg *m, uint32_t image, uint32_t stride)
{
	bare_scanout(m, image, SIDE);
	m->scanout.fds |= LINK_HAS_DMABUF;
	m->scanout.from_dmabuf = 1;
	m->scanout.fourcc = XR24;
	m->scanout.stride = stride;
}

/* Waits for LINK_DMABUFS; which. */
static uint32_t expect_dmabufs(struct bare_front *b)
{
	union link_msg m;

	for (int i = 0; i < 100 && b->screen.n_messages[DISPLAY_SET_PROTOCOL_FEATURES] == 0; i++) {
		usleep(10000);
		assert_true(sim_screen_read(&b->screen));
	}
	assert_int_equal(bare_expect(b, LINK_DMABUFS, &m), 0);
	return m.dmabufs.which;
}

static void connect_screen(struct bare_front *b, uint64_t offers)
{
	b->screen.offers = offers;
	b->screen.n_messages[DISPLAY_SET_PROTOCOL_FEATURES] = 0;
	bare_screen(b);
}

/* The renderer hears what the display takes; the next one at once. */
static void negotiated(void **state)
{
	struct bare_front *b = *state;

	bare_renderer(b);
	assert_int_equal(b->setup.dmabufs, LINK_DMABUFS_NONE);
	connect_screen(b, 3);
	assert_int_equal(expect_dmabufs(b), LINK_DMABUFS_ALL);
	assert_int_equal(b->screen.backend_features, 1 << DISPLAY_F_DMABUF2);
	connect_screen(b, 1);
	assert_int_equal(expect_dmabufs(b), LINK_DMABUFS_PLAIN);
	assert_int_equal(b->screen.backend_features, 0);
	bare_renderer(b);
	assert_int_equal(b->setup.dmabufs, LINK_DMABUFS_PLAIN);
}

/* What is no DMABUF, or can't be one of that picture: the renderer is given up, the VMM sees
 * nothing, and no fd stays. */
static void harmful(void **state)
{
	struct bare_front *b = *state;
	uint32_t *map;
	int image = bare_image(SIDE, &map), pipes[2], pair[2];
	unsigned int fds = 0;

	assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	for (int i = 0; i < 9; i++) {
		union link_msg m;
		int bad = image;

		bare_renderer(b);
		if (i == 0) {
			connect_screen(b, 3);
			assert_int_equal(expect_dmabufs(b), LINK_DMABUFS_ALL);
		}
		dmabuf_scanout(&m, 1, SIDE * 4);
		switch (i) {
		case 0:
			break; /* a memfd of the right size */
		case 1:
			bad = pipes[0];
			break;
		case 2:
			bad = pipes[1];
			break;
		case 3:
			bad = pair[0];
			break;
		case 4:
			bad = b->bell;
			break;
		case 5:
			m.scanout.fourcc = 0;
			break;
		case 6:
			m.scanout.stride = SIDE * 4 - 1;
			break;
		case 7:
			m.scanout.flags = 0xff;
			break;
		default:
			/* One that it has not sent. */
			m.scanout.fds = LINK_HAS_IMAGE;
			bad = -1;
		}
		if (bad >= 0) {
			send2(b, &m, image, bad);
		} else {
			bare_send(b, &m, image);
		}
		bare_expect_lost(b);
		assert_true(bare_serves(b));
		assert_true(sim_screen_read(&b->screen));
		assert_int_equal(b->screen.n_messages[DISPLAY_DMABUF_SCANOUT2], 0);
		fds = i == 1 ? bare_fds(b) : fds;
		assert_true(i <= 1 || bare_fds(b) == fds);
	}
	munmap(map, SIDE * SIDE * 4);
	safe_close(image);
	safe_close(pipes[0]);
	safe_close(pipes[1]);
	safe_close(pair[0]);
	safe_close(pair[1]);
}

/* A renderer and a display, and a DMABUF for it; false: there is no device for that. */
static bool prepare(struct bare_front *b, struct real_dmabuf *real)
{
	int r = real_dmabuf_create(SIDE, SIDE, real);

	if (r == -ENODEV) {
		return false;
	}
	assert_int_equal(r, 0);
	bare_renderer(b);
	connect_screen(b, 3);
	assert_int_equal(expect_dmabufs(b), LINK_DMABUFS_ALL);
	return true;
}

static void check_shown(struct bare_front *b, const struct real_dmabuf *real)
{
	const struct sim_scanout *o = &b->screen.scanouts[0];
	struct stat sent, got;

	assert_true(o->dmabuf_fd >= 0);
	assert_int_equal(fstat(real->fd, &sent), 0);
	assert_int_equal(fstat(o->dmabuf_fd, &got), 0);
	assert_int_equal(got.st_dev, sent.st_dev);
	assert_int_equal(got.st_ino, sent.st_ino);
	assert_int_equal(o->dmabuf.dmabuf.stride, real->stride);
	assert_int_equal(o->dmabuf.dmabuf.fourcc, XR24);
}

static void damage(struct bare_front *b, uint32_t x, uint32_t width)
{
	const struct journal_damage d = {.x = x, .width = width, .height = SIDE};
	const uint64_t one = 1;

	if (journal_put_damage(b->journal, &d)) {
		assert_int_equal(write(b->bell, &one, sizeof(one)), sizeof(one));
	}
}

static void shown(void **state)
{
	struct bare_front *b = *state;
	struct real_dmabuf real;
	union link_msg m;
	uint32_t *map;
	int image = bare_image(SIDE, &map);
	unsigned int fds;

	if (!prepare(b, &real)) {
		skip();
	}
	dmabuf_scanout(&m, 1, real.stride);
	send2(b, &m, image, real.fd);
	bare_look(b, 0, 1);
	check_shown(b, &real);
	assert_int_equal(b->screen.n_messages[DISPLAY_UPDATE], 0);
	fds = bare_fds(b);
	/* The same one again, without its fd; and then a hundred damages while the VMM draws. */
	bare_scanout(&m, 1, SIDE);
	m.scanout.from_dmabuf = 1;
	m.scanout.fds = 0;
	bare_send(b, &m, -1);
	bare_look(b, 0, 2);
	b->screen.never_draws = true;
	for (uint32_t i = 0; i < 50; i++) {
		damage(b, i % SIDE, 1);
		usleep(2000);
	}
	bare_look(b, 0, 3);
	assert_int_equal(b->screen.scanouts[0].n_updates, 3);
	assert_int_equal(b->screen.n_messages[DISPLAY_DMABUF_SCANOUT2], 1);
	/* Another display: everything anew, though the renderer is gone. */
	b->link = safe_close(b->link);
	b->screen.never_draws = false;
	connect_screen(b, 3);
	bare_look(b, 0, 1);
	check_shown(b, &real);
	assert_true(bare_fds(b) <= fds);
	munmap(map, SIDE * SIDE * 4);
	safe_close(image);
	safe_close(real.fd);
}

/* Pixels behind one that is too small, in the file's size or in what is said of it. */
static void too_small(void **state)
{
	struct bare_front *b = *state;
	struct real_dmabuf real, small;
	union link_msg m;
	uint32_t *map;
	int image = bare_image(SIDE, &map);

	if (!prepare(b, &real)) {
		skip();
	}
	assert_int_equal(real_dmabuf_create(16, 16, &small), 0);
	dmabuf_scanout(&m, 1, SIDE * 4);
	send2(b, &m, image, small.fd);
	bare_expect_lost(b);
	bare_renderer(b);
	dmabuf_scanout(&m, 1, UINT32_MAX);
	send2(b, &m, image, real.fd);
	bare_expect_lost(b);
	assert_int_equal(b->screen.n_messages[DISPLAY_DMABUF_SCANOUT2], 0);
	munmap(map, SIDE * SIDE * 4);
	safe_close(image);
	safe_close(real.fd);
	safe_close(small.fd);
}

static uint64_t expect_read_back(struct bare_front *b)
{
	union link_msg m;

	assert_int_equal(bare_expect(b, LINK_READ_BACK, &m), 0);
	assert_int_equal(m.read_back.scanout, 0);
	return m.read_back.seq;
}

static void say_read(struct bare_front *b, uint32_t image, uint64_t seq)
{
	union link_msg m;

	link_init(&m, LINK_READ_DONE);
	m.read_back.image = image;
	m.read_back.seq = seq;
	bare_send(b, &m, -1);
}

/* The front has no pixels of it: its renderer is asked, and again if another one is shown by then.
 */
static void screenshot(void **state)
{
	struct bare_front *b = *state;
	const struct parent_msg ask = {.type = PARENT_SCREENSHOT, .seq = 5};
	const struct parent_msg next = {.type = PARENT_SCREENSHOT, .seq = 6};
	struct real_dmabuf real, other;
	struct parent_msg m;
	union link_msg show;
	uint32_t *map, *map2, got;
	int image = bare_image(SIDE, &map), image2 = bare_image(SIDE, &map2), shot;
	uint64_t seq;

	if (!prepare(b, &real)) {
		skip();
	}
	assert_int_equal(real_dmabuf_create(SIDE, SIDE, &other), 0);
	dmabuf_scanout(&show, 1, real.stride);
	send2(b, &show, image, real.fd);
	bare_look(b, 0, 1);
	bare_ask(b, &ask);
	seq = expect_read_back(b);
	map[9] = 0x99;
	say_read(b, 1, seq);
	shot = bare_hear(b, PARENT_PICTURE, &m);
	assert_int_equal(m.error, 0);
	assert_int_equal(m.seq, 5);
	assert_int_equal(pread(shot, &got, 4, 9 * 4), 4);
	assert_int_equal(got, 0x99);
	safe_close(shot);
	/* A flip meanwhile. */
	bare_ask(b, &next);
	seq = expect_read_back(b);
	dmabuf_scanout(&show, 2, other.stride);
	send2(b, &show, image2, other.fd);
	say_read(b, 1, seq);
	assert_true(expect_read_back(b) > seq);
	map2[9] = 0x77;
	say_read(b, 2, seq + 1);
	shot = bare_hear(b, PARENT_PICTURE, &m);
	assert_int_equal(m.seq, 6);
	assert_int_equal(pread(shot, &got, 4, 9 * 4), 4);
	assert_int_equal(got, 0x77);
	safe_close(shot);
	/* Nobody is there who could. */
	bare_ask(b, &ask);
	expect_read_back(b);
	b->link = safe_close(b->link);
	assert_int_equal(bare_hear(b, PARENT_PICTURE, &m), -1);
	assert_int_equal(m.error, -EAGAIN);
	assert_int_equal(bare_hear(b, PARENT_RENDERER_LOST, &m), -1);
	bare_ask(b, &next);
	assert_int_equal(bare_hear(b, PARENT_PICTURE, &m), -1);
	assert_int_equal(m.error, -EAGAIN);
	munmap(map, SIDE * SIDE * 4);
	munmap(map2, SIDE * SIDE * 4);
	safe_close(image);
	safe_close(image2);
	safe_close(real.fd);
	safe_close(other.fd);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, bare_set_up_dmabuf, bare_tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(negotiated),
		TEST(harmful),
		TEST(shown),
		TEST(too_small),
		TEST(screenshot),
	};

	return cmocka_run_group_tests_name("gpu-front-dmabuf", tests, NULL, NULL);
}
