/* SPDX-License-Identifier: MIT
 * A VM that draws, or that means harm, in front of a GPU backend that listens:
 *
 *   gpu-load SOCKET MODE [every=MS] [turns=N] [side=PIXELS] [go=1]
 *
 * frames is a steady loop: a frame is drawn, its fence waited for, shown; each eighth picture is
 * looked at. every: milliseconds from one to the next (0: none waits); turns: of each of its pixels
 * in a loop; side: of its picture. greedy is frames without waiting or looking at any. The other
 * modes are in gpu-load-bombs.c.
 *
 * Says {"ready": true} when it begins, and what it did since the last time for each line of stdin,
 * in JSON. With go=1 a round waits for a line "go", and its end is said. Ends with stdin, or as
 * soon as the backend does.
 */
#include "tests/gpu/gpu-load.h"

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/clock.h"

#define LOOK_EVERY 8
#define LOOK_MS    2000
/* Streams of frames in the guest's memory: sim_draw_offer. */
#define AHEAD 6

static void report(struct load *l)
{
	printf("{\"rounds\": %" PRIu64 ", \"made\": %" PRIu64 ", \"refused\": %" PRIu64
	       ", \"poisoned\": %" PRIu64 ", \"lost\": %" PRIu64 ", \"errors\": %" PRIu64
	       ", \"kept\": %" PRIu64 ", \"pictures\": %u, \"wrong\": %u, \"us\": [",
		l->rounds, l->made, l->refused, l->poisoned, l->lost, l->errors, l->kept,
		l->pictures, l->wrong);
	for (uint32_t i = 0; i < l->n_samples; i++) {
		printf("%s%u", i > 0 ? ", " : "", l->samples[i]);
	}
	printf("]}\n");
	fflush(stdout);
	l->n_samples = l->pictures = l->wrong = 0;
	l->rounds = l->made = l->refused = l->poisoned = l->lost = l->errors = l->kept = 0;
}

bool load_goes_on(struct load *l)
{
	struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
	char line[64];

	if (poll(&p, 1, 0) > 0) {
		ssize_t n = read(STDIN_FILENO, line, sizeof(line));

		if (n <= 0) {
			l->heard_end = true;
		} else if (line[0] == 'g') {
			l->told_go = true;
		} else {
			report(l);
		}
	}
	return !l->heard_end && !l->sim.dead;
}

uint32_t load_answer(struct load *l, int *head_out)
{
	const struct virtio_gpu_ctrl_hdr *answer;
	uint32_t written;
	int head;

	do {
		head = sim_take(&l->sim, SIM_CONTROL, 50, &written);
	} while (head == -1 && load_goes_on(l));
	if (head < 0) {
		return 0;
	}
	if (head_out) {
		*head_out = head;
	}
	answer = sim_answer(&l->sim, SIM_CONTROL, head);
	return written < sizeof(*answer) ? 0 : answer->type;
}

bool load_made(struct load *l, uint32_t type)
{
	l->made += type == VIRTIO_GPU_RESP_OK_NODATA;
	l->refused += type == VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY;
	l->lost += type == VIRTIO_GPU_RESP_ERR_INVALID_CONTEXT_ID ||
		   type == VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID;
	l->errors += type == VIRTIO_GPU_RESP_ERR_UNSPEC ||
		     type == VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER || type == 0;
	return type == VIRTIO_GPU_RESP_OK_NODATA;
}

/* That the display shows this frame. */
static void look(struct load *l, uint32_t frame)
{
	const struct sim_scanout *o = &l->sim.screen.scanouts[0];
	int64_t end = now_ms() + LOOK_MS;
	bool right = false;

	while (!right && now_ms() < end && load_goes_on(l)) {
		right = o->pixels && o->width == l->draw.width && o->height == l->draw.height &&
			sim_draw_is(&l->draw, frame, o->pixels);
		if (!right) {
			sim_wait(&l->sim, 10);
		}
	}
	l->pictures++;
	l->wrong += !right && !l->heard_end;
}

static void draw_frame(struct load *l)
{
	const struct virtio_gpu_resource_flush flush = {{.type = VIRTIO_GPU_CMD_RESOURCE_FLUSH},
		{0, 0, l->draw.width, l->draw.height}, l->draw.texture, 0};
	uint64_t start = now_ns();
	uint32_t n = l->frame++;
	int drawn = sim_draw_offer(&l->sim, &l->draw, n, l->turns, ++l->sim.fence);
	int shown = sim_offer(
		&l->sim, SIM_CONTROL, &flush, sizeof(flush), sizeof(struct virtio_gpu_ctrl_hdr));

	sim_ring_kick(&l->sim.rings[SIM_CONTROL]);
	for (int i = 0; i < 2; i++) {
		int head = -1;
		uint32_t type = load_answer(l, &head);

		if (l->heard_end || !load_made(l, type)) {
			continue;
		}
		if (head == drawn && l->n_samples < LOAD_SAMPLES) {
			l->samples[l->n_samples++] = (uint32_t)((now_ns() - start) / 1000);
		}
	}
	if (drawn < 0 || shown < 0) {
		l->errors++;
	} else if (n % LOOK_EVERY == 0) {
		look(l, n);
	}
	l->rounds++;
}

