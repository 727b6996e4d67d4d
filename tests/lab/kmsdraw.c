/* SPDX-License-Identifier: MIT
 *
 * kmsdraw [CARD]: draws on a guest's displays by the kernel's mode setting, without any library.
 *
 * It does what its standard input says, a line at a time, and answers each with a line:
 *
 *   info                  "ok", and for each connector NUMBER:STATE:PREFERRED-MODE
 *   mode N WxH            sets that mode on connector N, and shows frame 1
 *   texture N WxH         the same, but what is shown are textures, into which frames are uploaded
 *   frame N NUMBER        shows that frame, and answers when it is shown
 *   run, stop             shows one frame after the other on all connectors that have a mode
 *   number                "ok", and the number of the frame that is shown
 *   cursor N X Y NUMBER   the cursor of connector N, with that image; 0: the image that it has
 *   hide N                no cursor
 *   off N                 no mode
 *
 * What a frame looks like follows from its number and its connector (see paint); the tests compute
 * it again.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <libdrm/drm.h>
#include <libdrm/drm_fourcc.h>
#include <libdrm/drm_mode.h>
#include <libdrm/virtgpu_drm.h>

#define OUTPUTS_MAX 4
#define MODES_MAX   128
#define CURSOR_SIDE 64
/* As virglrenderer has them (virgl_hw.h). */
#define TARGET_2D   2
#define FORMAT_BGRX 2
#define BIND        (1 << 1 | 1 << 3 | 1 << 18) /* to be drawn to, sampled and shown */

struct buffer {
	uint32_t handle, fb, width, height, pitch;
	size_t size;
	bool texture;
	uint8_t *pixels; // NULL: there is none
};

struct output {
	uint32_t connector, crtc, connection;
	uint32_t n_modes;
	struct drm_mode_modeinfo modes[MODES_MAX];
	bool on;
	struct buffer buffers[2];
	int shown;
	struct buffer cursor;
};

struct card {
	int fd;
	uint32_t n_outputs;
	struct output outputs[OUTPUTS_MAX];
	bool running;
	uint32_t number; /* of the frame that run showed last */
};

static int call(const struct card *c, unsigned long request, void *arg)
{
	int r;

	do {
		r = ioctl(c->fd, request, arg);
	} while (r < 0 && (errno == EINTR || errno == EAGAIN));
	return r < 0 ? -errno : 0;
}

static void buffer_finish(const struct card *c, struct buffer *b)
{
	struct drm_mode_destroy_dumb destroy = {.handle = b->handle};

	if (!b->pixels) {
		return;
	}
	munmap(b->pixels, b->size);
	if (b->fb) {
		call(c, DRM_IOCTL_MODE_RMFB, &b->fb);
	}
	call(c, DRM_IOCTL_MODE_DESTROY_DUMB, &destroy);
	*b = (struct buffer){0};
}

/* 0 or -errno; then there is none. */
static int buffer_map(const struct card *c, struct buffer *b, uint64_t offset)
{
	void *pixels =
		mmap(NULL, b->size, PROT_READ | PROT_WRITE, MAP_SHARED, c->fd, (off_t)offset);

	if (pixels == MAP_FAILED) {
		return -errno;
	}
	b->pixels = pixels;
	return 0;
}

static int buffer_init_dumb(const struct card *c, struct buffer *b)
{
	struct drm_mode_create_dumb create = {.width = b->width, .height = b->height, .bpp = 32};
	struct drm_mode_map_dumb map = {0};
	int r = call(c, DRM_IOCTL_MODE_CREATE_DUMB, &create);

	if (r < 0) {
		return r;
	}
	b->handle = map.handle = create.handle;
	b->pitch = create.pitch;
	b->size = create.size;
	r = call(c, DRM_IOCTL_MODE_MAP_DUMB, &map);
	return r < 0 ? r : buffer_map(c, b, map.offset);
}

static int buffer_init_texture(const struct card *c, struct buffer *b)
{
	struct drm_virtgpu_resource_create create = {.target = TARGET_2D,
		.format = FORMAT_BGRX,
		.bind = BIND,
		.width = b->width,
		.height = b->height,
		.depth = 1,
		.array_size = 1,
		.size = b->width * b->height * 4};
	struct drm_virtgpu_map map = {0};
	int r = call(c, DRM_IOCTL_VIRTGPU_RESOURCE_CREATE, &create);

	if (r < 0) {
		return r;
	}
	b->handle = map.handle = create.bo_handle;
	b->pitch = b->width * 4;
	b->size = create.size;
	r = call(c, DRM_IOCTL_VIRTGPU_MAP, &map);
	return r < 0 ? r : buffer_map(c, b, map.offset);
}

