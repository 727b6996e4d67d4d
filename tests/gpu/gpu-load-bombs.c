/* SPDX-License-Identifier: MIT
 *
 * What a guest may try against its neighbours, one round at a time. Answers are counted and never
 * an end: a guest like this goes on as long as it can.
 */
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "tests/gpu/gpu-load.h"

#define CONTEXT 7
#define FIRST   100u /* ids from here on */
#define COUNT   400u
#define RGBA    VIRTIO_GPU_FORMAT_R8G8B8A8_UNORM
#define R8      64
#define HUGE    16384u
/* In one buffer: more than a GPU's memory has room for. */
#define PROGRAMS 1000u

/* That what was promised takes memory, too: texture id as a framebuffer, cleared. */
static uint32_t fill(struct load *l, uint32_t context, uint32_t id, uint32_t format)
{
	const uint32_t stream[] = {1 | 8 << 8 | 5 << 16, id, id, format, 0, 0, /* a surface */
		5 | 3 << 16, 1, 0, id, 7 | 8 << 16, 4, id, 0, 0, 0, 0, 0, 0};

	return sim_submit(&l->sim, context, stream, ARRAY_SIZE(stream), LOAD_STREAM, true);
}

void bomb_memory(struct load *l)
{
	uint32_t n = 0;

	load_made(l, sim_context(&l->sim, CONTEXT));
	while (n < COUNT && load_goes_on(l) &&
		load_made(l, sim_texture(&l->sim, FIRST + n, RGBA, 1024, 1024))) {
		load_made(l, sim_join(&l->sim, CONTEXT, FIRST + n));
		load_made(l, fill(l, CONTEXT, FIRST + n, RGBA));
		n++;
	}
	/* As if it had got it: it is told so, and may draw nothing more. */
	load_made(l, sim_join(&l->sim, CONTEXT, FIRST + n));
	for (int i = 0; i < 3; i++) {
		l->poisoned += fill(l, CONTEXT, FIRST, RGBA) == VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY;
	}
	for (uint32_t i = 0; i <= n && load_goes_on(l); i++) {
		sim_unref(&l->sim, FIRST + i);
	}
	sim_context_end(&l->sim, CONTEXT);
	l->rounds++;
}

void bomb_contexts(struct load *l)
{
	const uint32_t another[] = {29 | 1 << 16, 1};
	uint32_t n = 0;

	while (n < COUNT && load_goes_on(l) && load_made(l, sim_context(&l->sim, FIRST + n))) {
		l->poisoned += sim_submit(&l->sim, FIRST + n, another, ARRAY_SIZE(another),
				       LOAD_STREAM, true) == VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY;
		n++;
	}
	for (uint32_t i = 0; i < n && load_goes_on(l); i++) {
		sim_context_end(&l->sim, FIRST + i);
	}
	l->rounds++;
}

void bomb_textures(struct load *l)
{
	static const struct {
		uint32_t target, format, depth, array_size, last_level, samples;
	} kinds[] = {
		{2, RGBA, 1, 1, 0, 0},
		{2, RGBA, 1, 1, 14, 0},
		{2, RGBA, 1, 1, 0, 8},
		{7, R8, 1, 16, 0, 0},
		{4, RGBA, 1, 6, 0, 0},
		{2, R8, 1, 1, 0, 0},
	};
	uint32_t context_made = sim_context(&l->sim, CONTEXT);

	for (size_t i = 0; i < ARRAY_SIZE(kinds) && load_goes_on(l); i++) {
		uint32_t id = FIRST + (uint32_t)i;

		if (load_made(l, sim_create_3d(&l->sim,
					 &(struct virtio_gpu_resource_create_3d){{0}, id,
						 kinds[i].target, kinds[i].format, 10, HUGE, HUGE,
						 kinds[i].depth, kinds[i].array_size,
						 kinds[i].last_level, kinds[i].samples, 0, 0}))) {
			load_made(l, sim_join(&l->sim, CONTEXT, id));
			load_made(l, fill(l, CONTEXT, id, kinds[i].format));
		}
		sim_unref(&l->sim, id);
	}
	if (context_made == VIRTIO_GPU_RESP_OK_NODATA) {
		sim_context_end(&l->sim, CONTEXT);
	}
	l->rounds++;
}

/* The answer to what was offered (a head, or -1), however long it takes. */
static uint32_t answer_to(struct load *l, int offered)
{
	sim_ring_kick(&l->sim.rings[SIM_CONTROL]);
	return offered < 0 ? 0 : load_answer(l, NULL);
}

/* A frame of the program beside it. */
static bool draw_beside(struct load *l, const struct sim_draw *beside)
{
	return load_made(l, answer_to(l, sim_draw_offer(&l->sim, beside, 0, 1, ++l->sim.fence)));
}

