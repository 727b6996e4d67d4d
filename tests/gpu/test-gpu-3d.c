/* SPDX-License-Identifier: MIT
 * A guest that draws in 3D, in front of the real renderer: a recorded stream gives the picture that
 * it gave live, 3D resources are shown, whatever is asked wrongly gets its error and leaves nothing
 * behind, and what a killed renderer had is lost honestly while the rest goes on.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "gpu/submit-check.h"
#include "tests/gpu/gpu-case.h"
#include "tests/gpu/sim-3d.h"
#include "tests/unit/test.h"

#define BGRX     VIRTIO_GPU_FORMAT_B8G8R8X8_UNORM
#define RGBA     VIRTIO_GPU_FORMAT_R8G8B8A8_UNORM
#define COMMANDS 0x1000000u /* in the guest's memory: streams */
#define PLAY     0x1400000u
#define PLAY_END 0x2000000u
#define CAPSET_2 1376
/* In the recording: behind the request that draws first. */
#define FIRST_STREAM_END 13937

/* Of a clear, in a sub-context of its own, of a texture that is attached. */
#define CLEAR_DWORDS 25
static void make_clear(uint32_t dwords[CLEAR_DWORDS], uint32_t texture, float red)
{
	const uint32_t words[CLEAR_DWORDS] = {
		29 | 1 << 16, 1,                              /* CREATE_SUB_CTX */
		28 | 1 << 16, 1,                              /* SET_SUB_CTX */
		1 | 8 << 8 | 5 << 16, 1, texture, RGBA, 0, 0, /* CREATE_OBJECT: a surface */
		5 | 3 << 16, 1, 0, 1,                         /* SET_FRAMEBUFFER_STATE */
		7 | 8 << 16, 4, 0, 0, 0, 0, 0, 0, 0,          /* CLEAR */
		0, 0,                                         /* NOP */
	};

	memcpy(dwords, words, sizeof(words));
	memcpy(&dwords[16], &red, sizeof(red));
}

static const struct virtio_gpu_box whole_box = {0, 0, 0, CASE_WIDTH, CASE_HEIGHT, 1};

static void offers(void **state)
{
	struct gpu_case *c = *state;
	struct virtio_gpu_config config;
	const struct virtio_gpu_get_capset get = {{.type = VIRTIO_GPU_CMD_GET_CAPSET}, 2, 2};
	const uint8_t *answer;
	uint32_t written, bits, megabytes;
	int head;

	assert_true(c->sim.vmm.acked & UINT64_C(1) << VIRTIO_GPU_F_VIRGL);
	assert_int_equal(sim_vmm_config(&c->sim.vmm, &config), 0);
	assert_int_equal(config.num_capsets, 2);
	head = sim_offer(&c->sim, SIM_CONTROL, &get, sizeof(get), SIM_SLOT - SIM_ANSWER_AT);
	sim_ring_kick(&c->sim.rings[SIM_CONTROL]);
	assert_int_equal(sim_take(&c->sim, SIM_CONTROL, 5000, &written), head);
	assert_int_equal(written, sizeof(struct virtio_gpu_ctrl_hdr) + CAPSET_2);
	answer = sim_answer(&c->sim, SIM_CONTROL, head);
	answer += sizeof(struct virtio_gpu_ctrl_hdr);
	memcpy(&bits, answer + 688, 4);
	memcpy(&megabytes, answer + 692, 4);
	assert_int_equal(bits & 12, 4); /* its own budget, and nothing of the host's memory */
	assert_int_equal(megabytes, 512);
}

static void play(struct gpu_case *c, struct sim_play *p, uint32_t context, bool fenced)
{
	p->context = context;
	p->fenced = fenced;
	p->from = PLAY;
	p->to = PLAY_END;
	if (!sim_play(p, &c->sim)) {
		fail_msg("%s", p->wrong);
	}
	assert_int_equal(p->read_backs, 31);
	assert_int_equal(p->hash, 0x03d1bc9b);
}

static void recording(void **state)
{
	struct gpu_case *c = *state;
	struct sim_play p;
	char path[4096];

	snprintf(path, sizeof(path), "%s/eglbench-30.vtest", getenv("GPU_STREAMS"));
	assert_int_equal(sim_play_load(&p, path), 0);
	play(c, &p, 1, false);
	assert_true(sim_play_end(&p, &c->sim));
	play(c, &p, 1, true);
	assert_true(sim_play_end(&p, &c->sim));
	sim_play_finish(&p);
}