static int buffer_init(
	const struct card *c, struct buffer *b, uint32_t width, uint32_t height, bool texture)
{
	*b = (struct buffer){.width = width, .height = height, .texture = texture};
	return texture ? buffer_init_texture(c, b) : buffer_init_dumb(c, b);
}

/* Its pixels into the texture, in four parts that are not of one size. */
static int buffer_upload(const struct card *c, const struct buffer *b)
{
	const uint32_t xs[] = {0, b->width / 3, b->width}, ys[] = {0, b->height / 5, b->height};
	struct drm_virtgpu_3d_wait wait = {.handle = b->handle};
	int r = 0;

	for (int i = 0; i < 4 && r == 0; i++) {
		uint32_t x = xs[i & 1], y = ys[i >> 1];
		struct drm_virtgpu_3d_transfer_to_host to = {.bo_handle = b->handle,
			.box = {x, y, 0, xs[(i & 1) + 1] - x, ys[(i >> 1) + 1] - y, 1},
			.offset = y * b->pitch + x * 4};

		r = call(c, DRM_IOCTL_VIRTGPU_TRANSFER_TO_HOST, &to);
	}
	return r < 0 ? r : call(c, DRM_IOCTL_VIRTGPU_WAIT, &wait);
}

static int buffer_frame(const struct card *c, struct buffer *b)
{
	struct drm_mode_fb_cmd2 add = {.width = b->width,
		.height = b->height,
		.pixel_format = DRM_FORMAT_XRGB8888,
		.handles = {b->handle},
		.pitches = {b->pitch}};
	int r = call(c, DRM_IOCTL_MODE_ADDFB2, &add);

	b->fb = add.fb_id;
	return r;
}

static void paint(struct buffer *b, uint32_t output, uint32_t number)
{
	for (uint32_t y = 0; y < b->height; y++) {
		uint32_t *row = (uint32_t *)(void *)(b->pixels + (size_t)y * b->pitch);
		uint32_t green = (y + 7 * number + 85 * output) & 255;

		for (uint32_t x = 0; x < b->width; x++) {
			uint32_t red = (x + 3 * number) & 255;
			uint32_t blue = (x / 64 * 64 + 31 * number) & 255;

			row[x] = red << 16 | green << 8 | blue;
		}
	}
}

static void paint_cursor(struct buffer *b, uint32_t number)
{
	for (uint32_t y = 0; y < CURSOR_SIDE; y++) {
		uint32_t *row = (uint32_t *)(void *)(b->pixels + (size_t)y * b->pitch);

		for (uint32_t x = 0; x < CURSOR_SIDE; x++) {
			row[x] = x + y < CURSOR_SIDE ? 0xff000000 | number << 16 | x << 8 | y : 0;
		}
	}
}

/* Waits for the flip of one output. */
static int wait_flip(const struct card *c)
{
	char events[1024];
	struct pollfd p = {.fd = c->fd, .events = POLLIN};

	if (poll(&p, 1, 10000) != 1) {
		return -ETIMEDOUT;
	}
	return read(c->fd, events, sizeof(events)) > 0 ? 0 : -errno;
}

static int show_frame(struct card *c, uint32_t index, uint32_t number)
{
	struct output *o = &c->outputs[index];
	struct buffer *b = &o->buffers[!o->shown];
	struct drm_mode_crtc_page_flip flip = {
		.crtc_id = o->crtc, .fb_id = b->fb, .flags = DRM_MODE_PAGE_FLIP_EVENT};
	int r;

	if (!o->on) {
		return -ENODEV;
	}
	paint(b, index, number);
	r = b->texture ? buffer_upload(c, b) : 0;
	if (r == 0) {
		r = call(c, DRM_IOCTL_MODE_PAGE_FLIP, &flip);
	}
	if (r == 0) {
		r = wait_flip(c);
	}
	if (r == 0) {
		o->shown = !o->shown;
	}
	return r;
}

