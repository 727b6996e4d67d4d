/* SPDX-License-Identifier: MIT
 *
 * The cells of tests/bench gpu-2d that have a backend in them. A frame is a transfer and a flush; a
 * guest is at most one frame ahead of what its display has shown, so that a backend that leaves
 * frames out gains nothing: what counts is frames that arrived.
 */
#include "tests/benches/gpu-bench.h"

#include <string.h>

#include "base/checked.h"
#include "base/clock.h"

#define COMMANDS     20000
#define BATCH        32
#define BATCHES      3000
#define INFOS        4000
#define INFO_BATCHES 200
#define ROOM         1024
#define CURSOR_NS    2000000 /* between two moves of the cursor */

/* One pixel of a small resource: it succeeds, is heard by nobody, and costs next to nothing. */
#define TINY 1000
static const struct virtio_gpu_transfer_to_host_2d tiny = {
	{.type = VIRTIO_GPU_CMD_TRANSFER_TO_HOST_2D}, {0, 0, 1, 1}, 0, TINY, 0};
static const struct virtio_gpu_ctrl_hdr info = {.type = VIRTIO_GPU_CMD_GET_DISPLAY_INFO};

static void must(uint32_t got, uint32_t wanted)
{
	if (got != wanted) {
		fprintf(stderr, "gpu-bench: 0x%x instead of 0x%x\n", got, wanted);
		bench_fail("a command was answered otherwise");
	}
}

static void take(struct sim *s, uint32_t wanted)
{
	uint32_t written;
	int head = sim_take(s, SIM_CONTROL, 5000, &written);

	if (head < 0) {
		bench_fail("a command was not answered");
	}
	must(((const struct virtio_gpu_ctrl_hdr *)sim_answer(s, SIM_CONTROL, head))->type, wanted);
}

/* count times one command at depth 1, then batches. */
static void one_command(struct sim *s, const char *name, const void *command, size_t size,
	uint32_t wanted, int count, int batches)
{
	struct bench_samples samples = {0};
	uint64_t begin, calls, cpu = sim_backend_cpu_ns(&s->backend);

	begin = now_ns();
	for (int i = 0; i < count; i++) {
		uint64_t at = now_ns();

		must(sim_command(s, command, size), wanted);
		bench_add(&samples, now_ns() - at);
	}
	printf(", \"%s_per_s\": %.1f", name, count * 1e9 / (double)(now_ns() - begin));
	printf(", \"%s_cpu_us\": %.3f", name,
		(double)(sim_backend_cpu_ns(&s->backend) - cpu) / count / 1e3);
	printf(", \"%s_p50_us\": %.2f", name, bench_percentile(&samples, 50));
	printf(", \"%s_p99_us\": %.2f", name, bench_percentile(&samples, 99));
	bench_forget(&samples);
	calls = s->rings[SIM_CONTROL].n_calls;
	begin = now_ns();
	for (int i = 0; i < batches; i++) {
		for (int k = 0; k < BATCH; k++) {
			if (sim_offer(s, SIM_CONTROL, command, size, ROOM) < 0) {
				bench_fail("the ring is full");
			}
		}
		sim_ring_kick(&s->rings[SIM_CONTROL]);
		for (int k = 0; k < BATCH; k++) {
			take(s, wanted);
		}
	}
	printf(", \"%s_batched_per_s\": %.1f", name,
		batches * BATCH * 1e9 / (double)(now_ns() - begin));
	printf(", \"%s_interrupts_per_batch\": %.2f", name,
		(double)(s->rings[SIM_CONTROL].n_calls - calls) / batches);
}

void bench_commands(struct sim *s)
{
	const struct virtio_gpu_mem_entry entry = {SIM_PIXELS, 64 * 64 * 4, 0};

	must(sim_create(s, TINY, VIRTIO_GPU_FORMAT_B8G8R8X8_UNORM, 64, 64),
		VIRTIO_GPU_RESP_OK_NODATA);
	must(sim_attach(s, TINY, &entry, 1), VIRTIO_GPU_RESP_OK_NODATA);
	one_command(
		s, "command", &tiny, sizeof(tiny), VIRTIO_GPU_RESP_OK_NODATA, COMMANDS, BATCHES);
}

void bench_info(struct sim *s)
{
	one_command(s, "info", &info, sizeof(info), VIRTIO_GPU_RESP_OK_DISPLAY_INFO, INFOS,
		INFO_BATCHES);
}

