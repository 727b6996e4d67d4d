/* SPDX-License-Identifier: MIT
 * A front alone, in its sandbox, with the test as its VMM, its parent and its renderer.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "gpu/journal.h"
#include "gpu/link.h"
#include "protocol/gpu-parent.h"
#include "tests/gpu/sim-screen.h"
#include "tests/gpu/sim-vmm.h"

#define BARE_RING         64 /* descriptors */
#define BARE_HANG_SECONDS 2  /* --hang-timeout */

struct bare_front {
	pid_t pid;
	int pidfd;
	int control;
	int vhost;
	struct sim_vmm vmm;
	struct sim_screen screen;
	int kicks[SIM_QUEUES], calls[SIM_QUEUES];
	/* As the renderer */
	int link; /* -1: there is none */
	int bell;
	int journal_fd;
	struct journal *journal;
	struct link_setup setup;
	struct link_memory memory;
	struct link_region regions[LINK_REGIONS_MAX];
	uint32_t n_regions;
};

/* For cmocka. */
int bare_set_up(void **state);
int bare_set_up_dmabuf(void **state); /* with --dmabuf */
int bare_tear_down(void **state);

/* Gives it a renderer that says nothing yet. */
void bare_plug(struct bare_front *b);
/* The same, that is ready and takes what it is told up to its memory. */
void bare_renderer(struct bare_front *b);
void bare_send(struct bare_front *b, const union link_msg *m, int fd);
/* The next message for the renderer, of this type, behind PINGs, which are answered; fds are
 * closed, their number is returned. */
size_t bare_expect(struct bare_front *b, enum link_type type, union link_msg *out);
/* Nothing comes for ms but PINGs, which are answered. */
void bare_expect_nothing(struct bare_front *b, int ms);
/* A PING is the next message, and is answered by bare_answer. */
uint64_t bare_expect_ping(struct bare_front *b);
void bare_answer(struct bare_front *b, uint64_t seq, bool busy);
/* The front has closed the link and wants another renderer. */
void bare_expect_lost(struct bare_front *b);
/* Whether it still serves its VMM. */
bool bare_serves(struct bare_front *b);

/* Says something as the parent, and takes what comes back: its fd, or -1. */
void bare_ask(struct bare_front *b, const struct parent_msg *m);
int bare_hear(struct bare_front *b, uint32_t type, struct parent_msg *out);

/* The VMM's rings and display. */
void bare_ring(struct bare_front *b, uint32_t queue);
void bare_screen(struct bare_front *b);
/* Reads what the display is shown, until a scanout has had this many updates, or for 2 s. */
void bare_look(struct bare_front *b, uint32_t scanout, uint64_t updates);

/* An image of side squared in a sealed memfd. *map_out stays writable. */
int bare_image(uint32_t side, uint32_t **map_out);
/* SCANOUT of all of an image on scanout 0, whose fd comes with it. */
void bare_scanout(union link_msg *m, uint32_t image, uint32_t side);
/* Shows image (fd or -1: it has it) on scanout 0. */
void bare_show(struct bare_front *b, uint32_t image, uint32_t side, int fd);
unsigned int bare_fds(const struct bare_front *b);
/* How often it went to sleep. */
unsigned long bare_switches(const struct bare_front *b);
/* CPU time that it has used. */
uint64_t bare_cpu_ms(const struct bare_front *b);
/* How it ended, within 5 s. */
int bare_exit_code(struct bare_front *b);