/* Each is another one, and drawn with, until there is no memory for any; in each
 * second round all in one buffer. Beside it a program that does no harm. */
void bomb_programs(struct load *l)
{
	const struct sim_draw d = {CONTEXT, FIRST, FIRST + 1, 16, 16, LOAD_DRAW};
	const struct sim_draw beside = {
		CONTEXT + 1, FIRST + 2, FIRST + 3, 16, 16, LOAD_DRAW + SIM_DRAW_BYTES};
	bool at_once = l->frame++ % 2 == 1;
	uint32_t type, n = 0;

	load_made(l, sim_draw_begin(&l->sim, &beside));
	draw_beside(l, &beside);
	type = sim_draw_begin(&l->sim, &d);
	while (load_made(l, type) && load_goes_on(l)) {
		uint32_t some = at_once ? PROGRAMS : 1;

		type = answer_to(l, sim_draw_offer_programs(&l->sim, &d, n, some, LOAD_STREAM));
		n += some;
	}
	l->poisoned +=
		type == VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY &&
		answer_to(l, sim_draw_offer_programs(&l->sim, &d, n, 1, LOAD_STREAM)) == type;
	l->kept += draw_beside(l, &beside);
	sim_draw_end(&l->sim, &d);
	sim_draw_end(&l->sim, &beside);
	l->rounds++;
}

/* It is answered when its renderer was given up, and has to begin again; until it has no 3D. */
void bomb_shader(struct load *l)
{
	const struct sim_draw d = {CONTEXT, FIRST, FIRST + 1, 1024, 1024, LOAD_DRAW};

	if (!load_made(l, sim_draw_begin(&l->sim, &d))) {
		sim_draw_end(&l->sim, &d);
		sim_wait(&l->sim, 100);
		return;
	}
	if (sim_draw_offer(&l->sim, &d, 0, SIM_DRAW_ENDLESS, ++l->sim.fence) >= 0) {
		sim_ring_kick(&l->sim.rings[SIM_CONTROL]);
		load_made(l, load_answer(l, NULL));
	}
	sim_draw_end(&l->sim, &d);
	l->rounds++;
}

static void take_all(struct load *l, int n)
{
	while (n-- > 0 && load_goes_on(l)) {
		load_made(l, load_answer(l, NULL));
	}
}

/* The queue full of small clears without fences, and behind them as much as one may have at all. */
void bomb_commands(struct load *l)
{
	const struct sim_draw d = {CONTEXT, FIRST, FIRST + 1, 64, 64, LOAD_DRAW};
	uint32_t *large = sim_memory_at(&l->sim.vmm.memory, LOAD_STREAM);
	const uint32_t n_large = 1 << 20;
	int n = 0;

	if (!load_made(l, sim_draw_begin(&l->sim, &d))) {
		/* Some of it may be there: an answer that comes late is none. */
		sim_draw_end(&l->sim, &d);
		return;
	}
	memset(large, 0, (size_t)n_large * 4);
	for (int i = 0; i < 20 && load_goes_on(l); i++) {
		for (n = 0; sim_draw_offer(&l->sim, &d, (uint32_t)n, 0, 0) >= 0; n++) {
		}
		sim_ring_kick(&l->sim.rings[SIM_CONTROL]);
		take_all(l, n);
		load_made(l, sim_submit(&l->sim, CONTEXT, large, n_large, LOAD_STREAM, false));
	}
	sim_draw_end(&l->sim, &d);
	l->rounds++;
}

/* An empty stream is for its fence. */
void bomb_fences(struct load *l)
{
	int n;

	load_made(l, sim_context(&l->sim, CONTEXT));
	for (int i = 0; i < 20 && load_goes_on(l); i++) {
		for (n = 0;; n++) {
			const struct virtio_gpu_cmd_submit c = {
				{.type = VIRTIO_GPU_CMD_SUBMIT_3D,
					.flags = VIRTIO_GPU_FLAG_FENCE,
					.fence_id = ++l->sim.fence,
					.ctx_id = CONTEXT},
				0, 0};

			if (sim_offer(&l->sim, SIM_CONTROL, &c, sizeof(c),
				    sizeof(struct virtio_gpu_ctrl_hdr)) < 0) {
				break;
			}
		}
		sim_ring_kick(&l->sim.rings[SIM_CONTROL]);
		take_all(l, n);
	}
	sim_context_end(&l->sim, CONTEXT);
	l->rounds++;
}

void bomb_each(struct load *l)
{
	bomb_memory(l);
	bomb_contexts(l);
	bomb_textures(l);
	bomb_commands(l);
	bomb_fences(l);
}
