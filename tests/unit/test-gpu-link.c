/* SPDX-License-Identifier: MIT
 * The link's decoder: each message, each wrong size, direction, number of fds and field; and
 * messages with fds over a socket.
 */
#include "gpu/link.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "tests/unit/test.h"

static const struct {
	enum link_type type;
	enum link_direction direction;
	size_t fds_min, fds_max;
} types[] = {
	{LINK_SETUP, LINK_TO_RENDERER, 2, 2},
	{LINK_MEMORY, LINK_TO_RENDERER, 0, 0},
	{LINK_REGION, LINK_TO_RENDERER, 1, 1},
	{LINK_START, LINK_TO_RENDERER, 0, 0},
	{LINK_CALL, LINK_TO_RENDERER, 0, 1},
	{LINK_ERR, LINK_TO_RENDERER, 0, 1},
	{LINK_ENABLE, LINK_TO_RENDERER, 0, 0},
	{LINK_STOP, LINK_TO_RENDERER, 0, 0},
	{LINK_MODES, LINK_TO_RENDERER, 0, 0},
	{LINK_RESET, LINK_TO_RENDERER, 0, 0},
	{LINK_PING, LINK_TO_RENDERER, 0, 0},
	{LINK_READY, LINK_TO_FRONT, 0, 0},
	{LINK_DONE, LINK_TO_FRONT, 0, 0},
	{LINK_STOPPED, LINK_TO_FRONT, 0, 0},
	{LINK_BROKEN, LINK_TO_FRONT, 0, 0},
	{LINK_MODES_WANTED, LINK_TO_FRONT, 0, 0},
	{LINK_SCANOUT, LINK_TO_FRONT, 0, 0},
	{LINK_IMAGE_GONE, LINK_TO_FRONT, 0, 0},
	{LINK_PONG, LINK_TO_FRONT, 0, 0},
	{LINK_DMABUFS, LINK_TO_RENDERER, 0, 0},
	{LINK_READ_BACK, LINK_TO_RENDERER, 0, 0},
	{LINK_READ_DONE, LINK_TO_FRONT, 0, 0},
};

static size_t good(union link_msg *m, enum link_type type)
{
	size_t size = link_init(m, type);

	if (type == LINK_SETUP) {
		m->setup.version = LINK_VERSION;
		m->setup.n_scanouts = LINK_SCANOUTS;
	} else if (type == LINK_READY) {
		m->ready.version = LINK_VERSION;
	} else if (type == LINK_START) {
		m->start.run = 1;
	} else if (type == LINK_DONE) {
		m->done.type = LINK_MEMORY;
	}
	return size;
}

static void shapes(void **state)
{
	union link_msg m, out;

	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		size_t size = good(&m, types[i].type);
		enum link_direction other =
			types[i].direction == LINK_TO_FRONT ? LINK_TO_RENDERER : LINK_TO_FRONT;

		for (size_t n = 0; n <= LINK_FDS_MAX; n++) {
			int want = n >= types[i].fds_min && n <= types[i].fds_max ? 0 : -EBADMSG;

			/* START and SCANOUT say themselves how many: none. */
			assert_int_equal(link_decode(types[i].direction, &m, size, n, &out), want);
		}
		for (size_t s = 0; s < sizeof(m) + 8; s++) {
			uint8_t bytes[sizeof(m) + 8] = {0};

			memcpy(bytes, &m, size);
			if (s != size) {
				assert_int_equal(link_decode(types[i].direction, bytes, s,
							 types[i].fds_min, &out),
					-EBADMSG);
			}
		}
		assert_int_equal(link_decode(other, &m, size, types[i].fds_min, &out), -EBADMSG);
		m.header.size++;
		assert_int_equal(link_decode(types[i].direction, &m, size, types[i].fds_min, &out),
			-EBADMSG);
	}
	memset(&m, 0, sizeof(m));
	m.header.size = 8;
	assert_int_equal(link_decode(LINK_TO_FRONT, &m, 8, 0, &out), -EBADMSG);
}

