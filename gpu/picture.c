/* SPDX-License-Identifier: MIT */
#include "gpu/picture.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/checked.h"
#include "base/fd.h"

/* A file that can be cut off would end us with SIGBUS whenever its renderer pleases. */
#define SEALS_NEEDED F_SEAL_SHRINK

void pictures_init(struct pictures *p)
{
	list_init(&p->list);
	p->n = p->n_dmabufs = 0;
}

static void forget(struct pictures *p, struct picture *picture)
{
	list_remove(&picture->link);
	p->n--;
	p->n_dmabufs -= picture->dmabuf.fd >= 0;
	picture_unref(picture);
}

void pictures_finish(struct pictures *p)
{
	struct picture *picture, *next;

	list_for_each_safe (picture, next, &p->list, link) {
		forget(p, picture);
	}
}

struct picture *pictures_find(struct pictures *p, uint32_t number)
{
	struct picture *picture;

	list_for_each (picture, &p->list, link) {
		if (picture->number == number) {
			return picture;
		}
	}
	return NULL;
}

static int check_file(int fd, size_t size)
{
	struct stat st;
	int seals = fcntl(fd, F_GET_SEALS);

	if (seals < 0 || (seals & SEALS_NEEDED) != SEALS_NEEDED) {
		return -EINVAL;
	}
	if (fstat(fd, &st) < 0) {
		return -errno;
	}
	return (uint64_t)st.st_size >= size ? 0 : -EINVAL;
}

int pictures_add(struct pictures *p, uint32_t number, uint32_t width, uint32_t height, int fd,
	struct picture **out)
{
	struct picture *picture;
	size_t size;
	void *map;
	int r;

	if (p->n == PICTURES_MAX) {
		return -E2BIG;
	}
	if (number == 0 || width == 0 || height == 0 || width > PICTURE_SIDE_MAX ||
		height > PICTURE_SIDE_MAX) {
		return -EINVAL;
	}
	size = (size_t)width * height * PICTURE_PIXEL_BYTES;
	r = check_file(fd, size);
	if (r < 0) {
		return r;
	}
	picture = calloc(1, sizeof(*picture));
	if (!picture) {
		return -ENOMEM;
	}
	map = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED) {
		r = -errno;
		free(picture);
		return r;
	}
	*picture = (struct picture){.refs = 1,
		.number = number,
		.width = width,
		.height = height,
		.pixels = map,
		.size = size,
		.dmabuf.fd = -1};
	pictures_forget(p, number);
	list_append(&p->list, &picture->link);
	p->n++;
	*out = picture;
	return 0;
}

int pictures_add_dmabuf(struct pictures *p, struct picture *picture, const struct dmabuf *d)
{
	if (picture->dmabuf.fd >= 0) {
		return -EEXIST;
	}
	if (p->n_dmabufs == PICTURES_DMABUFS_MAX) {
		return -E2BIG;
	}
	picture->dmabuf = *d;
	p->n_dmabufs++;
	return 0;
}

void pictures_forget(struct pictures *p, uint32_t number)
{
	struct picture *picture, *next;

	list_for_each_safe (picture, next, &p->list, link) {
		if (picture->number == number || (number == 0 && picture->refs == 1)) {
			forget(p, picture);
		}
	}
}

struct picture *picture_ref(struct picture *p)
{
	p->refs++;
	return p;
}

struct picture *picture_unref(struct picture *p)
{
	if (p && --p->refs == 0) {
		munmap((void *)(uintptr_t)p->pixels, p->size);
		safe_close(p->dmabuf.fd);
		free(p);
	}
	return NULL;
}
