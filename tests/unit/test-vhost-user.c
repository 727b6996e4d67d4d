/* SPDX-License-Identifier: MIT
 * The decoder of a VMM's vhost-user messages: each request, each wrong size, number of fds and
 * count, and random bytes.
 */
#include "protocol/vhost-user.h"

#include <stdlib.h>
#include <string.h>

#include "tests/unit/test.h"

/* By the specification, docs/interop/vhost-user.rst: the size that a good one has, and its fds. */
static const struct {
	uint32_t request;
	uint32_t size;
	size_t fds_min, fds_max;
} requests[] = {
	{VHOST_USER_GET_FEATURES, 0, 0, 0},
	{VHOST_USER_SET_FEATURES, 8, 0, 0},
	{VHOST_USER_SET_OWNER, 0, 0, 0},
	{VHOST_USER_RESET_OWNER, 0, 0, 0},
	{VHOST_USER_SET_VRING_NUM, 8, 0, 0},
	{VHOST_USER_SET_VRING_ADDR, 40, 0, 0},
	{VHOST_USER_SET_VRING_BASE, 8, 0, 0},
	{VHOST_USER_GET_VRING_BASE, 8, 0, 0},
	{VHOST_USER_SET_VRING_KICK, 8, 1, 1},
	{VHOST_USER_SET_VRING_CALL, 8, 1, 1},
	{VHOST_USER_SET_VRING_ERR, 8, 1, 1},
	{VHOST_USER_GET_PROTOCOL_FEATURES, 0, 0, 0},
	{VHOST_USER_SET_PROTOCOL_FEATURES, 8, 0, 0},
	{VHOST_USER_GET_QUEUE_NUM, 0, 0, 0},
	{VHOST_USER_SET_VRING_ENABLE, 8, 0, 0},
	{VHOST_USER_GPU_SET_SOCKET, 0, 1, 1},
	{VHOST_USER_GPU_SET_SOCKET, 8, 1, 1},
	{VHOST_USER_RESET_DEVICE, 0, 0, 0},
	{VHOST_USER_GET_MAX_MEM_SLOTS, 0, 0, 0},
	{VHOST_USER_ADD_MEM_REG, 40, 1, 1},
	{VHOST_USER_REM_MEM_REG, 40, 0, 1},
};

static const char *decode(struct vhost_user_msg *out, uint32_t request, uint32_t flags,
	const void *payload, uint32_t size, size_t n_fds)
{
	const struct vhost_user_header h = {request, flags, size};
	/* Exactly as large, so that reading beyond it is found. */
	void *exact = malloc(size ? size : 1);
	const char *why;

	if (payload) {
		memcpy(exact, payload, size);
	} else {
		memset(exact, 0, size);
	}
	why = vhost_user_decode(&h, exact, n_fds, out);
	free(exact);
	return why;
}

static void sizes_and_fds(void **state)
{
	struct vhost_user_msg m;

	for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
		const uint32_t request = requests[i].request, size = requests[i].size;

		for (size_t fds = 0; fds <= VHOST_USER_FDS_MAX; fds++) {
			bool good = fds >= requests[i].fds_min && fds <= requests[i].fds_max;

			assert_true(
				!decode(&m, request, VHOST_USER_VERSION, NULL, size, fds) == good);
			assert_true(!good || m.header.request == request);
		}
		assert_non_null(decode(
			&m, request, VHOST_USER_VERSION, NULL, size + 9, requests[i].fds_min));
		if (size > 8) {
			assert_non_null(decode(&m, request, VHOST_USER_VERSION, NULL, size - 1,
				requests[i].fds_min));
		}
		assert_string_not_equal(vhost_user_name(request), "unknown");
	}
}

static void headers(void **state)
{
	struct vhost_user_header h = {VHOST_USER_GET_FEATURES, VHOST_USER_VERSION, 0};

	assert_null(vhost_user_check_header(&h));
	h.flags = VHOST_USER_VERSION | VHOST_USER_NEED_REPLY;
	assert_null(vhost_user_check_header(&h));
	h.flags = VHOST_USER_VERSION | VHOST_USER_REPLY;
	assert_non_null(vhost_user_check_header(&h));
	for (uint32_t version = 0; version < 4; version++) {
		h.flags = version;
		assert_true(!vhost_user_check_header(&h) == (version == VHOST_USER_VERSION));
	}
	h = (struct vhost_user_header){VHOST_USER_SET_MEM_TABLE, VHOST_USER_VERSION, UINT32_MAX};
	assert_non_null(vhost_user_check_header(&h));
	/* Whatever was not offered: logging, migration, inflight, post-copy, none at all. */
	for (uint32_t request = 0; request < 64; request++) {
		bool known = request == VHOST_USER_SET_MEM_TABLE ||
			     request == VHOST_USER_GET_CONFIG || request == VHOST_USER_SET_CONFIG;

		for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
			known = known || requests[i].request == request;
		}
		assert_true(known == (strcmp(vhost_user_name(request), "unknown") != 0));
		h = (struct vhost_user_header){request, VHOST_USER_VERSION, 8};
		if (!known) {
			assert_non_null(vhost_user_check_header(&h));
		}
	}
	h.request = UINT32_MAX;
	assert_non_null(vhost_user_check_header(&h));
	assert_string_equal(vhost_user_name(UINT32_MAX), "unknown");
}

