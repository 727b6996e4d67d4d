/* SPDX-License-Identifier: MIT
 *
 * By EGL_MESA_image_dma_buf_export. virglrenderer's own function says nothing of modifiers and
 * planes before 1.0, and of a tiled texture both have to be known. EGL is opened when it is wanted,
 * as virglrenderer is, which has a context current in this thread. Names and numbers are those of
 * the Khronos registry.
 */
#include "gpu/virgl-export.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "base/fd.h"
#include "gpu/dmabuf.h"

#define LIBRARY           "libEGL.so.1"
#define EXTENSION         "EGL_MESA_image_dma_buf_export"
#define EGL_EXTENSIONS    0x3055
#define EGL_GL_TEXTURE_2D 0x30b1
#define PLANES_MAX        4

struct egl {
	void *(*current_display)(void);
	void *(*current_context)(void);
	const char *(*query_string)(void *display, int32_t name);
	void *(*create_image)(void *display, void *context, unsigned int target, void *buffer,
		const int32_t *attributes);
	unsigned int (*destroy_image)(void *display, void *image);
	unsigned int (*query)(
		void *display, void *image, int *fourcc, int *n_planes, uint64_t *modifiers);
	unsigned int (*export)(
		void *display, void *image, int *fds, int32_t *strides, int32_t *offsets);
};

static bool load(struct egl *e)
{
	void *lib = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
	void *(*get)(const char *) =
		lib ? (void *(*)(const char *))dlsym(lib, "eglGetProcAddress") : NULL;

	if (!get) {
		return false;
	}
#define LOOK_UP(member, name) e->member = (__typeof__(e->member))get(name)
	LOOK_UP(current_display, "eglGetCurrentDisplay");
	LOOK_UP(current_context, "eglGetCurrentContext");
	LOOK_UP(query_string, "eglQueryString");
	LOOK_UP(create_image, "eglCreateImageKHR");
	LOOK_UP(destroy_image, "eglDestroyImageKHR");
	LOOK_UP(query, "eglExportDMABUFImageQueryMESA");
	LOOK_UP(export, "eglExportDMABUFImageMESA");
#undef LOOK_UP
	return e->current_display && e->current_context && e->query_string && e->create_image &&
	       e->destroy_image && e->query && e->export;
}

/* Functions may be there for an extension that is not. */
static bool can_export(const struct egl *e, void *display)
{
	const char *all = display ? e->query_string(display, EGL_EXTENSIONS) : NULL;

	return all && strstr(all, EXTENSION);
}

static int export_image(
	const struct egl *e, void *display, void *image, struct dmabuf *out, uint32_t *offset_out)
{
	int fds[PLANES_MAX] = {-1, -1, -1, -1}, fourcc = 0, planes = 0;
	int32_t strides[PLANES_MAX] = {0}, offsets[PLANES_MAX] = {0};
	uint64_t modifiers[PLANES_MAX] = {0};

	if (!e->query(display, image, &fourcc, &planes, modifiers) || planes != 1 ||
		!e->export(display, image, fds, strides, offsets) || fds[0] < 0 || strides[0] < 0 ||
		offsets[0] < 0) {
		safe_close(fds[0]);
		return -ENOTSUP;
	}
	*out = (struct dmabuf){.fd = fds[0],
		.fourcc = (uint32_t)fourcc,
		.stride = (uint32_t)strides[0],
		.modifier = modifiers[0]};
	*offset_out = (uint32_t)offsets[0];
	return 0;
}

int virgl_export_texture(uint32_t texture, int *fd_out, uint32_t *fourcc_out, uint32_t *stride_out,
	uint32_t *offset_out, uint64_t *modifier_out)
{
	void *display, *image = NULL;
	struct dmabuf d;
	struct egl e;
	int r;

	if (!load(&e)) {
		return -ENOTSUP;
	}
	display = e.current_display();
	if (can_export(&e, display)) {
		image = e.create_image(display, e.current_context(), EGL_GL_TEXTURE_2D,
			(void *)(uintptr_t)texture, NULL);
	}
	if (!image) {
		return -ENOTSUP;
	}
	r = export_image(&e, display, image, &d, offset_out);
	/* The texture and the DMABUF stay. */
	e.destroy_image(display, image);
	if (r == 0) {
		*fd_out = d.fd;
		*fourcc_out = d.fourcc;
		*stride_out = d.stride;
		*modifier_out = d.modifier;
	}
	return r;
}
