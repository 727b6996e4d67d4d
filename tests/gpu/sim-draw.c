/* SPDX-License-Identifier: MIT
 *
 * The numbers are those of virgl's protocol, the values those that Mesa 22.3 sends for the same
 * state.
 */
#include "tests/gpu/sim-draw.h"

#include <stdio.h>
#include <string.h>

#include "base/checked.h"

enum {
	CREATE = 1,
	BIND = 2,
	VIEWPORT = 4,
	FRAMEBUFFER = 5,
	VERTEX_BUFFERS = 6,
	CLEAR = 7,
	DRAW = 8,
	CONSTANTS = 12,
	BIND_SHADER = 31,
};

enum { BLEND = 1, RASTERIZER = 2, DEPTH = 3, SHADER = 4, ELEMENTS = 5, SURFACE = 8 };
enum { VERTEX_SHADER, FRAGMENT_SHADER };

#define RGBX          VIRTIO_GPU_FORMAT_R8G8B8X8_UNORM
#define R8            64
#define RG32F         29
#define BIND_VERTICES (1 << 4)
#define TRIANGLES     4
#define VERTICES_AT   0x3000u /* behind the streams */
#define DWORDS_MAX    (VERTICES_AT / 4)

static const char vertex_shader[] = "VERT\n"
				    "DCL IN[0]\n"
				    "DCL OUT[0], POSITION\n"
				    "DCL OUT[1], GENERIC[0]\n"
				    "IMM[0] FLT32 {0.0, 1.0, 0.0, 0.0}\n"
				    "MOV OUT[0].xy, IN[0].xyyy\n"
				    "MOV OUT[0].zw, IMM[0].xyxy\n"
				    "MOV OUT[1], IN[0].xyxy\n"
				    "END\n";
/* What it turns for is nothing that the compiler knows: CONST[1] is {turns, 0, ...}. */
static const char fragment_shader[] = "FRAG\n"
				      "DCL IN[0], GENERIC[0], PERSPECTIVE\n"
				      "DCL OUT[0], COLOR\n"
				      "DCL CONST[0..1]\n"
				      "DCL TEMP[0..2]\n"
				      "IMM[0] FLT32 {1.0, 0.0, 0.0, 0.0}\n"
				      "MOV TEMP[0], IN[0]\n"
				      "MOV TEMP[1].x, CONST[1].xxxx\n"
				      "BGNLOOP\n"
				      "FSLT TEMP[2].x, TEMP[1].xxxx, IMM[0].xxxx\n"
				      "UIF TEMP[2].xxxx\nBRK\nENDIF\n"
				      "SIN TEMP[0], TEMP[0]\n"
				      "COS TEMP[0], TEMP[0]\n"
				      "ADD TEMP[1].x, TEMP[1].xxxx, -IMM[0].xxxx\n"
				      "ENDLOOP\n"
				      "MAD OUT[0], TEMP[0], CONST[1].yyyy, CONST[0]\n"
				      "END\n";
/* Two triangles: all but the right quarter. */
static const float corners[] = {-1, -1, 0.5f, -1, 0.5f, 1, -1, -1, 0.5f, 1, -1, 1};

struct stream {
	uint32_t *dwords;
	uint32_t n;
};

static void put(
	struct stream *s, uint32_t command, uint32_t object, const uint32_t *dwords, uint32_t n)
{
	s->dwords[s->n++] = command | object << 8 | n << 16;
	memcpy(&s->dwords[s->n], dwords, (size_t)n * 4);
	s->n += n;
}

#define PUT(s, command, object, ...)                                               \
	do {                                                                       \
		const uint32_t dwords_[] = {__VA_ARGS__};                          \
		put(s, command, object, dwords_, (uint32_t)(sizeof(dwords_) / 4)); \
	} while (0)

static uint32_t bits(float f)
{
	uint32_t n;

	memcpy(&n, &f, sizeof(n));
	return n;
}

