/* SPDX-License-Identifier: MIT
 * What a simulated VM does on a GPU for as long as it is wanted: tests/gpu/gpu-load.c.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "tests/gpu/sim-draw.h"

/* In the guest's memory. */
#define LOAD_DRAW    0x400000u
#define LOAD_STREAM  0x500000u
#define LOAD_MEMORY  (32u << 20)
#define LOAD_SAMPLES 65536

struct load {
	struct sim sim;
	struct sim_draw draw; /* the program that draws frames */
	float turns;          /* of each of its pixels */
	uint32_t every_ms;    /* from a frame to the next; 0: none waits */
	uint32_t frame;
	uint32_t ahead; /* on their way (greedy) */
	bool heard_end; /* of stdin */
	bool by_go;     /* a round is begun when stdin says so */
	bool told_go;
	/* Since the last report. */
	uint32_t samples[LOAD_SAMPLES]; /* us, from a frame's submit to its fence */
	uint32_t n_samples;
	uint32_t pictures, wrong; /* that were looked at; that were not what was drawn */
	uint64_t rounds, made, refused, poisoned, lost, errors;
	uint64_t kept; /* programs that drew on beside one that was refused */
};

/* Does what stdin asks for, if anything. False: it has ended. */
bool load_goes_on(struct load *l);
/* The next answer of the control queue; its type, 0 if the end came first. *head_out may be NULL.
 */
uint32_t load_answer(struct load *l, int *head_out);
/* Counts what came back, which should have been success; whether it was. */
bool load_made(struct load *l, uint32_t type);

/* One round of each; what it has made is gone again afterwards. */
void bomb_memory(struct load *l);
void bomb_contexts(struct load *l);
void bomb_textures(struct load *l);
void bomb_programs(struct load *l);
void bomb_shader(struct load *l);
void bomb_commands(struct load *l);
void bomb_fences(struct load *l);
/* One of each that leaves its renderer alive and compiles nothing. */
void bomb_each(struct load *l);