/* A guest that draws as fast as it is shown. */
struct drawing {
	struct sim *s;
	uint32_t id;
	uint32_t width; /* of the resource */
	bool blob;      /* in guest memory: nothing is transferred */
	struct virtio_gpu_rect rect;
	uint32_t drawn; /* frames whose commands are in the ring or answered */
	int owed;       /* answers */
};

static void draw(struct drawing *d)
{
	uint64_t offset = ((uint64_t)d->rect.y * d->width + d->rect.x) * 4;
	const struct virtio_gpu_transfer_to_host_2d transfer = {
		{.type = VIRTIO_GPU_CMD_TRANSFER_TO_HOST_2D}, d->rect, offset, d->id, 0};
	const struct virtio_gpu_resource_flush flush = {
		{.type = VIRTIO_GPU_CMD_RESOURCE_FLUSH}, d->rect, d->id, 0};

	/* Which frame it is. */
	*(uint32_t *)sim_memory_at(&d->s->vmm.memory, SIM_HIGH + offset) = ++d->drawn;
	if ((!d->blob && sim_offer(d->s, SIM_CONTROL, &transfer, sizeof(transfer), ROOM) < 0) ||
		sim_offer(d->s, SIM_CONTROL, &flush, sizeof(flush), ROOM) < 0) {
		bench_fail("the ring is full");
	}
	sim_ring_kick(&d->s->rings[SIM_CONTROL]);
	d->owed = d->blob ? 1 : 2;
}

/* Draws the next frame if this is the time for it. */
static void go_on(struct drawing *d)
{
	uint32_t written;
	int head;

	while (d->owed > 0 && (head = sim_take(d->s, SIM_CONTROL, 0, &written)) >= 0) {
		must(((const struct virtio_gpu_ctrl_hdr *)sim_answer(d->s, SIM_CONTROL, head))
				->type,
			VIRTIO_GPU_RESP_OK_NODATA);
		d->owed--;
	}
	if (d->owed == 0 && d->s->screen.scanouts[0].watched + 1 >= d->drawn) {
		draw(d);
	}
}

static void show_blob(struct sim *s, uint32_t id, uint32_t width, uint32_t height)
{
	const struct virtio_gpu_mem_entry entry = {SIM_HIGH, width * height * 4, 0};

	must(sim_blob(s, id, entry.length, &entry, 1), VIRTIO_GPU_RESP_OK_NODATA);
	must(sim_show_blob(s, 0, id, width, height), VIRTIO_GPU_RESP_OK_NODATA);
}

static void start(struct drawing *d, struct sim *s, const struct bench_size *size, uint32_t id,
	const struct virtio_gpu_rect *rect, bool blob)
{
	struct sim_scanout *o = &s->screen.scanouts[0];

	*d = (struct drawing){.s = s,
		.id = id,
		.width = size->width,
		.rect = {0, 0, size->width, size->height},
		.blob = blob};
	if (rect) {
		d->rect = *rect;
	}
	if ((uint64_t)size->width * size->height * 4 > s->vmm.memory.size / 2) {
		bench_fail("the guest is too small");
	}
	if (blob) {
		show_blob(s, id, size->width, size->height);
	} else {
		must(sim_show(s, id, 0, size->width, size->height, SIM_HIGH), 0);
	}
	o->watch_x = d->rect.x;
	o->watch_y = d->rect.y;
	o->watched = 0;
}

static void end(struct drawing *d)
{
	for (; d->owed > 0; d->owed--) {
		take(d->s, VIRTIO_GPU_RESP_OK_NODATA);
	}
	for (int i = 0; i < 1000 && d->s->screen.scanouts[0].watched != d->drawn; i++) {
		sim_wait(d->s, 10);
	}
	must(d->s->screen.scanouts[0].watched, d->drawn);
	must(sim_set_scanout(d->s, 0, 0, 0, 0), VIRTIO_GPU_RESP_OK_NODATA);
	must(sim_unref(d->s, d->id), VIRTIO_GPU_RESP_OK_NODATA);
}

static void draw_for(struct drawing *d, uint64_t for_ns)
{
	uint64_t until = now_ns() + for_ns;

	while (now_ns() < until) {
		go_on(d);
		if (!sim_wait(d->s, 1000) && d->s->dead) {
			bench_fail("the backend died");
		}
	}
}

static void measure(struct drawing *d, const char *name, uint64_t for_ns)
{
	struct sim *s = d->s;
	uint64_t begin, cpu, frames;

	draw_for(d, for_ns / 5);
	cpu = sim_backend_cpu_ns(&s->backend);
	frames = s->screen.scanouts[0].n_updates;
	begin = now_ns();
	draw_for(d, for_ns);
	frames = MAX(s->screen.scanouts[0].n_updates - frames, (uint64_t)1);
	printf(", \"%s_per_s\": %.2f, \"%s_cpu_ms\": %.4f", name,
		(double)frames * 1e9 / (double)(now_ns() - begin), name,
		(double)(sim_backend_cpu_ns(&s->backend) - cpu) / (double)frames / 1e6);
}