static void fill_texture(struct gpu_case *c, uint32_t id, uint32_t format)
{
	const struct virtio_gpu_mem_entry entry = {SIM_PIXELS, CASE_BYTES, 0};

	assert_int_equal(sim_texture(&c->sim, id, format, CASE_WIDTH, CASE_HEIGHT), CASE_OK);
	assert_int_equal(sim_attach(&c->sim, id, &entry, 1), CASE_OK);
	assert_int_equal(sim_transfer_3d(&c->sim, true, 0, id, &whole_box, 0), CASE_OK);
}

static void shown(void **state)
{
	struct gpu_case *c = *state;
	uint32_t *pixels = sim_memory_at(&c->sim.vmm.memory, SIM_PIXELS);
	uint32_t *turned = malloc(CASE_BYTES);

	case_paint(c, SIM_PIXELS, 1);
	fill_texture(c, 1, BGRX);
	assert_int_equal(sim_set_scanout(&c->sim, 0, 1, CASE_WIDTH, CASE_HEIGHT), CASE_OK);
	assert_int_equal(sim_flush(&c->sim, 1, &(struct virtio_gpu_rect){5, 5, 1, 1}), CASE_OK);
	/* X may be anything in the texture, and is all set where it is read. */
	for (uint32_t i = 0; i < CASE_WIDTH * CASE_HEIGHT; i++) {
		pixels[i] |= 0xff000000;
	}
	assert_int_equal(sim_transfer_3d(&c->sim, true, 0, 1, &whole_box, 0), CASE_OK);
	assert_int_equal(sim_flush(&c->sim, 1, &case_all), CASE_OK);
	case_check_picture(c, 0, pixels);
	/* In another order of its bytes, and in place of the first. */
	fill_texture(c, 2, RGBA);
	for (uint32_t i = 0; i < CASE_WIDTH * CASE_HEIGHT; i++) {
		turned[i] = (pixels[i] & 0xff00ff00) | (pixels[i] & 0xff) << 16 |
			    (pixels[i] >> 16 & 0xff);
	}
	assert_int_equal(sim_set_scanout(&c->sim, 0, 2, CASE_WIDTH, CASE_HEIGHT), CASE_OK);
	assert_int_equal(sim_flush(&c->sim, 2, &(struct virtio_gpu_rect){0, 0, 1, 1}), CASE_OK);
	case_check_picture(c, 0, turned);
	free(turned);
	assert_int_equal(sim_unref(&c->sim, 2), CASE_OK);
	assert_int_equal(sim_unref(&c->sim, 1), CASE_OK);
	case_check_serves(c, 1);
}

/* Each is asked wrongly, and answered so. */
static void ask_wrongly(struct gpu_case *c)
{
	struct sim *s = &c->sim;
	const uint32_t broken[] = {7 | 200 << 16, 0};
	const struct virtio_gpu_mem_entry entry = {SIM_PIXELS, 4096, 0};
	const struct virtio_gpu_box far = {UINT32_MAX, 0, 0, 2, 1, 1};

	assert_int_equal(sim_context(s, 0), CASE_BAD_CONTEXT);
	assert_int_equal(sim_context(s, 5), CASE_OK);
	assert_int_equal(sim_context(s, 5), CASE_BAD_CONTEXT);
	assert_int_equal(sim_context_end(s, 6), CASE_BAD_CONTEXT);
	assert_int_equal(sim_texture(s, 5, RGBA, 16384, 16384), CASE_NO_MEMORY);
	assert_int_equal(sim_texture(s, 6, RGBA, UINT32_MAX, UINT32_MAX), CASE_BAD_PARAMETER);
	/* More than llvmpipe has. */
	assert_int_equal(sim_texture(s, 6, RGBA, 16385, 1), CASE_BAD_PARAMETER);
	assert_int_equal(sim_texture(s, 6, 12345, 1, 1), CASE_BAD_PARAMETER);
	assert_int_equal(sim_texture(s, 0, RGBA, 1, 1), CASE_BAD_RESOURCE);
	assert_int_equal(sim_join(s, 5, 6), CASE_BAD_RESOURCE);
	assert_int_equal(sim_join(s, 6, 5), CASE_BAD_CONTEXT);
	assert_int_equal(sim_texture(s, 6, RGBA, 16, 16), CASE_OK);
	assert_int_equal(sim_transfer_3d(s, true, 5, 6, &far, 0), CASE_BAD_RESOURCE);
	assert_int_equal(sim_join(s, 5, 6), CASE_OK);
	assert_int_equal(sim_transfer_3d(s, true, 5, 6, &far, 0), CASE_UNSPEC);
	assert_int_equal(sim_attach(s, 6, &entry, 1), CASE_OK);
	assert_int_equal(sim_transfer_3d(s, true, 5, 6, &far, 0), CASE_BAD_PARAMETER);
	assert_int_equal(sim_transfer_3d(s, false, 5, 6, &(struct virtio_gpu_box){0, 0, 0, 1, 1, 1},
				 UINT64_MAX),
		CASE_BAD_PARAMETER);
	assert_int_equal(
		sim_transfer_3d(s, false, 5, 6, &(struct virtio_gpu_box){0, 0, 0, 16, 16, 1}, 4000),
		CASE_BAD_PARAMETER);
	assert_int_equal(sim_submit(s, 99, broken, 2, COMMANDS, true), CASE_BAD_CONTEXT);
	assert_int_equal(sim_submit(s, 5, broken, 2, COMMANDS, true), CASE_BAD_PARAMETER);
	assert_int_equal(sim_context_end(s, 5), CASE_OK);
	assert_int_equal(sim_unref(s, 6), CASE_OK);
	assert_int_equal(sim_unref(s, 5), CASE_OK);
	assert_int_equal(sim_unref(s, 5), CASE_BAD_RESOURCE);
}