static void memory(void **state)
{
	struct vhost_user_memory table = {0};
	struct vhost_user_msg m;

	table.regions[7].size = 4096;
	for (uint32_t n = 0; n <= VHOST_USER_REGIONS_MAX; n++) {
		uint32_t size = 8 + 32 * n;

		table.n_regions = n;
		for (size_t fds = 0; fds <= VHOST_USER_FDS_MAX; fds++) {
			assert_true(!decode(&m, VHOST_USER_SET_MEM_TABLE, VHOST_USER_VERSION,
					    &table, size, fds) == (fds == n));
		}
		/* More than it says is what QEMU sends; less is not. */
		assert_null(decode(&m, VHOST_USER_SET_MEM_TABLE, VHOST_USER_VERSION, &table,
			sizeof(table), n));
		assert_int_equal(m.memory.regions[7].size, 4096);
		if (n > 0) {
			assert_non_null(decode(&m, VHOST_USER_SET_MEM_TABLE, VHOST_USER_VERSION,
				&table, size - 1, n));
		}
	}
	for (size_t fds = 0; fds <= VHOST_USER_FDS_MAX; fds++) {
		static const uint32_t counts[] = {9, 1000000000, 0x08000000, UINT32_MAX};

		for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
			table.n_regions = counts[i];
			assert_non_null(decode(&m, VHOST_USER_SET_MEM_TABLE, VHOST_USER_VERSION,
				&table, sizeof(table), fds));
		}
	}
}

static void queue_fds(void **state)
{
	static const uint32_t kinds[] = {
		VHOST_USER_SET_VRING_KICK, VHOST_USER_SET_VRING_CALL, VHOST_USER_SET_VRING_ERR};
	const uint64_t with = 1, without = 1 | VHOST_USER_VRING_NO_FD;
	struct vhost_user_msg m;

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		assert_null(decode(&m, kinds[i], VHOST_USER_VERSION, &with, 8, 1));
		assert_non_null(decode(&m, kinds[i], VHOST_USER_VERSION, &with, 8, 0));
		assert_null(decode(&m, kinds[i], VHOST_USER_VERSION, &without, 8, 0));
		assert_non_null(decode(&m, kinds[i], VHOST_USER_VERSION, &without, 8, 1));
	}
}

static void config(void **state)
{
	static const struct {
		uint32_t offset, size, payload;
		bool good;
	} cases[] = {
		{0, 24, 24, true},
		{0, 256, 256, true},
		{256, 0, 0, true},
		{232, 24, 24, true},
		{0, 0, 0, true},
		{0, 24, 23, false},
		{0, 24, 25, false},
		{0, 257, 256, false},
		{233, 24, 24, false},
		{257, 0, 0, false},
		{UINT32_MAX, 1, 1, false},
		{1, UINT32_MAX, 256, false},
		{UINT32_MAX - 23, 24, 24, false},
	};
	struct vhost_user_msg m;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct vhost_user_config c = {
			.offset = cases[i].offset, .size = cases[i].size};

		assert_true(!decode(&m, VHOST_USER_GET_CONFIG, VHOST_USER_VERSION, &c,
				    12 + cases[i].payload, 0) == cases[i].good);
		assert_true(!decode(&m, VHOST_USER_SET_CONFIG, VHOST_USER_VERSION, &c,
				    12 + cases[i].payload, 0) == cases[i].good);
	}
}

/* What is decoded keeps what the handlers rely on. */
static void random_bytes(void **state)
{
	unsigned int seed = 1, good = 0;

	for (unsigned int i = 0; i < 300000; i++) {
		const struct vhost_user_header h = {(uint32_t)rand_r(&seed) % 40,
			rand_r(&seed) % 4 ? VHOST_USER_VERSION : (uint32_t)rand_r(&seed) % 16,
			(uint32_t)rand_r(&seed) % (VHOST_USER_PAYLOAD_MAX + 1)};
		size_t fds = (size_t)rand_r(&seed) % (VHOST_USER_FDS_MAX + 1);
		uint8_t payload[VHOST_USER_PAYLOAD_MAX];
		struct vhost_user_msg m;

		for (size_t k = 0; k < h.size; k++) {
			payload[k] = rand_r(&seed) % 2 ? 0 : (uint8_t)(rand_r(&seed) % 16);
		}
		if (decode(&m, h.request, h.flags, payload, h.size, fds)) {
			continue;
		}
		good++;
		if (h.request == VHOST_USER_SET_MEM_TABLE) {
			assert_true(m.memory.n_regions == fds && 8 + 32 * fds <= h.size);
		} else if (h.request == VHOST_USER_GET_CONFIG) {
			assert_true(m.config.offset + m.config.size <= VHOST_USER_CONFIG_MAX);
		}
	}
	assert_true(good > 100);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes_and_fds),
		cmocka_unit_test(headers),
		cmocka_unit_test(memory),
		cmocka_unit_test(queue_fds),
		cmocka_unit_test(config),
		cmocka_unit_test(random_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