/* Sets one field of a good message and says whether it is still one. */
#define FIELD(type_, n_fds, field, value, ok)                                                  \
	do {                                                                                   \
		good(&m, type_);                                                               \
		m.field = value;                                                               \
		assert_int_equal(                                                              \
			link_decode(type_ < LINK_READY ? LINK_TO_RENDERER : LINK_TO_FRONT, &m, \
				m.header.size, n_fds, &out),                                   \
			ok ? 0 : -EBADMSG);                                                    \
	} while (0)

static void fields(void **state)
{
	union link_msg m, out;
	size_t size;

	FIELD(LINK_SETUP, 2, setup.version, LINK_VERSION + 1, false);
	FIELD(LINK_SETUP, 2, setup.n_scanouts, 0, false);
	FIELD(LINK_SETUP, 2, setup.n_scanouts, LINK_SCANOUTS + 1, false);
	FIELD(LINK_SETUP, 2, setup.flags, LINK_SETUP_RECOVER, true);
	FIELD(LINK_SETUP, 2, setup.flags, LINK_SETUP_NO_3D, true);
	FIELD(LINK_SETUP, 2, setup.flags, 4, false);
	FIELD(LINK_ALLOW, 0, allow.allowed, 1, true);
	FIELD(LINK_ALLOW, 0, allow.allowed, 2, false);
	FIELD(LINK_READY, 0, ready.renderer[0], 'x', true);
	FIELD(LINK_READY, 0, ready.renderer[0], '\n', false);
	FIELD(LINK_MEMORY, 0, memory.n_regions, LINK_REGIONS_MAX, true);
	FIELD(LINK_MEMORY, 0, memory.n_regions, LINK_REGIONS_MAX + 1, false);
	FIELD(LINK_START, 0, start.queue, LINK_QUEUES, false);
	FIELD(LINK_START, 0, start.next_avail, 0x10000, false);
	FIELD(LINK_START, 0, start.enabled, 2, false);
	FIELD(LINK_START, 0, start.run, 0, false);
	FIELD(LINK_START, 0, start.fds, LINK_HAS_KICK, false);
	FIELD(LINK_START, 1, start.fds, LINK_HAS_CALL, true);
	FIELD(LINK_START, 3, start.fds, 7, true);
	FIELD(LINK_START, 3, start.fds, 8 | 3, false);
	FIELD(LINK_CALL, 1, queue.queue, LINK_QUEUES, false);
	FIELD(LINK_ENABLE, 0, enable.enabled, 2, false);
	FIELD(LINK_STOPPED, 0, stopped.next_avail, 0x10000, false);
	FIELD(LINK_STOPPED, 0, stopped.queue, LINK_QUEUES, false);
	FIELD(LINK_DONE, 0, done.error, 1, false);
	FIELD(LINK_DONE, 0, done.type, LINK_START, false);
	FIELD(LINK_BROKEN, 0, broken.reason[0], '\n', false);
	FIELD(LINK_BROKEN, 0, broken.reason[0], 'x', true);
	size = good(&m, LINK_BROKEN);
	memset(m.broken.reason, 'x', sizeof(m.broken.reason));
	assert_int_equal(link_decode(LINK_TO_FRONT, &m, size, 0, &out), -EBADMSG);
	FIELD(LINK_SCANOUT, 0, scanout.scanout, LINK_SCANOUTS, false);
	FIELD(LINK_SCANOUT, 0, scanout.damaged, 2, false);
	FIELD(LINK_SCANOUT, 0, scanout.image, 1, false);
	FIELD(LINK_SCANOUT, 0, scanout.from_dmabuf, 1, false);
	FIELD(LINK_SCANOUT, 1, scanout.fds, LINK_HAS_IMAGE, false);
	FIELD(LINK_SETUP, 2, setup.dmabufs, LINK_DMABUFS_ALL, true);
	FIELD(LINK_SETUP, 2, setup.dmabufs, LINK_DMABUFS_ALL + 1, false);
	FIELD(LINK_DMABUFS, 0, dmabufs.which, LINK_DMABUFS_PLAIN, true);
	FIELD(LINK_DMABUFS, 0, dmabufs.which, LINK_DMABUFS_ALL + 1, false);
	FIELD(LINK_READ_BACK, 0, read_back.scanout, LINK_SCANOUTS, false);
	FIELD(LINK_READ_BACK, 0, read_back.image, 1, false);
	FIELD(LINK_READ_DONE, 0, read_back.image, 1, true);
	FIELD(LINK_READ_DONE, 0, read_back.scanout, LINK_SCANOUTS, false);
}