/* 4 GiB, in descriptors of the same 16 MiB. */
static void ask_for_too_much(struct gpu_case *c)
{
	const struct virtio_gpu_cmd_submit submit = {
		{.type = VIRTIO_GPU_CMD_SUBMIT_3D, .ctx_id = 7}, 0xfffffffc, 0};
	struct sim *s = &c->sim;
	struct sim_segment segments[250];
	const struct virtio_gpu_ctrl_hdr *answer = sim_memory_at(&s->vmm.memory, COMMANDS + 4096);
	uint32_t written;

	assert_int_equal(sim_context(s, 7), CASE_OK);
	memcpy(sim_memory_at(&s->vmm.memory, COMMANDS), &submit, sizeof(submit));
	segments[0] = (struct sim_segment){COMMANDS, sizeof(submit), false};
	for (size_t i = 1; i < 249; i++) {
		segments[i] = (struct sim_segment){SIM_PIXELS, 20 << 20, false};
	}
	segments[249] = (struct sim_segment){COMMANDS + 4096, 24, true};
	assert_true(sim_ring_offer(&s->rings[SIM_CONTROL], segments, 250) >= 0);
	sim_ring_kick(&s->rings[SIM_CONTROL]);
	assert_true(sim_take(s, SIM_CONTROL, 5000, &written) >= 0);
	assert_int_equal(written, 24);
	assert_int_equal(answer->type, CASE_NO_MEMORY);
	assert_int_equal(sim_context_end(s, 7), CASE_OK);
}

/* All of the budget, and then a little more: nothing of it is still taken. */
static void use_all(struct gpu_case *c)
{
	struct sim *s = &c->sim;
	uint32_t n = 0;

	/* What the arena has got stays charged. */
	while (n < 200 && sim_texture(s, 100 + n, RGBA, 1024, 1024) == CASE_OK) {
		n++;
	}
	assert_in_range(n, 120, 128);
	for (uint32_t i = 0; i <= n; i++) {
		assert_int_equal(sim_unref(s, 100 + i), CASE_OK);
	}
}

static void wrong(void **state)
{
	struct gpu_case *c = *state;
	bool sanitized = getenv("GPU_CASE_SANITIZED") != NULL;
	uint64_t rss = 0;
	unsigned int fds = 0;

	ask_for_too_much(c);
	for (int round = 0; round < (sanitized ? 6 : 12); round++) {
		ask_wrongly(c);
		if (round == 2) {
			use_all(c);
			rss = sim_backend_rss(&c->sim.backend);
			fds = sim_backend_fds(&c->sim.backend);
		}
	}
	use_all(c);
	assert_int_equal(sim_backend_fds(&c->sim.backend), fds);
	if (!sanitized) {
		assert_true(sim_backend_rss(&c->sim.backend) < rss + (8 << 20));
	}
}