void bench_frames(struct sim *s, uint64_t for_ns, bool blobs)
{
	const struct virtio_gpu_rect small = {640, 480, 64, 64};
	struct drawing d;
	char name[32];

	for (size_t i = 0; i < ARRAY_SIZE(bench_sizes); i++) {
		start(&d, s, &bench_sizes[i], (uint32_t)i + 1, NULL, false);
		snprintf(name, sizeof(name), "frames_%ux%u", d.rect.width, d.rect.height);
		measure(&d, name, for_ns);
		end(&d);
	}
	if (blobs) {
		start(&d, s, &bench_sizes[0], 8, NULL, true);
		measure(&d, "blobs_640x480", for_ns);
		end(&d);
	}
	start(&d, s, &bench_sizes[2], 9, &small, false);
	measure(&d, "damage_64x64", for_ns);
	end(&d);
}

struct cursor {
	uint64_t began, due;
	uint32_t x;
	bool answered, shown;
	struct bench_samples answers, displays;
};

static void move_cursor(struct sim *s, struct cursor *c)
{
	struct virtio_gpu_update_cursor m = {
		{.type = VIRTIO_GPU_CMD_MOVE_CURSOR}, {0, 0, 1, 0}, TINY, 0, 0, 0};

	m.pos.x = c->x = c->x % 1000 + 1;
	c->answered = c->shown = false;
	c->began = now_ns();
	if (sim_offer(s, SIM_CURSOR, &m, sizeof(m), 0) < 0) {
		bench_fail("the cursor's ring is full");
	}
	sim_ring_kick(&s->rings[SIM_CURSOR]);
}

static void look_at_cursor(struct sim *s, struct cursor *c)
{
	uint64_t now = now_ns();
	uint32_t written;

	if (!c->answered && sim_take(s, SIM_CURSOR, 0, &written) >= 0) {
		c->answered = true;
		bench_add(&c->answers, now - c->began);
	}
	if (!c->shown && s->screen.cursor_pos.x == c->x) {
		c->shown = true;
		bench_add(&c->displays, now - c->began);
	}
	if (c->answered && c->shown && now >= c->due) {
		c->due = now + CURSOR_NS;
		move_cursor(s, c);
	}
}

static void cursor_cell(struct sim *s, const char *name, struct drawing *d, uint64_t for_ns)
{
	struct cursor c = {.answered = true, .shown = true};
	uint64_t until = now_ns() + for_ns;

	while (now_ns() < until || !c.answered || !c.shown) {
		if (d && now_ns() < until) {
			go_on(d);
		}
		look_at_cursor(s, &c);
		if (!sim_wait(s, 1) && (s->dead || now_ns() > until + UINT64_C(5000000000))) {
			bench_fail("the cursor was not moved");
		}
	}
	printf(", \"%s_p50_us\": %.2f, \"%s_p99_us\": %.2f", name, bench_percentile(&c.answers, 50),
		name, bench_percentile(&c.answers, 99));
	printf(", \"%s_shown_p50_us\": %.2f, \"%s_shown_p99_us\": %.2f", name,
		bench_percentile(&c.displays, 50), name, bench_percentile(&c.displays, 99));
	bench_forget(&c.answers);
	bench_forget(&c.displays);
}

void bench_cursor(struct sim *s, uint64_t for_ns)
{
	const struct virtio_gpu_update_cursor show = {
		{.type = VIRTIO_GPU_CMD_UPDATE_CURSOR}, {0, 0, 1, 0}, TINY, 0, 0, 0};
	struct drawing d;
	uint32_t written;

	/* There has to be one before it can be moved. */
	if (sim_offer(s, SIM_CURSOR, &show, sizeof(show), 0) < 0) {
		bench_fail("the cursor's ring is full");
	}
	sim_ring_kick(&s->rings[SIM_CURSOR]);
	if (sim_take(s, SIM_CURSOR, 5000, &written) < 0) {
		bench_fail("the cursor was not answered");
	}
	cursor_cell(s, "cursor_idle", NULL, for_ns);
	start(&d, s, &bench_sizes[2], 9, NULL, false);
	cursor_cell(s, "cursor_loaded", &d, 3 * for_ns);
	end(&d);
}