/* What the display says is read meanwhile. */
static void rest(struct load *l, int64_t until_ms)
{
	for (int64_t left; (left = until_ms - now_ms()) > 0 && load_goes_on(l);) {
		sim_wait(&l->sim, (int)MIN(left, 50));
	}
}

static bool begin_frames(struct load *l)
{
	uint32_t r = sim_draw_begin(&l->sim, &l->draw);

	if (r == VIRTIO_GPU_RESP_OK_NODATA) {
		r = sim_set_scanout(&l->sim, 0, l->draw.texture, l->draw.width, l->draw.height);
	}
	if (r != VIRTIO_GPU_RESP_OK_NODATA) {
		fprintf(stderr, "gpu-load: nothing can be drawn: 0x%x\n", r);
	}
	return r == VIRTIO_GPU_RESP_OK_NODATA;
}

static void frames(struct load *l)
{
	int64_t start = now_ms();

	draw_frame(l);
	if (l->every_ms > 0) {
		rest(l, start + l->every_ms);
	}
}

/* Some are always on their way, so that the renderer never waits for us. */
static void greedy(struct load *l)
{
	for (; l->ahead < AHEAD; l->ahead++) {
		if (sim_draw_offer(&l->sim, &l->draw, l->frame++, l->turns, ++l->sim.fence) < 0) {
			l->errors++;
			break;
		}
	}
	sim_ring_kick(&l->sim.rings[SIM_CONTROL]);
	if (load_made(l, load_answer(l, NULL))) {
		l->rounds++;
	}
	l->ahead--;
}

static const struct {
	const char *name;
	void (*round)(struct load *l);
} modes[] = {
	{"frames", frames},
	{"greedy", greedy},
	{"memory", bomb_memory},
	{"contexts", bomb_contexts},
	{"textures", bomb_textures},
	{"programs", bomb_programs},
	{"shader", bomb_shader},
	{"commands", bomb_commands},
	{"fences", bomb_fences},
	{"each", bomb_each},
};

static bool read_options(struct load *l, char **options, int n)
{
	for (int i = 0; i < n; i++) {
		char *end, *value = strchr(options[i], '=');
		unsigned long number = value ? strtoul(value + 1, &end, 10) : 0;

		if (!value || end == value + 1 || *end || number > 65535) {
			return false;
		}
		if (strncmp(options[i], "every=", 6) == 0) {
			l->every_ms = (uint32_t)number;
		} else if (strncmp(options[i], "turns=", 6) == 0) {
			l->turns = (float)number;
		} else if (strncmp(options[i], "go=", 3) == 0) {
			l->by_go = number > 0;
		} else if (strncmp(options[i], "side=", 5) == 0 && number >= 4 && number <= 4096) {
			l->draw.width = l->draw.height = (uint32_t)number & ~3u;
		} else {
			return false;
		}
	}
	return true;
}

static struct load *begin(const char *socket, char **options, int n)
{
	struct load *l = calloc(1, sizeof(*l));
	struct sim_options o = {.socket = socket, .cpu = -1, .memory = LOAD_MEMORY};
	int r;

	if (!l) {
		return NULL;
	}
	l->draw = (struct sim_draw){1, 1, 2, 256, 256, LOAD_DRAW};
	l->turns = 2;
	if (!read_options(l, options, n)) {
		fprintf(stderr, "gpu-load: every=MS turns=N side=PIXELS go=1\n");
		free(l);
		return NULL;
	}
	o.width = l->draw.width;
	o.height = l->draw.height;
	o.features = SIM_FEATURES_3D;
	r = sim_start(&l->sim, &o);
	if (r < 0) {
		fprintf(stderr, "gpu-load: %s: %s\n", socket, strerror(-r));
		free(l);
		return NULL;
	}
	return l;
}

static void by_go(struct load *l, void (*round)(struct load *l))
{
	while (!l->told_go && load_goes_on(l)) {
		sim_wait(&l->sim, 20);
	}
	if (l->told_go) {
		l->told_go = false;
		round(l);
		printf("{\"done\": true}\n");
		fflush(stdout);
	}
}

int main(int argc, char **argv)
{
	struct load *l;
	size_t mode = 0;

	while (argc >= 3 && mode < ARRAY_SIZE(modes) && strcmp(argv[2], modes[mode].name) != 0) {
		mode++;
	}
	if (argc < 3 || mode == ARRAY_SIZE(modes)) {
		fprintf(stderr, "usage: gpu-load SOCKET MODE [NAME=VALUE]...\n");
		return 2;
	}
	l = begin(argv[1], &argv[3], argc - 3);
	if (!l || ((modes[mode].round == frames || modes[mode].round == greedy) &&
			  !begin_frames(l))) {
		return EXIT_FAILURE;
	}
	printf("{\"ready\": true}\n");
	fflush(stdout);
	while (load_goes_on(l)) {
		if (l->by_go) {
			by_go(l, modes[mode].round);
		} else {
			modes[mode].round(l);
		}
	}
	if (l->sim.screen.wrong[0]) {
		fprintf(stderr, "gpu-load: the display was told: %s\n", l->sim.screen.wrong);
	}
	mode = l->heard_end && !l->sim.screen.wrong[0] ? EXIT_SUCCESS : EXIT_FAILURE;
	sim_stop(&l->sim);
	free(l);
	return (int)mode;
}