static void put_shader(struct stream *s, uint32_t handle, uint32_t kind, const char *text)
{
	uint32_t bytes = (uint32_t)strlen(text) + 1, words = (bytes + 3) / 4;

	s->dwords[s->n] = CREATE | SHADER << 8 | (5 + words) << 16;
	memcpy(&s->dwords[s->n + 1], (uint32_t[]){handle, kind, bytes, 300, 0}, 20);
	memset(&s->dwords[s->n + 6], 0, (size_t)words * 4);
	memcpy(&s->dwords[s->n + 6], text, bytes);
	s->n += 6 + words;
	PUT(s, BIND_SHADER, 0, handle, kind);
}

static void put_pipeline(struct stream *s, const struct sim_draw *d)
{
	const uint32_t half_width = bits((float)d->width / 2);
	const uint32_t half_height = bits((float)d->height / 2), half = bits(0.5f);

	PUT(s, CREATE, SURFACE, 1, d->texture, RGBX, 0, 0);
	PUT(s, FRAMEBUFFER, 0, 1, 0, 1);
	PUT(s, VIEWPORT, 0, 0, half_width, half_height, half, half_width, half_height, half);
	put_shader(s, 2, VERTEX_SHADER, vertex_shader);
	put_shader(s, 3, FRAGMENT_SHADER, fragment_shader);
	PUT(s, CREATE, DEPTH, 4, 0, 0, 0, 0);
	PUT(s, BIND, DEPTH, 4);
	PUT(s, CREATE, BLEND, 5, 4, 0, 0x78000000, 0, 0, 0, 0, 0, 0, 0);
	PUT(s, BIND, BLEND, 5);
	PUT(s, CREATE, RASTERIZER, 6, 0x200000c2, bits(1), 0, 0xffff, bits(1), 0, 0, 0);
	PUT(s, BIND, RASTERIZER, 6);
	PUT(s, CREATE, ELEMENTS, 7, 0, 0, 0, RG32F);
	PUT(s, BIND, ELEMENTS, 7);
	PUT(s, VERTEX_BUFFERS, 0, 8, 0, d->vertices);
}

/* The vertices: a buffer with backing. */
static uint32_t give_vertices(struct sim *s, const struct sim_draw *d)
{
	const struct virtio_gpu_mem_entry entry = {d->at + VERTICES_AT, sizeof(corners), 0};
	const struct virtio_gpu_box all = {0, 0, 0, sizeof(corners), 1, 1};
	uint32_t r =
		sim_create_3d(s, &(struct virtio_gpu_resource_create_3d){{0}, d->vertices, 0, R8,
					 BIND_VERTICES, sizeof(corners), 1, 1, 1, 0, 0, 0, 0});

	memcpy(sim_memory_at(&s->vmm.memory, entry.addr), corners, sizeof(corners));
	if (r == VIRTIO_GPU_RESP_OK_NODATA) {
		r = sim_attach(s, d->vertices, &entry, 1);
	}
	if (r == VIRTIO_GPU_RESP_OK_NODATA) {
		r = sim_join(s, d->context, d->vertices);
	}
	return r == VIRTIO_GPU_RESP_OK_NODATA
		       ? sim_transfer_3d(s, true, d->context, d->vertices, &all, 0)
		       : r;
}

uint32_t sim_draw_begin(struct sim *s, const struct sim_draw *d)
{
	struct stream stream = {sim_memory_at(&s->vmm.memory, d->at), 0};
	uint32_t r = sim_context(s, d->context);

	if (r == VIRTIO_GPU_RESP_OK_NODATA) {
		r = sim_texture(s, d->texture, RGBX, d->width, d->height);
	}
	if (r == VIRTIO_GPU_RESP_OK_NODATA) {
		r = sim_join(s, d->context, d->texture);
	}
	if (r == VIRTIO_GPU_RESP_OK_NODATA) {
		r = give_vertices(s, d);
	}
	if (r == VIRTIO_GPU_RESP_OK_NODATA) {
		put_pipeline(&stream, d);
		r = sim_submit(s, d->context, stream.dwords, stream.n, d->at, true);
	}
	return r;
}