static void draw_clear(struct gpu_case *c, uint32_t context, uint32_t texture)
{
	const struct virtio_gpu_mem_entry entry = {SIM_PIXELS, CASE_BYTES, 0};
	const uint8_t *pixels = sim_memory_at(&c->sim.vmm.memory, SIM_PIXELS);
	uint32_t dwords[CLEAR_DWORDS];

	make_clear(dwords, texture, 1);
	assert_int_equal(sim_context(&c->sim, context), CASE_OK);
	assert_int_equal(sim_texture(&c->sim, texture, RGBA, CASE_WIDTH, CASE_HEIGHT), CASE_OK);
	assert_int_equal(sim_attach(&c->sim, texture, &entry, 1), CASE_OK);
	assert_int_equal(sim_join(&c->sim, context, texture), CASE_OK);
	assert_int_equal(
		sim_submit(&c->sim, context, dwords, CLEAR_DWORDS, COMMANDS, true), CASE_OK);
	assert_int_equal(sim_transfer_3d(&c->sim, false, context, texture, &whole_box, 0), CASE_OK);
	assert_memory_equal(pixels, "\xff\0\0\0", 4);
	assert_memory_equal(pixels + CASE_BYTES - 4, "\xff\0\0\0", 4);
}

/* Other contexts draw on while one may not. */
static void poisoned(void **state)
{
	struct gpu_case *c = *state;
	const uint32_t broken[] = {7 | 200 << 16, 0};
	uint32_t dwords[CLEAR_DWORDS];

	draw_clear(c, 1, 1);
	draw_clear(c, 2, 2);
	make_clear(dwords, 1, 1);
	assert_int_equal(sim_submit(&c->sim, 1, broken, 2, COMMANDS, true), CASE_BAD_PARAMETER);
	assert_int_equal(
		sim_submit(&c->sim, 1, dwords, CLEAR_DWORDS, COMMANDS, true), CASE_BAD_PARAMETER);
	make_clear(dwords, 2, 0);
	assert_int_equal(sim_submit(&c->sim, 2, dwords, CLEAR_DWORDS, COMMANDS, true), CASE_OK);
	assert_int_equal(sim_context_end(&c->sim, 1), CASE_OK);
	assert_int_equal(sim_unref(&c->sim, 1), CASE_OK);
	draw_clear(c, 1, 1);
}

static void killed(void **state)
{
	struct gpu_case *c = *state;
	const uint32_t *pixels = case_paint(c, SIM_PIXELS, 40);
	uint32_t *kept = malloc(CASE_BYTES);
	uint32_t dwords[CLEAR_DWORDS];
	pid_t old = c->renderer;

	/* A console in 2D, and two contexts at work. */
	memcpy(kept, pixels, CASE_BYTES);
	case_check_serves(c, 40);
	draw_clear(c, 1, 1);
	draw_clear(c, 2, 2);
	make_clear(dwords, 1, 0.5f);
	memcpy(sim_memory_at(&c->sim.vmm.memory, SIM_PIXELS), kept, CASE_BYTES);
	for (uint64_t i = 0; i < 8; i++) {
		assert_true(sim_offer_submit(&c->sim, 1, dwords, CLEAR_DWORDS, COMMANDS + i * 4096,
				    ++c->sim.fence) >= 0);
	}
	sim_ring_kick(&c->sim.rings[SIM_CONTROL]);
	kill(old, SIGKILL);
	/* Each is answered, whatever it is by whom. */
	for (int i = 0; i < 8; i++) {
		uint32_t written;

		assert_true(sim_take(&c->sim, SIM_CONTROL, 10000, &written) >= 0);
		assert_int_equal(written, sizeof(struct virtio_gpu_ctrl_hdr));
	}
	c->renderer = case_renderer(c, old);
	assert_true(c->renderer > 0);
	assert_int_equal(
		sim_submit(&c->sim, 1, dwords, CLEAR_DWORDS, COMMANDS, true), CASE_BAD_CONTEXT);
	assert_int_equal(sim_context(&c->sim, 1), CASE_BAD_CONTEXT);
	assert_int_equal(sim_transfer_3d(&c->sim, false, 0, 1, &whole_box, 0), CASE_BAD_RESOURCE);
	assert_int_equal(sim_texture(&c->sim, 1, RGBA, 1, 1), CASE_BAD_RESOURCE);
	/* The console is as it was. */
	assert_int_equal(sim_flush(&c->sim, 40, &case_all), CASE_OK);
	assert_int_equal(sim_transfer(&c->sim, 40, &case_all, 0), CASE_OK);
	assert_int_equal(sim_flush(&c->sim, 40, &case_all), CASE_OK);
	case_check_picture(c, 0, kept);
	/* New ones work, beside those that are lost and in their place. */
	draw_clear(c, 3, 3);
	assert_int_equal(sim_part(&c->sim, 2, 2), CASE_OK);
	assert_int_equal(sim_context_end(&c->sim, 1), CASE_OK);
	assert_int_equal(sim_context_end(&c->sim, 2), CASE_OK);
	assert_int_equal(sim_unref(&c->sim, 1), CASE_OK);
	assert_int_equal(sim_unref(&c->sim, 2), CASE_OK);
	draw_clear(c, 1, 1);
	free(kept);
}