static int off(struct card *c, uint32_t index)
{
	struct output *o = &c->outputs[index];
	struct drm_mode_crtc set = {.crtc_id = o->crtc};
	int r = call(c, DRM_IOCTL_MODE_SETCRTC, &set);

	o->on = false;
	buffer_finish(c, &o->buffers[0]);
	buffer_finish(c, &o->buffers[1]);
	return r;
}

static int set_mode(struct card *c, uint32_t index, uint32_t width, uint32_t height, bool texture)
{
	struct output *o = &c->outputs[index];
	struct drm_mode_crtc set = {.crtc_id = o->crtc,
		.set_connectors_ptr = (uintptr_t)&o->connector,
		.count_connectors = 1,
		.mode_valid = 1};
	struct buffer fresh[2] = {{0}};
	uint32_t i = 0;
	int r = 0;

	while (i < o->n_modes &&
		(o->modes[i].hdisplay != width || o->modes[i].vdisplay != height)) {
		i++;
	}
	if (i == o->n_modes) {
		return -EINVAL;
	}
	for (int k = 0; k < 2 && r == 0; k++) {
		r = buffer_init(c, &fresh[k], width, height, texture);
		if (r == 0) {
			r = buffer_frame(c, &fresh[k]);
		}
	}
	if (r < 0) {
		return r;
	}
	paint(&fresh[0], index, 1);
	r = texture ? buffer_upload(c, &fresh[0]) : 0;
	if (r < 0) {
		return r;
	}
	set.mode = o->modes[i];
	set.fb_id = fresh[0].fb;
	r = call(c, DRM_IOCTL_MODE_SETCRTC, &set);
	buffer_finish(c, &o->buffers[0]);
	buffer_finish(c, &o->buffers[1]);
	memcpy(o->buffers, fresh, sizeof(fresh));
	o->shown = 0;
	o->on = r == 0;
	return r;
}

static int set_cursor(struct card *c, uint32_t index, int x, int y, uint32_t number)
{
	struct output *o = &c->outputs[index];
	struct drm_mode_cursor2 cursor = {
		.flags = DRM_MODE_CURSOR_MOVE, .crtc_id = o->crtc, .x = x, .y = y};

	if (number) {
		/* Another buffer: the kernel tells the device of no other change. */
		buffer_finish(c, &o->cursor);
		int r = buffer_init(c, &o->cursor, CURSOR_SIDE, CURSOR_SIDE, false);

		if (r < 0) {
			return r;
		}
		paint_cursor(&o->cursor, number);
		cursor.flags |= DRM_MODE_CURSOR_BO;
		cursor.handle = o->cursor.handle;
		cursor.width = cursor.height = CURSOR_SIDE;
		cursor.hot_x = 3;
		cursor.hot_y = 5;
	}
	return call(c, DRM_IOCTL_MODE_CURSOR2, &cursor);
}

static int hide_cursor(struct card *c, uint32_t index)
{
	struct drm_mode_cursor2 cursor = {
		.flags = DRM_MODE_CURSOR_BO, .crtc_id = c->outputs[index].crtc};

	return call(c, DRM_IOCTL_MODE_CURSOR2, &cursor);
}

static int load_output(struct card *c, struct output *o)
{
	struct drm_mode_get_connector get = {.connector_id = o->connector};
	uint32_t encoder = 0;
	int r = call(c, DRM_IOCTL_MODE_GETCONNECTOR, &get); /* also looks what is plugged in now */

	if (r < 0 || get.count_modes > MODES_MAX) {
		return r < 0 ? r : -E2BIG;
	}
	get.modes_ptr = (uintptr_t)o->modes;
	get.encoders_ptr = (uintptr_t)&encoder;
	get.count_props = 0;
	get.count_encoders = 1;
	r = call(c, DRM_IOCTL_MODE_GETCONNECTOR, &get);
	o->n_modes = get.count_modes;
	o->connection = get.connection;
	return r;
}

