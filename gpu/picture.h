/* SPDX-License-Identifier: MIT
 * Images of the renderer as the front sees them: mapped read-only, shown from where they lie; some
 * also as DMABUFs, which are passed on.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/list.h"
#include "gpu/dmabuf.h"

#define PICTURE_PIXEL_BYTES 4
/* Of both sides; what virtio-gpu's 2D resources may have. */
#define PICTURE_SIDE_MAX 16384

struct picture {
	struct list link; // pictures::list
	unsigned int refs;
	uint32_t number; /* the renderer's; another picture of another renderer may have the same */
	uint32_t width;
	uint32_t height;
	const uint8_t *pixels; /* rows of width pixels, B8G8R8X8, without gaps */
	size_t size;           /* of the mapping */
	struct dmabuf dmabuf;  /* the same picture, newer than pixels; fd -1: there is none */
};

struct pictures {
	struct list list; // picture::link
	size_t n;
	size_t n_dmabufs; /* of those in list */
};

/* Pictures that a renderer can have the front hold; how many of them with a DMABUF, each of which
 * takes an fd. */
#define PICTURES_MAX         1024
#define PICTURES_DMABUFS_MAX 64

void pictures_init(struct pictures *p);
/* Forgets all; those that are still referred to live on until they are not. */
void pictures_finish(struct pictures *p);

/* The picture of this number, or NULL. */
struct picture *pictures_find(struct pictures *p, uint32_t number);
/* Maps a new one from fd (borrowed). 0; -EINVAL if it is not a memfd that can't shrink, or too
 * small for its size; -E2BIG; -errno. */
int pictures_add(struct pictures *p, uint32_t number, uint32_t width, uint32_t height, int fd,
	struct picture **out) _must_check_;
/* It is a DMABUF as well: one that dmabuf_check takes for one of its size. Its fd is taken when 0
 * is returned. -EEXIST: it has one; -E2BIG. */
int pictures_add_dmabuf(
	struct pictures *p, struct picture *picture, const struct dmabuf *d) _must_check_;
/* Forgets one, or (number 0) all that nobody refers to. */
void pictures_forget(struct pictures *p, uint32_t number);

struct picture *picture_ref(struct picture *p);
/* Returns NULL. NULL is fine. */
struct picture *picture_unref(struct picture *p);
