/* SPDX-License-Identifier: MIT
 * libvirglrenderer.so.1 that draws nothing: it remembers the environment in which it was started,
 * and says what its test has it say.
 */
#define VIRGL_RENDERER_UNSTABLE_APIS
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>
#include <virglrenderer.h>

#define OPAQUE_RED 0xffff0000

static virgl_debug_callback_type say;
static char environment[65536]; /* as it was, each with its end */

VIRGL_EXPORT const char *stub_environment(void);
VIRGL_EXPORT void stub_say(const char *fmt, ...);

const char *stub_environment(void)
{
	return environment;
}

void stub_say(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	say(fmt, args);
	va_end(args);
}

virgl_debug_callback_type virgl_set_debug_callback(virgl_debug_callback_type cb)
{
	virgl_debug_callback_type before = say;

	say = cb;
	return before;
}

int virgl_renderer_init(void *cookie, int flags, struct virgl_renderer_callbacks *cb)
{
	size_t at = 0;

	(void)cookie;
	(void)flags;
	(void)cb;
	memset(environment, 0, sizeof(environment));
	for (char **e = environ; *e && at + strlen(*e) + 2 < sizeof(environment); e++) {
		strcpy(environment + at, *e);
		at += strlen(*e) + 1;
	}
	return 0;
}

int virgl_renderer_transfer_read_iov(uint32_t handle, uint32_t ctx_id, uint32_t level,
	uint32_t stride, uint32_t layer_stride, struct virgl_box *box, uint64_t offset,
	struct iovec *iov, int iovec_cnt)
{
	const uint32_t pixel = OPAQUE_RED;

	(void)handle, (void)ctx_id, (void)level, (void)stride, (void)layer_stride;
	(void)box, (void)offset, (void)iovec_cnt;
	memcpy(iov[0].iov_base, &pixel, sizeof(pixel));
	return 0;
}

/* What the test has no use for. */
#define NOTHING(type, name, value, ...)          \
	type virgl_renderer_##name(__VA_ARGS__); \
	type virgl_renderer_##name(__VA_ARGS__)  \
	{                                        \
		return value;                    \
	}
#pragma GCC diagnostic ignored "-Wredundant-decls"
#pragma GCC diagnostic ignored "-Wunused-parameter"
NOTHING(void, cleanup, , void *cookie)
NOTHING(void, poll, , void)
NOTHING(int, get_poll_fd, -1, void)
NOTHING(void, get_cap_set, , uint32_t set, uint32_t *max_ver, uint32_t *max_size)
NOTHING(void, fill_caps, , uint32_t set, uint32_t version, void *caps)
NOTHING(int, context_create, 0, uint32_t handle, uint32_t nlen, const char *name)
NOTHING(int, context_create_with_flags, 0, uint32_t ctx_id, uint32_t ctx_flags, uint32_t nlen,
	const char *name)
NOTHING(void, context_destroy, , uint32_t handle)
NOTHING(int, resource_create, 0, struct virgl_renderer_resource_create_args *args,
	struct iovec *iov, uint32_t num_iovs)
NOTHING(int, resource_create_blob, 0, const struct virgl_renderer_resource_create_blob_args *args)
NOTHING(void, resource_unref, , uint32_t res_handle)
NOTHING(int, resource_attach_iov, 0, int res_handle, struct iovec *iov, int num_iovs)
NOTHING(void, resource_detach_iov, , int res_handle, struct iovec **iov, int *num_iovs)
NOTHING(int, resource_get_info, 0, int res_handle, struct virgl_renderer_resource_info *info)
NOTHING(void, ctx_attach_resource, , int ctx_id, int res_handle)
NOTHING(void, ctx_detach_resource, , int ctx_id, int res_handle)
NOTHING(int, transfer_write_iov, 0, uint32_t handle, uint32_t ctx_id, int level, uint32_t stride,
	uint32_t layer_stride, struct virgl_box *box, uint64_t offset, struct iovec *iovec,
	unsigned int iovec_cnt)
NOTHING(int, submit_cmd, 0, void *buffer, int ctx_id, int ndw)
NOTHING(int, create_fence, 0, int client_fence_id, uint32_t ctx_id)
NOTHING(int, context_create_fence, 0, uint32_t ctx_id, uint32_t flags, uint32_t ring_idx,
	uint64_t fence_id)
NOTHING(int, get_fd_for_texture2, -1, uint32_t tex_id, int *fd, int *stride, int *offset)