static void scanouts(void **state)
{
	static const struct {
		uint32_t w, h, x, y, sw, sh;
		bool ok;
	} cases[] = {{10, 20, 0, 0, 10, 20, true}, {10, 20, 9, 19, 1, 1, true},
		{10, 20, 0, 0, 0, 20, false}, {10, 20, 0, 0, 10, 0, false},
		{10, 20, 10, 0, 1, 1, false}, {10, 20, 0, 0, 11, 20, false},
		{10, 20, 0, 1, 10, 20, false}, {10, 20, 1, 0, UINT32_MAX, 20, false},
		{10, 20, UINT32_MAX, 0, 2, 1, false}};
	union link_msg m, out;
	size_t size = link_init(&m, LINK_SCANOUT);

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		m.scanout.image = 1;
		m.scanout.width = cases[i].w;
		m.scanout.height = cases[i].h;
		m.scanout.x = cases[i].x;
		m.scanout.y = cases[i].y;
		m.scanout.scanout_width = cases[i].sw;
		m.scanout.scanout_height = cases[i].sh;
		m.scanout.fds = LINK_HAS_IMAGE;
		assert_int_equal(
			link_decode(LINK_TO_FRONT, &m, size, 1, &out), cases[i].ok ? 0 : -EBADMSG);
	}
	/* As many fds as it says it has, and none that there is no name for. */
	m.scanout.width = m.scanout.height = m.scanout.scanout_width = m.scanout.scanout_height = 9;
	m.scanout.x = m.scanout.y = 0;
	for (uint32_t has = 0; has < 8; has++) {
		for (uint32_t n = 0; n <= LINK_FDS_MAX; n++) {
			bool ok = has < 4 && n == (uint32_t)__builtin_popcount(has);

			m.scanout.fds = has;
			m.scanout.from_dmabuf = has & 1;
			assert_int_equal(
				link_decode(LINK_TO_FRONT, &m, size, n, &out), ok ? 0 : -EBADMSG);
		}
	}
	m.scanout.fds = 0;
	m.scanout.from_dmabuf = 2;
	assert_int_equal(link_decode(LINK_TO_FRONT, &m, size, 0, &out), -EBADMSG);
}

static int open_fds(void)
{
	int n = 0;

	for (int fd = 0; fd < 64; fd++) {
		n += fcntl(fd, F_GETFD) >= 0;
	}
	return n;
}

static void over_a_socket(void **state)
{
	union link_msg m, out;
	int pair[2], fds[LINK_FDS_MAX], before;

	assert_int_equal(
		socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
	before = open_fds();
	assert_int_equal(link_receive(pair[1], LINK_TO_RENDERER, &out, fds), -EAGAIN);
	good(&m, LINK_SETUP);
	m.setup.uuid_seed[7] = 9;
	assert_int_equal(link_send(pair[0], &m, (int[]){0, 1}, 2), 0);
	assert_int_equal(link_receive(pair[1], LINK_TO_RENDERER, &out, fds), 1);
	assert_int_equal(out.setup.uuid_seed[7], 9);
	assert_true(fds[0] >= 0 && fds[1] >= 0 && fds[2] == -1);
	close(fds[0]);
	close(fds[1]);
	/* Wrong number of fds, and far too many: all closed. */
	assert_int_equal(link_send(pair[0], &m, (int[]){0}, 1), 0);
	assert_int_equal(link_receive(pair[1], LINK_TO_RENDERER, &out, fds), -EBADMSG);
	assert_int_equal(link_send(pair[0], &m, (int[]){0, 1, 2, 0}, 4), 0);
	assert_int_equal(link_receive(pair[1], LINK_TO_RENDERER, &out, fds), -EMSGSIZE);
	assert_int_equal(fds[0], -1);
	assert_int_equal(open_fds(), before);
	close(pair[0]);
	assert_int_equal(link_receive(pair[1], LINK_TO_RENDERER, &out, fds), 0);
	close(pair[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shapes),
		cmocka_unit_test(fields),
		cmocka_unit_test(scanouts),
		cmocka_unit_test(over_a_socket),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
