/* SPDX-License-Identifier: MIT
 *
 * gpubomb MODE [N]: draws in 3D inside a guest by the kernel's virtgpu calls, without any library:
 * steadily, or as harmfully as it can. It says what came of it in one line; whether something was
 * drawn it knows from pixels that it reads back.
 *
 *   frames SECONDS     one frame after the other, each waited for: how many, and microseconds of
 * the median, the 99th percentile and the longest polite SECONDS     the same; also keeps the
 * guest's CPU busy meanwhile, as a bomb does memory N           N textures of 1 MiB, kept; draws in
 * each. Ends when its input does huge N             N textures of 16384 by 16384 contexts N N
 * contexts at once; draws in each shader             fragments that are never done commands SECONDS
 * command buffers full of small draws, none waited for fences SECONDS     empty command buffers,
 * each with a fence
 *
 * What the numbers in command buffers mean: virglrenderer's virgl_protocol.h, and virgl_hw.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <libdrm/virtgpu_drm.h>

#define NODE         "/dev/dri/renderD128"
#define TARGET_2D    2
#define FORMAT_RGBA  67
#define BIND         (1 << 1 | 1 << 3) /* to be drawn to, and to be sampled */
#define SIDE         512               /* 1 MiB */
#define HUGE_SIDE    16384
#define SMALL_SIDE   16
#define FRAME_SIDE   128
#define FRAME_TURNS  40
#define FRAMES_MAX   200000
#define CONTEXTS_MAX 1024
#define FLOOD_DRAWS  2000
#define LONG_SIDE    1024
#define LONG_TURNS   12
#define PAGE         4096
#define SHADER_WORDS 512
#define TRIANGLES    4
#define ALL_COLOURS  (15U << 27)

enum {
	CREATE_OBJECT = 1,
	BIND_OBJECT,
	VIEWPORT = 4,
	FRAMEBUFFER,
	CLEAR = 7,
	DRAW,
	BIND_SHADER = 31
};
enum { BLEND = 1, SHADER = 4, VERTEX_ELEMENTS, SURFACE = 8 };
enum { HANDLE_VERTEX = 1, HANDLE_FRAGMENT, HANDLE_ELEMENTS, HANDLE_SURFACE, HANDLE_BLEND };

struct texture {
	uint32_t handle, resource, side;
	uint32_t *pixels; // the guest's copy; NULL: there is none
	size_t size;
};

struct stream {
	uint32_t words[FLOOD_DRAWS * 13 + 1024];
	uint32_t n;
};

