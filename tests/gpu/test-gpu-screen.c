/* SPDX-License-Identifier: MIT
 * Displays that mean harm: they don't read, don't answer, answer something else, send garbage, or
 * go away. The guest's queues run on at full speed, nothing spins, and the display of the next boot
 * works.
 */
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/fd.h"
#include "tests/gpu/gpu-case.h"
#include "tests/unit/test.h"

#define FRAMES 300

static const struct virtio_gpu_ctrl_hdr info = {.type = VIRTIO_GPU_CMD_GET_DISPLAY_INFO};

/* How long until display information is there, in ms; -1: it never was. */
static int64_t ask_info(struct gpu_case *c)
{
	int64_t start = now_ms();
	uint32_t r = sim_command(&c->sim, &info, sizeof(info));

	return r == VIRTIO_GPU_RESP_OK_DISPLAY_INFO ? now_ms() - start : -1;
}

/* The guest draws, whatever the display does. */
static void check_draws(struct gpu_case *c)
{
	int64_t start = now_ms();

	for (int i = 0; i < FRAMES; i++) {
		assert_int_equal(sim_transfer(&c->sim, 1, &case_all, 0), CASE_OK);
		assert_int_equal(sim_flush(&c->sim, 1, &case_all), CASE_OK);
	}
	assert_true(now_ms() - start < 5000);
}

static void check_idle(struct gpu_case *c)
{
	uint64_t before, cpu;

	nanosleep(&(struct timespec){0, 100000000}, NULL);
	before = sim_backend_cpu_ns(&c->sim.backend);
	nanosleep(&(struct timespec){0, 500000000}, NULL);
	cpu = sim_backend_cpu_ns(&c->sim.backend) - before;
	/* A hundredth of a CPU at most. */
	assert_true(cpu < 5000000);
}

static void show(struct gpu_case *c)
{
	case_paint(c, SIM_PIXELS, 5);
	assert_int_equal(sim_show(&c->sim, 1, 0, CASE_WIDTH, CASE_HEIGHT, SIM_PIXELS), 0);
}

/* The next boot brings another display, with another size. */
static void check_next_boot(struct gpu_case *c)
{
	struct sim *s = &c->sim;
	const struct virtio_gpu_resp_display_info *answer;

	s->screen_reads = true;
	s->screen.mute = false;
	s->screen.info.pmodes[0].r.width = 1024;
	s->screen.info.pmodes[0].r.height = 600;
	s->screen.wrong[0] = '\0';
	assert_int_equal(sim_reboot(s), 0);
	assert_in_range(ask_info(c), 0, 500);
	answer = sim_answer(s, SIM_CONTROL, s->rings[SIM_CONTROL].free_head);
	assert_int_equal(answer->pmodes[0].r.width, 1024);
	assert_int_equal(answer->pmodes[0].r.height, 600);
	case_check_serves(c, 1);
}

static void test_never_reads(void **state)
{
	struct gpu_case *c = *state;

	show(c);
	c->sim.screen_reads = false;
	check_draws(c);
	check_idle(c);
	/* The answer to this can't come; the guest gets one all the same. */
	assert_in_range(ask_info(c), 0, 3000);
	check_draws(c);
	check_next_boot(c);
}

static void test_never_answers(void **state)
{
	struct gpu_case *c = *state;

	show(c);
	c->sim.screen.mute = true;
	assert_in_range(ask_info(c), 0, 3000);
	/* From then on at once. */
	assert_in_range(ask_info(c), 0, 500);
	check_draws(c);
	check_idle(c);
	check_next_boot(c);
}

/* Not even its features: the control queue runs all the same. */
static void test_mute_from_the_start(void **state)
{
	struct gpu_case *c = *state;

	c->sim.screen.mute = true;
	assert_int_equal(sim_driver_ok(&c->sim, SIM_FEATURES), 0);
	assert_in_range(ask_info(c), 0, 3000);
	show(c);
	check_draws(c);
	check_next_boot(c);
}

/* No display at all, as long as no VMM has given one. */
static void test_gone(void **state)
{
	struct gpu_case *c = *state;

	show(c);
	check_draws(c);
	c->sim.screen.fd = safe_close(c->sim.screen.fd);
	check_draws(c);
	assert_in_range(ask_info(c), 0, 500);
	check_idle(c);
	check_next_boot(c);
}

static void test_half_closed(void **state)
{
	struct gpu_case *c = *state;

	show(c);
	assert_int_equal(shutdown(c->sim.screen.fd, SHUT_WR), 0);
	check_draws(c);
	assert_in_range(ask_info(c), 0, 3000);
	check_idle(c);
	check_next_boot(c);
}