uint32_t sim_draw_end(struct sim *s, const struct sim_draw *d)
{
	uint32_t r[] = {sim_context_end(s, d->context), sim_unref(s, d->texture),
		sim_unref(s, d->vertices)};

	for (size_t i = 0; i < ARRAY_SIZE(r); i++) {
		if (r[i] != VIRTIO_GPU_RESP_OK_NODATA) {
			return r[i];
		}
	}
	return VIRTIO_GPU_RESP_OK_NODATA;
}

static void put_program(struct stream *s, uint32_t n)
{
	char text[256];

	snprintf(text, sizeof(text),
		"FRAG\n"
		"DCL IN[0], GENERIC[0], PERSPECTIVE\n"
		"DCL OUT[0], COLOR\n"
		"IMM[0] FLT32 {%u.5, %u.5, 0.0, 1.0}\n"
		"MAD OUT[0], IN[0], IMM[0].xyzw, IMM[0].yxzw\n"
		"END\n",
		n, n + 1);
	put_shader(s, 100 + n, FRAGMENT_SHADER, text);
	PUT(s, DRAW, 0, 0, 6, TRIANGLES, 0, 1, 0, 0, 0, 0, 0, 5, 0);
}

int sim_draw_offer_programs(
	struct sim *s, const struct sim_draw *d, uint32_t first, uint32_t n, uint64_t at)
{
	struct stream stream = {sim_memory_at(&s->vmm.memory, at), 0};

	for (uint32_t i = 0; i < n; i++) {
		put_program(&stream, first + i);
	}
	return sim_offer_submit(s, d->context, stream.dwords, stream.n, at, ++s->fence);
}

/* Of a frame: what its quad has; red, green, blue. */
static void colour(uint32_t n, uint8_t rgb[3])
{
	rgb[0] = (uint8_t)(n * 37);
	rgb[1] = (uint8_t)(n >> 3);
	rgb[2] = (uint8_t)(255 - n * 11);
}

int sim_draw_offer(struct sim *s, const struct sim_draw *d, uint32_t n, float turns, uint64_t fence)
{
	/* Two at a time are on their way. */
	uint64_t at = d->at + (n % 8) * 0x400;
	struct stream stream = {sim_memory_at(&s->vmm.memory, at), 0};
	uint8_t rgb[3];
	uint32_t c[3];

	colour(n, rgb);
	for (int i = 0; i < 3; i++) {
		c[i] = bits((float)(255 - rgb[i]) / 255);
	}
	PUT(&stream, CLEAR, 0, 4, c[0], c[1], c[2], bits(1), 0, 0, 0);
	for (int i = 0; i < 3; i++) {
		c[i] = bits((float)rgb[i] / 255);
	}
	PUT(&stream, CONSTANTS, 0, FRAGMENT_SHADER, 0, c[0], c[1], c[2], bits(1), bits(turns), 0, 0,
		0);
	PUT(&stream, DRAW, 0, 0, 6, TRIANGLES, 0, 1, 0, 0, 0, 0, 0, 5, 0);
	return sim_offer_submit(s, d->context, stream.dwords, stream.n, at, fence);
}

bool sim_draw_is(const struct sim_draw *d, uint32_t n, const uint32_t *pixels)
{
	uint32_t quad, rest;
	uint8_t rgb[3];

	colour(n, rgb);
	quad = (uint32_t)(rgb[0] << 16 | rgb[1] << 8 | rgb[2]);
	rest = ~quad & 0xffffff;
	for (uint32_t y = 0; y < d->height; y++) {
		for (uint32_t x = 0; x < d->width; x++) {
			if ((pixels[y * d->width + x] & 0xffffff) !=
				(x < d->width * 3 / 4 ? quad : rest)) {
				return false;
			}
		}
	}
	return true;
}
