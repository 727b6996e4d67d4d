/* SPDX-License-Identifier: MIT
 *
 * What the renderer shows, and copies of it for the parent. A renderer may be taken over: what it
 * says is a DMABUF is looked at as far as that can be done without a GPU, never mapped, and goes to
 * nobody but the VMM whose guest took that renderer over.
 *
 * What is shown from a DMABUF can only be copied by who drew it: the renderer is asked to read it
 * back into the image, and the parent has its answer when that is done.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/fd.h"
#include "gpu/front-internal.h"

static_assert((int)DISPLAY_DMABUFS_NONE == (int)LINK_DMABUFS_NONE &&
		      (int)DISPLAY_DMABUFS_PLAIN == (int)LINK_DMABUFS_PLAIN &&
		      (int)DISPLAY_DMABUFS_ALL == (int)LINK_DMABUFS_ALL,
	"the display's answer is passed on as it is");

/* The picture of this number, which is new if its fd came. */
static int find_picture(struct front *f, const struct link_scanout *s, int fd, struct picture **out)
{
	struct picture *p = pictures_find(&f->pictures, s->image);

	if (p && p->width == s->width && p->height == s->height) {
		*out = p;
		return 0;
	}
	return p || fd < 0 ? -EBADF
			   : pictures_add(&f->pictures, s->image, s->width, s->height, fd, out);
}

static int add_dmabuf(struct front *f, const struct link_scanout *s, struct picture *p, int *fd)
{
	const struct dmabuf d = {.fd = *fd,
		.fourcc = s->fourcc,
		.stride = s->stride,
		.flags = s->flags,
		.modifier = s->modifier};
	int r = dmabuf_check(&d, s->width, s->height);

	if (r == 0) {
		r = pictures_add_dmabuf(&f->pictures, p, &d);
	}
	if (r == 0) {
		*fd = -1;
	}
	return r;
}

const char *front_picture_show(struct front *f, const struct link_scanout *s, int fds[static 2])
{
	const struct display_rect rect = {s->x, s->y, s->scanout_width, s->scanout_height};
	const bool has_image = s->fds & LINK_HAS_IMAGE;
	struct picture *p;

	if (s->image == 0) {
		display_show(f->display, s->scanout, NULL, NULL);
		return NULL;
	}
	if (find_picture(f, s, has_image ? fds[0] : -1, &p) < 0) {
		return "a picture that can't be shown";
	}
	if (rect.width == 0 || rect.height == 0 || rect.width > p->width ||
		rect.height > p->height || rect.x > p->width - rect.width ||
		rect.y > p->height - rect.height) {
		return "a scanout outside of its picture";
	}
	if (s->fds & LINK_HAS_DMABUF && add_dmabuf(f, s, p, &fds[has_image]) < 0) {
		return "a DMABUF that is none, or too many";
	}
	if (s->from_dmabuf && p->dmabuf.fd < 0) {
		return "a scanout from a DMABUF that it has not sent";
	}
	if (s->from_dmabuf) {
		display_show_dmabuf(f->display, s->scanout, p, &rect);
	} else {
		display_show(f->display, s->scanout, p, &rect);
	}
	return NULL;
}

void front_picture_dmabufs(void *userdata, enum display_dmabufs which)
{
	struct front *f = userdata;
	union link_msg m;

	if (f->dmabufs == which) {
		return;
	}
	f->dmabufs = which;
	link_init(&m, LINK_DMABUFS);
	m.dmabufs.which = which;
	front_renderer_send(f, &m, NULL, 0);
}

/* Copies rect of a picture, as it is now, into a memfd. */
static int copy(const struct picture *p, const struct display_rect *rect, int *fd_out)
{
	size_t row = (size_t)rect->width * PICTURE_PIXEL_BYTES;
	size_t stride = (size_t)p->width * PICTURE_PIXEL_BYTES;
	_cleanup_close_ int fd = memfd_create("devbroker-screenshot", MFD_CLOEXEC);
	const uint8_t *base = p->pixels + rect->y * stride + (size_t)rect->x * PICTURE_PIXEL_BYTES;
	uint8_t *map;
	int r = fd < 0 ? -errno : fd_extend(fd, row * rect->height);

	if (r < 0) {
		return r;
	}
	map = mmap(NULL, row * rect->height, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED) {
		return -errno;
	}
	for (uint32_t y = 0; y < rect->height; y++) {
		memcpy(map + y * row, base + y * stride, row);
	}
	munmap(map, row * rect->height);
	*fd_out = steal_fd(&fd);
	return 0;
}

/* With the picture, unless error is set. */
static void answer(struct front *f, const struct parent_msg *ask, int error)
{
	struct parent_msg m = {.type = PARENT_PICTURE, .scanout = ask->scanout, .seq = ask->seq};
	_cleanup_close_ int fd = -1;
	struct display_rect rect;
	const struct picture *p = display_shown(f->display, ask->scanout, &rect);

	m.error = error ? error : p ? copy(p, &rect, &fd) : -ENOENT;
	if (m.error == 0) {
		m.width = rect.width;
		m.height = rect.height;
	}
	front_parent_say(f, &m, fd);
}

/* Asks the renderer for it; answered by READ_DONE, or when the renderer is lost. */
static void read_back(struct front *f, const struct front_shot *from)
{
	struct front_shot *shot = &f->shots[f->n_shots++];
	union link_msg m;

	*shot = *from;
	shot->seq = ++f->shot_seq;
	shot->tries++;
	link_init(&m, LINK_READ_BACK);
	m.read_back.scanout = shot->ask.scanout;
	m.read_back.seq = shot->seq;
	front_renderer_send(f, &m, NULL, 0);
}

void front_picture_copy(struct front *f, const struct parent_msg *ask)
{
	const struct front_shot shot = {.ask = *ask};

	if (!display_shows_dmabuf(f->display, ask->scanout)) {
		answer(f, ask, 0);
	} else if (!f->link_ready || f->n_shots == FRONT_SHOTS_MAX) {
		answer(f, ask, -EAGAIN);
	} else {
		read_back(f, &shot);
		front_watch_ask(f);
	}
}

/* Another picture may be shown there by now, whose pixels were not read: it is asked again, but not
 * for ever. image 0: the picture of a renderer that is no more, whose pixels are nowhere. */
static void take_read(struct front *f, const struct front_shot *shot, uint32_t image)
{
	struct display_rect rect;
	const struct picture *p = display_shown(f->display, shot->ask.scanout, &rect);

	if (image != 0 && p && p->number != image && shot->tries < FRONT_SHOT_TRIES &&
		display_shows_dmabuf(f->display, shot->ask.scanout)) {
		read_back(f, shot);
	} else {
		answer(f, &shot->ask, image == 0 ? -EAGAIN : 0);
	}
}

void front_picture_read(struct front *f, const struct link_read_back *done)
{
	for (size_t i = 0; i < f->n_shots;) {
		const struct front_shot shot = f->shots[i];

		if (shot.ask.scanout != done->scanout || shot.seq > done->seq) {
			i++;
			continue;
		}
		f->shots[i] = f->shots[--f->n_shots];
		take_read(f, &shot, done->image);
	}
}

void front_picture_lost(struct front *f)
{
	const size_t n = f->n_shots;

	f->n_shots = 0;
	for (size_t i = 0; i < n; i++) {
		answer(f, &f->shots[i].ask, -EAGAIN);
	}
}