/* Bytes that nobody asked for, few and many. */
static void test_garbage(void **state)
{
	static const uint8_t garbage[65536] = {1, 2, 3, 4, 0xff, 0xff, 0xff, 0xff};
	static const size_t sizes[] = {1, 12, 4096, sizeof(garbage)};
	struct gpu_case *c = *state;

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		show(c);
		assert_int_equal(sim_screen_say(&c->sim.screen, garbage, sizes[i]), 0);
		check_draws(c);
		assert_in_range(ask_info(c), 0, 3000);
		check_next_boot(c);
		assert_int_equal(sim_reboot(&c->sim), 0);
	}
	show(c);
	check_idle(c);
}

/* Answers to something else, of another size, without the flag; then garbage behind. */
static void test_wrong_answers(void **state)
{
	static const struct display_header answers[] = {
		{DISPLAY_GET_EDID, DISPLAY_REPLY, 408},
		{DISPLAY_GET_DISPLAY_INFO, 0, 408},
		{DISPLAY_GET_DISPLAY_INFO, DISPLAY_REPLY, 8},
		{DISPLAY_GET_DISPLAY_INFO, DISPLAY_REPLY, UINT32_MAX},
		{DISPLAY_GET_PROTOCOL_FEATURES, DISPLAY_REPLY, 8},
	};
	struct gpu_case *c = *state;
	struct sim *s = &c->sim;

	for (size_t i = 0; i < ARRAY_SIZE(answers); i++) {
		uint64_t asked;
		uint32_t written;
		int head;

		show(c);
		s->screen.mute = true;
		asked = s->screen.n_messages[DISPLAY_GET_DISPLAY_INFO];
		head = sim_offer(s, SIM_CONTROL, &info, sizeof(info), 1024);
		sim_ring_kick(&s->rings[SIM_CONTROL]);
		for (int k = 0; k < 100 && s->screen.n_messages[DISPLAY_GET_DISPLAY_INFO] == asked;
			k++) {
			sim_wait(s, 10);
		}
		assert_true(s->screen.n_messages[DISPLAY_GET_DISPLAY_INFO] > asked);
		assert_int_equal(sim_screen_say(&s->screen, &answers[i], sizeof(answers[i])), 0);
		/* At once: what comes is not waited for. */
		assert_int_equal(sim_take(s, SIM_CONTROL, 500, &written), head);
		check_draws(c);
		check_next_boot(c);
		assert_int_equal(sim_reboot(s), 0);
	}
}

/* Sizes that can't be are none: the scanout is off. */
static void test_absurd_sizes(void **state)
{
	struct gpu_case *c = *state;
	struct sim *s = &c->sim;
	const struct virtio_gpu_resp_display_info *answer;

	memset(&s->screen.info, 0xff, sizeof(s->screen.info));
	assert_in_range(ask_info(c), 0, 500);
	answer = sim_answer(s, SIM_CONTROL, s->rings[SIM_CONTROL].free_head);
	for (int i = 0; i < VIRTIO_GPU_MAX_SCANOUTS; i++) {
		assert_int_equal(answer->pmodes[i].enabled, 0);
		assert_int_equal(answer->pmodes[i].r.width, 0);
	}
	case_check_serves(c, 1);
}

/* Another socket again and again in the middle of the pictures: each is shown everything. */
static void test_replaced(void **state)
{
	struct gpu_case *c = *state;
	struct sim *s = &c->sim;
	unsigned int fds = 0;

	show(c);
	for (int i = 0; i < 30; i++) {
		const uint32_t *pixels = case_paint(c, SIM_PIXELS, 50 + (uint32_t)i);
		int fd;

		assert_int_equal(sim_transfer(s, 1, &case_all, 0), CASE_OK);
		assert_int_equal(sim_flush(s, 1, &case_all), CASE_OK);
		fd = sim_screen_connect(&s->screen);
		assert_true(fd >= 0);
		assert_int_equal(
			sim_vmm_send(&s->vmm, VHOST_USER_GPU_SET_SOCKET, 0, NULL, 0, &fd, 1), 0);
		safe_close(fd);
		case_check_picture(c, 0, pixels);
		assert_in_range(ask_info(c), 0, 500);
		fds = i == 2 ? sim_backend_fds(&s->backend) : fds;
	}
	assert_int_equal(sim_backend_fds(&s->backend), fds);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, case_setup, case_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_never_reads),
		TEST(test_never_answers),
		cmocka_unit_test_setup_teardown(
			test_mute_from_the_start, case_setup_connected, case_teardown),
		TEST(test_gone),
		TEST(test_half_closed),
		TEST(test_garbage),
		TEST(test_wrong_answers),
		TEST(test_absurd_sizes),
		TEST(test_replaced),
	};

	return cmocka_run_group_tests_name("gpu-screen", tests, NULL, NULL);
}
