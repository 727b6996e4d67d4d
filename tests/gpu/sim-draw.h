/* SPDX-License-Identifier: MIT
 * A program of the simulated guest that draws in 3D as Mesa does: a pipeline with two shaders, and
 * frames whose colours can be told from each other. What a frame costs is how often each of its
 * pixels turns in a loop.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "tests/gpu/sim-3d.h"

/* llvmpipe leaves a loop after 65535 turns: with heavy ones, that is for ever as far as a watchdog
 * is concerned. */
#define SIM_DRAW_ENDLESS 100000.0f

/* Bytes of the guest's memory that streams and vertices take. */
#define SIM_DRAW_BYTES   0x4000u
#define SIM_DRAW_PROGRAM 512u

struct sim_draw {
	/* To be set before. */
	uint32_t context, texture, vertices; /* ids; what is there already is used */
	uint32_t width, height;
	uint64_t at; /* SIM_DRAW_BYTES of the guest's memory */
};

/* Makes the context, a texture (R8G8B8X8) without backing, and all that frames need. The type of
 * the first answer that is no success, else OK_NODATA. */
uint32_t sim_draw_begin(struct sim *s, const struct sim_draw *d);
/* Ends all of it; the same. */
uint32_t sim_draw_end(struct sim *s, const struct sim_draw *d);
/* Puts frame n into the control queue, without a kick: its head, or -1 (no room). Each pixel turns
 * so often. fence 0: none. */
int sim_draw_offer(
	struct sim *s, const struct sim_draw *d, uint32_t n, float turns, uint64_t fence);
/* Puts other fragment shaders, n of them from this number on, into the control queue, and a draw
 * with each: they are compiled. All in one buffer at this place of the guest's memory,
 * SIM_DRAW_PROGRAM bytes for each. As sim_draw_offer. */
int sim_draw_offer_programs(
	struct sim *s, const struct sim_draw *d, uint32_t first, uint32_t n, uint64_t at);
/* Whether this is what frame n looks like, as a display has it. */
bool sim_draw_is(const struct sim_draw *d, uint32_t n, const uint32_t *pixels);