static int load_card(struct card *c)
{
	uint32_t crtcs[OUTPUTS_MAX] = {0}, connectors[OUTPUTS_MAX] = {0};
	struct drm_mode_card_res res = {0};
	int r = call(c, DRM_IOCTL_MODE_GETRESOURCES, &res);

	if (r < 0) {
		return r;
	}
	if (res.count_crtcs > OUTPUTS_MAX || res.count_connectors > OUTPUTS_MAX) {
		return -E2BIG;
	}
	res.crtc_id_ptr = (uintptr_t)crtcs;
	res.connector_id_ptr = (uintptr_t)connectors;
	res.count_fbs = res.count_encoders = 0;
	r = call(c, DRM_IOCTL_MODE_GETRESOURCES, &res);
	if (r < 0) {
		return r;
	}
	/* As virtio-gpu has them: each connector with a crtc of its own. */
	c->n_outputs = res.count_connectors;
	for (uint32_t i = 0; i < c->n_outputs && r == 0; i++) {
		c->outputs[i].connector = connectors[i];
		c->outputs[i].crtc = crtcs[i];
		r = load_output(c, &c->outputs[i]);
	}
	return r;
}

static int print_info(struct card *c)
{
	int r = 0;

	for (uint32_t i = 0; i < c->n_outputs && r == 0; i++) {
		r = load_output(c, &c->outputs[i]);
	}
	if (r < 0) {
		return r;
	}
	printf("ok");
	for (uint32_t i = 0; i < c->n_outputs; i++) {
		const struct output *o = &c->outputs[i];
		uint32_t preferred = 0;

		while (preferred < o->n_modes &&
			!(o->modes[preferred].type & DRM_MODE_TYPE_PREFERRED)) {
			preferred++;
		}
		if (preferred < o->n_modes) {
			printf(" %u:%u:%ux%u", i, o->connection, o->modes[preferred].hdisplay,
				o->modes[preferred].vdisplay);
		} else {
			printf(" %u:%u:none", i, o->connection);
		}
	}
	printf("\n");
	return 1;
}

/* 0, 1 if it answered already, -errno. */
static int obey(struct card *c, const char *line)
{
	char verb[16] = "";
	unsigned int n = 0, a = 0, b = 0, number = 0;
	int words = sscanf(line, "%15s %u %u%*1[x ]%u %u", verb, &n, &a, &b, &number);

	if (words >= 2 && n >= c->n_outputs) {
		return -ENODEV;
	}
	if (strcmp(verb, "info") == 0) {
		return print_info(c);
	} else if ((strcmp(verb, "mode") == 0 || strcmp(verb, "texture") == 0) && words == 4) {
		return set_mode(c, n, a, b, verb[0] == 't');
	} else if (strcmp(verb, "frame") == 0 && words == 3) {
		return show_frame(c, n, a);
	} else if (strcmp(verb, "cursor") == 0 && words >= 4) {
		return set_cursor(c, n, (int)a, (int)b, number);
	} else if (strcmp(verb, "hide") == 0 && words == 2) {
		return hide_cursor(c, n);
	} else if (strcmp(verb, "off") == 0 && words == 2) {
		return off(c, n);
	} else if (strcmp(verb, "run") == 0 || strcmp(verb, "stop") == 0 ||
		   strcmp(verb, "number") == 0) {
		c->running = verb[0] == 'n' ? c->running : verb[0] == 'r';
		printf("ok %u\n", c->number);
		return 1;
	}
	return -EINVAL;
}

static int next_frame(struct card *c)
{
	int r = 0;

	for (uint32_t i = 0; i < c->n_outputs && r == 0; i++) {
		if (c->outputs[i].on) {
			r = show_frame(c, i, c->number + 1);
		}
	}
	c->number++;
	return r;
}

static bool has_line(void)
{
	struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};

	return poll(&p, 1, 0) == 1;
}

int main(int argc, char **argv)
{
	static struct card card = {.number = 1};
	char line[128];
	int r = 0;

	/* So that poll() tells all that there is. */
	setvbuf(stdin, NULL, _IONBF, 0);
	setvbuf(stdout, NULL, _IOLBF, 0);
	card.fd = open(argc > 1 ? argv[1] : "/dev/dri/card0", O_RDWR | O_CLOEXEC);
	r = card.fd < 0 ? -errno : load_card(&card);
	if (r < 0) {
		printf("error %s\n", strerror(-r));
		return 1;
	}
	for (;;) {
		if (card.running && !has_line()) {
			r = next_frame(&card);
			if (r < 0) {
				fprintf(stderr, "frame %u: %s\n", card.number, strerror(-r));
				card.running = false;
			}
			continue;
		}
		if (!fgets(line, sizeof(line), stdin)) {
			return 0;
		}
		r = obey(&card, line);
		if (r == 0) {
			printf("ok\n");
		} else if (r < 0) {
			printf("error %s\n", strerror(-r));
		}
	}
}