/* The recording, but its fragments are never done, as far as a watchdog is concerned: llvmpipe
 * leaves a loop after 65535 turns, so each of them has to take long. What the loop waits for is
 * nothing that the compiler knows, and never comes: no component of IN is below 0. */
static const char endless_shader[] = "FRAG\n"
				     "DCL IN[0],GENERIC[0]\n"
				     "DCL OUT[0],COLOR\n"
				     "DCL TEMP[0..1]\n"
				     "FSLT TEMP[1].x,IN[0],-IN[0]\n"
				     "MOV TEMP[0],IN[0]\n"
				     "BGNLOOP\n"
				     "SIN TEMP[0],TEMP[0]\n"
				     "COS TEMP[0],TEMP[0]\n"
				     "UIF TEMP[1]\nBRK\nENDIF\nENDLOOP\n"
				     "MOV OUT[0],TEMP[0]\nEND";

static void make_endless(struct sim_play *p)
{
	uint8_t *text = memmem(p->bytes, p->size, "FRAG\n", 5);
	const uint32_t tokens = 300;

	assert_non_null(text);
	assert_true(strlen((const char *)text) > sizeof(endless_shader));
	memset(text, ' ', strlen((const char *)text));
	memcpy(text, endless_shader, sizeof(endless_shader) - 1);
	memcpy(text - 8, &tokens, sizeof(tokens));
}

/* Whoever draws without an end loses what it has, and nobody else anything but that renderer; the
 * VM that does it again and again has no 3D, and its console. */
static void endless(void **state)
{
	struct gpu_case *c = *state;
	struct sim_play p;
	size_t size;
	char path[4096];

	snprintf(path, sizeof(path), "%s/eglbench-30.vtest", getenv("GPU_STREAMS"));
	assert_int_equal(sim_play_load(&p, path), 0);
	size = p.size;
	make_endless(&p);
	for (uint32_t i = 1; i <= 3; i++) {
		pid_t old = c->renderer;

		/* A read-back is waited for, and the next renderer knows nothing of what it is of;
		 * a fence is what the second waits for, and is what it gets. */
		p.size = i == 2 ? FIRST_STREAM_END : size;
		p.context = i;
		p.fenced = i == 2;
		p.from = PLAY;
		p.to = PLAY_END;
		if (sim_play(&p, &c->sim) != (i == 2)) {
			fail_msg("%u: %s", i, p.wrong);
		}
		assert_true(i == 2 || strstr(p.wrong, "0x120"));
		c->renderer = case_renderer(c, old);
		assert_true(c->renderer > 0);
		for (uint32_t id = 1; id <= 2; id++) {
			assert_int_equal(sim_unref(&c->sim, id), CASE_OK);
		}
		assert_int_equal(sim_context_end(&c->sim, i), CASE_OK);
		if (i < 3) {
			draw_clear(c, 50 + i, 50 + i);
		}
	}
	assert_int_equal(sim_context(&c->sim, 9), CASE_UNSPEC);
	case_check_serves(c, 40);
	sim_play_finish(&p);
}

/* A guest that boots again finds nothing of the one before. */
static void rebooted(void **state)
{
	struct gpu_case *c = *state;
	uint32_t dwords[CLEAR_DWORDS];

	for (int round = 0; round < 3; round++) {
		draw_clear(c, 1, 1);
		make_clear(dwords, 1, 0.5f);
		assert_true(sim_offer_submit(&c->sim, 1, dwords, CLEAR_DWORDS, COMMANDS,
				    ++c->sim.fence) >= 0);
		sim_ring_kick(&c->sim.rings[SIM_CONTROL]);
		assert_int_equal(sim_reboot(&c->sim), 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(offers, case_setup_3d, case_teardown),
		cmocka_unit_test_setup_teardown(recording, case_setup_3d, case_teardown),
		cmocka_unit_test_setup_teardown(shown, case_setup_3d, case_teardown),
		cmocka_unit_test_setup_teardown(wrong, case_setup_3d, case_teardown),
		cmocka_unit_test_setup_teardown(poisoned, case_setup_3d, case_teardown),
		cmocka_unit_test_setup_teardown(killed, case_setup_3d, case_teardown),
		cmocka_unit_test_setup_teardown(endless, case_setup_hasty, case_teardown),
		cmocka_unit_test_setup_teardown(rebooted, case_setup_3d, case_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