static void die(const char *what)
{
	printf("gpubomb: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static int open_node(void)
{
	int fd = open(NODE, O_RDWR | O_CLOEXEC);

	if (fd < 0) {
		die(NODE);
	}
	return fd;
}

static int call(int fd, unsigned long request, void *arg)
{
	int r;

	do {
		r = ioctl(fd, request, arg);
	} while (r < 0 && (errno == EINTR || errno == EAGAIN));
	return r;
}

/* The kernel doesn't wait for the device's answer: this succeeds also where that refuses. backed:
 * by as much of the guest's memory as it has pixels, else by a page. */
static struct texture make_texture(int fd, uint32_t side, bool backed)
{
	struct texture t = {.side = side, .size = backed ? (size_t)side * side * 4 : PAGE};
	struct drm_virtgpu_resource_create create = {.target = TARGET_2D,
		.format = FORMAT_RGBA,
		.bind = BIND,
		.width = side,
		.height = side,
		.depth = 1,
		.array_size = 1,
		.size = (uint32_t)t.size};
	struct drm_virtgpu_map map = {0};

	if (call(fd, DRM_IOCTL_VIRTGPU_RESOURCE_CREATE, &create) < 0) {
		die("a texture");
	}
	t.handle = map.handle = create.bo_handle;
	t.resource = create.res_handle;
	if (call(fd, DRM_IOCTL_VIRTGPU_MAP, &map) < 0) {
		die("its pixels");
	}
	t.pixels = mmap(NULL, t.size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)map.offset);
	if (t.pixels == MAP_FAILED) {
		die("its pixels");
	}
	return t;
}

static void wait_for(int fd, const struct texture *t)
{
	struct drm_virtgpu_3d_wait wait = {.handle = t->handle};

	/* EBUSY: the kernel waits for 15 s. */
	while (call(fd, DRM_IOCTL_VIRTGPU_WAIT, &wait) < 0) {
		if (errno != EBUSY) {
			die("a fence");
		}
	}
}

/* t (may be NULL) can be waited for. */
static int submit(int fd, const struct stream *s, const struct texture *t)
{
	struct drm_virtgpu_execbuffer e = {.size = s->n * 4, .command = (uintptr_t)s->words};

	if (t) {
		e.bo_handles = (uintptr_t)&t->handle;
		e.num_bo_handles = 1;
	}
	return call(fd, DRM_IOCTL_VIRTGPU_EXECBUFFER, &e);
}

static void put(struct stream *s, uint32_t word)
{
	s->words[s->n++] = word;
}

static void put_float(struct stream *s, float f)
{
	memcpy(&s->words[s->n++], &f, sizeof(f));
}

static void put_command(struct stream *s, uint32_t command, uint32_t object, uint32_t length)
{
	put(s, command | object << 8 | length << 16);
}

/* From now on it is drawn into t. */
static void put_target(struct stream *s, const struct texture *t)
{
	put_command(s, CREATE_OBJECT, SURFACE, 5);
	put(s, HANDLE_SURFACE);
	put(s, t->resource);
	put(s, FORMAT_RGBA);
	put(s, 0);
	put(s, 0);
	put_command(s, FRAMEBUFFER, 0, 3);
	put(s, 1);
	put(s, 0);
	put(s, HANDLE_SURFACE);
}

static void put_clear(struct stream *s, float red)
{
	put_command(s, CLEAR, 0, 8);
	put(s, 4); /* colour */
	put_float(s, red);
	for (int i = 0; i < 6; i++) {
		put(s, 0);
	}
}

static void put_shader(struct stream *s, uint32_t handle, uint32_t type, const char *text)
{
	uint32_t bytes = (uint32_t)strlen(text) + 1, words = (bytes + 3) / 4;

	put_command(s, CREATE_OBJECT, SHADER, 5 + words);
	put(s, handle);
	put(s, type);
	put(s, bytes);
	put(s, 300); /* tokens, at most */
	put(s, 0);
	memset(&s->words[s->n], 0, (size_t)words * 4);
	memcpy(&s->words[s->n], text, bytes);
	s->n += words;
	put_command(s, BIND_SHADER, 0, 2);
	put(s, handle);
	put(s, type);
}

/* One triangle over everything, from the numbers of its corners. */
static const char vertex_shader[] = "VERT\n"
				    "DCL SV[0],VERTEXID\n"
				    "DCL OUT[0],POSITION\n"
				    "DCL TEMP[0]\n"
				    "IMM[0] UINT32 {1,2,0,0}\n"
				    "IMM[1] FLT32 {4.0,2.0,-1.0,0.0}\n"
				    "IMM[2] FLT32 {0.0,0.0,0.0,1.0}\n"
				    "MOV TEMP[0],IMM[2]\n"
				    "AND TEMP[0].x,SV[0].xxxx,IMM[0].xxxx\n"
				    "AND TEMP[0].y,SV[0].xxxx,IMM[0].yyyy\n"
				    "U2F TEMP[0].xy,TEMP[0]\n"
				    "MAD TEMP[0].xy,TEMP[0],IMM[1],IMM[1].zzzz\n"
				    "MOV OUT[0],TEMP[0]\n"
				    "END";

/* Red, after so many turns that each take long. llvmpipe leaves a loop after 65535. */
static void put_pipeline(struct stream *s, uint32_t side, uint32_t turns)
{
	char text[SHADER_WORDS * 4];

	snprintf(text, sizeof(text),
		"FRAG\n"
		"DCL OUT[0],COLOR\n"
		"DCL TEMP[0..2]\n"
		"IMM[0] UINT32 {0,1,%u,0}\n"
		"IMM[1] FLT32 {1.0,0.0,0.0,0.5}\n"
		"MOV TEMP[0],IMM[1].wwww\n"
		"MOV TEMP[1],IMM[0].xxxx\n"
		"BGNLOOP\n"
		"USGE TEMP[2].x,TEMP[1].xxxx,IMM[0].zzzz\n"
		"UIF TEMP[2].xxxx\nBRK\nENDIF\n"
		"SIN TEMP[0],TEMP[0]\n"
		"COS TEMP[0],TEMP[0]\n"
		"UADD TEMP[1].x,TEMP[1].xxxx,IMM[0].yyyy\n"
		"ENDLOOP\n"
		/* Between 0 and 1 it always is: without this, it would not be computed. */
		"MAX TEMP[0].x,TEMP[0].xxxx,IMM[1].xxxx\n"
		"MOV OUT[0],IMM[1]\n"
		"MOV OUT[0].x,TEMP[0].xxxx\nEND",
		turns);
	put_shader(s, HANDLE_VERTEX, 0, vertex_shader);
	put_shader(s, HANDLE_FRAGMENT, 1, text);
	put_command(s, CREATE_OBJECT, BLEND, 11);
	put(s, HANDLE_BLEND);
	put(s, 0);
	put(s, 0);
	for (int i = 0; i < 8; i++) {
		put(s, ALL_COLOURS);
	}
	put_command(s, BIND_OBJECT, BLEND, 1);
	put(s, HANDLE_BLEND);
	put_command(s, CREATE_OBJECT, VERTEX_ELEMENTS, 1);
	put(s, HANDLE_ELEMENTS);
	put_command(s, BIND_OBJECT, VERTEX_ELEMENTS, 1);
	put(s, HANDLE_ELEMENTS);
	put_command(s, VIEWPORT, 0, 7);
	put(s, 0);
	for (int i = 0; i < 2; i++) { /* how large, and where its middle is */
		put_float(s, (float)side / 2);
		put_float(s, (float)side / 2);
		put_float(s, 0.5f);
	}
}

static void put_draw(struct stream *s)
{
	const uint32_t words[] = {0, 3, TRIANGLES, 0, 1, 0, 0, 0, 0, 0, 2, 0};

	put_command(s, DRAW, 0, 12);
	memcpy(&s->words[s->n], words, sizeof(words));
	s->n += 12;
}

/* Whether its first pixel is red in the renderer, too. */
static bool is_red(int fd, const struct texture *t)
{
	struct drm_virtgpu_3d_transfer_from_host from = {
		.bo_handle = t->handle, .box = {0, 0, 0, 1, 1, 1}};

	*(volatile uint32_t *)t->pixels = 0;
	if (call(fd, DRM_IOCTL_VIRTGPU_TRANSFER_FROM_HOST, &from) < 0) {
		die("its pixels");
	}
	wait_for(fd, t);
	return (*(volatile uint32_t *)t->pixels & 0xffffff) == 0xff;
}

/* Clears it, and looks. */
static bool draws(int fd, const struct texture *t)
{
	static struct stream s;

	s.n = 0;
	put_target(&s, t);
	put_clear(&s, 1);
	return submit(fd, &s, t) == 0 && is_red(fd, t);
}

static int compare(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static int frames(unsigned int seconds)
{
	static uint32_t us[FRAMES_MAX];
	static struct stream first, frame;
	int fd = open_node();
	struct texture t = make_texture(fd, FRAME_SIDE, true);
	uint64_t start, at, until;
	uint32_t n = 0;

	put_target(&first, &t);
	put_pipeline(&first, FRAME_SIDE, FRAME_TURNS);
	put_draw(&frame);
	/* The first is compiled. */
	if (submit(fd, &first, &t) < 0 || submit(fd, &frame, &t) < 0 || !is_red(fd, &t)) {
		die("nothing is drawn");
	}
	at = now_us();
	until = at + seconds * UINT64_C(1000000);
	for (start = at; n < FRAMES_MAX && at < until; start = at) {
		if (submit(fd, &frame, &t) < 0) {
			die("a frame");
		}
		wait_for(fd, &t);
		at = now_us();
		us[n++] = (uint32_t)(at - start);
	}
	qsort(us, n, sizeof(us[0]), compare);
	printf("frames: %u, %u %u %u us%s\n", n, us[n / 2], us[n - 1 - n / 100], us[n - 1],
		is_red(fd, &t) ? "" : "; and nothing is drawn any more");
	return 0;
}

/* Keeps the guest's CPU busy with nothing, and lets everybody else go first. */
_Noreturn static void spin(void)
{
	if (nice(19) < 0) {
		die("its priority");
	}
	for (;;) {
	}
}

static int memory(unsigned int n)
{
	int fd = open_node();
	unsigned int drawn = 0;
	char c;

	for (unsigned int i = 0; i < n; i++) {
		struct texture t = make_texture(fd, SIDE, false);

		drawn += draws(fd, &t);
	}
	printf("memory: %u of %u textures drawn\n", drawn, n);
	fflush(stdout);
	return read(STDIN_FILENO, &c, 1) < 0;
}

static int huge(unsigned int n)
{
	unsigned int drawn = 0;

	for (unsigned int i = 0; i < n; i++) {
		int fd = open_node();
		struct texture t = make_texture(fd, HUGE_SIDE, false);

		drawn += draws(fd, &t);
		munmap(t.pixels, t.size);
		close(fd);
	}
	printf("huge: %u of %u textures drawn\n", drawn, n);
	return 0;
}

static int contexts(unsigned int n)
{
	static int fds[CONTEXTS_MAX];
	static struct texture t[CONTEXTS_MAX];
	unsigned int first = 0, still = 0;

	for (unsigned int i = 0; i < n; i++) {
		fds[i] = open_node();
		t[i] = make_texture(fds[i], SMALL_SIDE, true);
		first += draws(fds[i], &t[i]);
	}
	for (unsigned int i = 0; i < n; i++) {
		still += draws(fds[i], &t[i]);
	}
	printf("contexts: %u of %u draw, %u at once\n", first, n, still);
	return 0;
}

static int shader(unsigned int side)
{
	static struct stream s;
	int fd = open_node();
	struct texture t = make_texture(fd, side, false);
	uint64_t start = now_us();

	put_target(&s, &t);
	put_pipeline(&s, side, UINT32_MAX);
	put_draw(&s);
	if (submit(fd, &s, &t) < 0) {
		die("its commands");
	}
	wait_for(fd, &t);
	printf("shader: %llu ms, %s\n", (unsigned long long)(now_us() - start) / 1000,
		is_red(fd, &t) ? "drawn" : "not drawn");
	return 0;
}

/* Command buffers of so many draws each, none waited for. */
static int flood(
	const char *mode, unsigned int seconds, uint32_t side, uint32_t turns, uint32_t draws)
{
	static struct stream first, s;
	int fd = open_node();
	struct texture t = make_texture(fd, side, false);
	uint64_t until = now_us() + seconds * UINT64_C(1000000);
	unsigned int n = 0;

	put_target(&first, &t);
	put_pipeline(&first, side, turns);
	for (uint32_t i = 0; i < draws; i++) {
		put_draw(&s);
	}
	if (draws == 0) {
		put(&s, 0); /* a NOP */
	}
	if (submit(fd, &first, NULL) < 0) {
		die("its first commands");
	}
	for (; now_us() < until; n++) {
		if (submit(fd, &s, &t) < 0) {
			die("its commands");
		}
	}
	printf("%s: %u\n", mode, n);
	return 0;
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "";
	unsigned int n = argc > 2 ? (unsigned int)strtoul(argv[2], NULL, 10) : 1;

	if (strcmp(mode, "frames") == 0) {
		return frames(n);
	} else if (strcmp(mode, "spin") == 0) {
		spin();
	} else if (strcmp(mode, "memory") == 0) {
		return memory(n);
	} else if (strcmp(mode, "huge") == 0) {
		return huge(n);
	} else if (strcmp(mode, "contexts") == 0 && n <= CONTEXTS_MAX) {
		return contexts(n);
	} else if (strcmp(mode, "shader") == 0) {
		return shader(argc > 2 ? n : 2048);
	} else if (strcmp(mode, "commands") == 0) {
		return flood(mode, n, SMALL_SIDE, 1, FLOOD_DRAWS);
	} else if (strcmp(mode, "long") == 0) {
		return flood(mode, n, LONG_SIDE, LONG_TURNS, 1);
	} else if (strcmp(mode, "fences") == 0) {
		return flood(mode, n, SMALL_SIDE, 1, 0);
	}
	fprintf(stderr, "gpubomb: no such mode\n");
	return 2;
}
