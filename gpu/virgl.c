/* SPDX-License-Identifier: MIT
 *
 * The only file that knows virglrenderer. The library is opened when it is wanted, and with it the
 * drivers' hundred megabytes of code: a renderer that draws in 2D, and the front, never see it.
 *
 * With EGL and no surface it needs neither an X server nor a render node. THREAD_SYNC is what gives
 * fences an fd.
 */
#define VIRGL_RENDERER_UNSTABLE_APIS
#include "gpu/virgl.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include <virglrenderer.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/sandbox-internal.h"
#include "gpu/virgl-export.h"

#define LOG_PERIOD_NS (UINT64_C(10) * 1000 * 1000 * 1000)
#define LOG_PIECES    20 /* of its messages that are logged in a period */

#define DRIVER_BYTES (UINT64_C(1) << 30)

#define LIBRARY "libvirglrenderer.so.1"
#define VENUS   4 /* the capset; 0.10 reports it whether or not it can */

/* virgl_hw.h, which is not installed. */
struct virgl_box {
	int32_t x, y, z, w, h, d;
};
_Static_assert(sizeof(struct virgl_box) == sizeof(struct virgl_area), "the same thing");

#define FUNCTIONS(f)                                                                               \
	f(init) f(cleanup) f(poll) f(get_poll_fd) f(get_cap_set) f(fill_caps) f(context_create)    \
		f(context_create_with_flags) f(context_destroy) f(resource_create)                 \
			f(resource_create_blob) f(resource_unref) f(resource_attach_iov)           \
				f(resource_detach_iov) f(resource_get_info) f(ctx_attach_resource) \
					f(ctx_detach_resource) f(transfer_read_iov)                \
						f(transfer_write_iov) f(submit_cmd)                \
							f(create_fence) f(context_create_fence)

struct library {
#define MEMBER(name) __typeof__(virgl_renderer_##name) *name;
	FUNCTIONS(MEMBER)
#undef MEMBER
	__typeof__(virgl_set_debug_callback) *set_debug_callback;
};

/* virglrenderer's state is one per process, and so is what calls it. */
struct state {
	struct virgl_options options;
	struct library lib;
	bool running;
	uint64_t log_since; /* ns, when this period began */
	uint32_t logged;    /* pieces in it */
};

static struct state *state(void)
{
	static struct state s;

	return &s;
}

/* Its errors are positive or negative, as it happens. */
static int result(int r)
{
	return r == 0 ? 0 : -EINVAL;
}

static int load(struct library *lib)
{
	void *handle = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);

	if (!handle) {
		log_error("can't draw in 3D: %s; package libvirglrenderer1 is needed", dlerror());
		return -ENOENT;
	}
#define LOOK_UP(name)                                                                    \
	lib->name = (__typeof__(lib->name))dlsym(handle, "virgl_renderer_" #name);       \
	if (!lib->name) {                                                                \
		log_error("can't draw in 3D: %s has no virgl_renderer_" #name, LIBRARY); \
		return -ENOSYS;                                                          \
	}
	FUNCTIONS(LOOK_UP)
#undef LOOK_UP
	lib->set_debug_callback =
		(__typeof__(lib->set_debug_callback))dlsym(handle, "virgl_set_debug_callback");
	return 0;
}

static void on_fence(void *cookie, uint32_t fence)
{
	const struct virgl_options *o = &((struct state *)cookie)->options;

	if (o->fence) {
		o->fence(o->userdata, fence);
	}
}

static void on_context_fence(void *cookie, uint32_t context, uint32_t ring, uint64_t fence)
{
	const struct virgl_options *o = &((struct state *)cookie)->options;

	if (o->context_fence) {
		o->context_fence(o->userdata, context, ring, fence);
	}
}

/* What it says is about what the guest does, and as often as the guest likes: without this it goes
 * to stderr as it is. */
static _printf_(1, 0) void on_message(const char *fmt, va_list args)
{
	struct state *s = state();
	uint64_t now = now_ns();
	char text[256], escaped[512];
	int n;

	if (now - s->log_since >= LOG_PERIOD_NS) {
		s->log_since = now;
		s->logged = 0;
	}
	if (s->logged > LOG_PIECES || ++s->logged > LOG_PIECES) {
		return;
	}
	n = vsnprintf(text, sizeof(text), fmt, args);
	if (n <= 0) {
		return;
	}
	text[strcspn(text, "\n")] = '\0';
	log_line(s->running ? LOG_LEVEL_WARN : LOG_LEVEL_INFO, "virglrenderer: %s%s",
		log_escape(text, sizeof(text), escaped, sizeof(escaped)),
		s->logged == LOG_PIECES ? " (and silent for up to 10 s now)" : "");
}

/* It closes what it gets. */
static int give_drm_fd(void *cookie)
{
	const struct virgl_options *o = &((struct state *)cookie)->options;

	return o->drm_fd >= 0 ? fcntl(o->drm_fd, F_DUPFD_CLOEXEC, 3) : -1;
}

uint32_t virgl_cpus(void)
{
	cpu_set_t set;

	/* An error: more than the set has room for. */
	return sched_getaffinity(0, sizeof(set), &set) < 0
		       ? VIRGL_CPUS_MAX
		       : (uint32_t)MIN(MAX(CPU_COUNT(&set), 1), VIRGL_CPUS_MAX);
}

/* A worker has none of these anyhow; a test or a bench may. The shader cache is a file in
 * somebody's home. */
static void set_environment(const struct virgl_options *o)
{
	static const char *const foreign[] = {"GALLIUM_", "MESA_", "LIBGL_", "EGL_", "GBM_",
		"VREND_", "VIRGL_", "LP_", "DRI_", "__EGL_", "__GLX_",
		"DISPLAY=", "WAYLAND_DISPLAY="};
	const uint32_t cpus = virgl_cpus();
	char threads[16];
	size_t at = 0;

	while (environ[at]) {
		size_t length = strcspn(environ[at], "=");
		bool is_foreign = false;
		char name[128];

		for (size_t i = 0; length < sizeof(name) && i < ARRAY_SIZE(foreign); i++) {
			is_foreign = is_foreign ||
				     strncmp(environ[at], foreign[i], strlen(foreign[i])) == 0;
		}
		if (!is_foreign) {
			at++;
			continue;
		}
		snprintf(name, sizeof(name), "%.*s", (int)length, environ[at]);
		if (unsetenv(name) < 0) {
			at++; /* "=" at its beginning, say */
		}
	}
	setenv("MESA_SHADER_CACHE_DISABLE", "true", 1);
	if (o->drm_fd < 0) {
		setenv("LIBGL_ALWAYS_SOFTWARE", "1", 1);
		/* One CPU needs no thread beside the one that is there. */
		snprintf(threads, sizeof(threads), "%u", cpus > 1 ? cpus : 0);
		setenv("LP_NUM_THREADS", threads, 1);
	}
}

static void name_renderer(char out[VIRGL_RENDERER_NAME_SIZE])
{
	void *egl = dlopen("libEGL.so.1", RTLD_NOW | RTLD_LOCAL);
	void *(*get)(const char *) =
		egl ? (void *(*)(const char *))dlsym(egl, "eglGetProcAddress") : NULL;
	const unsigned char *(*get_string)(unsigned int) =
		get ? (const unsigned char *(*)(unsigned int))get("glGetString") : NULL;
	const unsigned char *name = get_string ? get_string(0x1f01 /* GL_RENDERER */) : NULL;

	log_escape(name ? (const char *)name : "unknown", VIRGL_RENDERER_NAME_SIZE, out,
		VIRGL_RENDERER_NAME_SIZE);
}

/* A surface, a framebuffer of it, and its clearing: virgl's protocol. */
static int draw_once(void)
{
	static const struct virgl_resource target = {.id = 1,
		.target = 2,
		.format = 1, /* B8G8R8A8 */
		.bind = 1 << 1 | 1 << 3,
		.width = 16,
		.height = 16,
		.depth = 1,
		.array_size = 1};
	uint32_t commands[] = {1 | 8 << 8 | 5 << 16, 1, 1, 1, 0, 0, 5 | 3 << 16, 1, 0, 1,
		7 | 8 << 16, 4, 0x3f800000, 0, 0, 0x3f800000, 0, 0, 0};
	uint32_t pixels[16 * 16] = {0};
	const struct iovec iov = {pixels, sizeof(pixels)};
	const struct virgl_transfer all = {.id = 1, .context = 1, .area = {0, 0, 0, 16, 16, 1}};
	int r = virgl_renderer.context_create(1, 0, "first", 5);

	if (r < 0) {
		return r;
	}
	r = virgl_renderer.resource_create(&target);
	if (r == 0) {
		virgl_renderer.context_attach(1, 1);
		r = virgl_renderer.submit(1, commands, ARRAY_SIZE(commands));
		if (r == 0) {
			r = virgl_renderer.transfer_read(&all, &iov, 1);
		}
		virgl_renderer.context_detach(1, 1);
		virgl_renderer.resource_unref(1);
	}
	virgl_renderer.context_destroy(1);
	return r == 0 && pixels[0] != 0xffff0000 ? -EIO : r;
}

static void virgl_finish(void)
{
	struct state *s = state();

	if (s->running) {
		s->lib.cleanup(s);
		s->running = false;
	}
}

static int virgl_init(
	const struct virgl_options *options, char renderer_out[VIRGL_RENDERER_NAME_SIZE])
{
	static struct virgl_renderer_callbacks callbacks = {
		.version = 3,
		.write_fence = on_fence,
		.get_drm_fd = give_drm_fd,
		.write_context_fence = on_context_fence,
	};
	const int flags = VIRGL_RENDERER_USE_EGL | VIRGL_RENDERER_THREAD_SYNC |
			  (options->drm_fd < 0 ? VIRGL_RENDERER_USE_SURFACELESS : 0);
	struct state *s = state();
	int r;

	s->options = *options;
	set_environment(options);
	r = load(&s->lib);
	if (r < 0) {
		return r;
	}
	if (s->lib.set_debug_callback) {
		_unused_ virgl_debug_callback_type before = s->lib.set_debug_callback(on_message);
	}
	if (s->lib.init(s, flags, &callbacks) != 0) {
		return -EIO;
	}
	s->running = true;
	name_renderer(renderer_out);
	r = draw_once();
	if (r < 0) {
		virgl_finish();
	}
	return r;
}

static int virgl_poll_fd(void)
{
	return state()->lib.get_poll_fd();
}

static void virgl_poll(void)
{
	state()->lib.poll();
}

static void virgl_capset_info(uint32_t id, uint32_t *version_out, uint32_t *size_out)
{
	*version_out = *size_out = 0;
	if (id != VENUS) {
		state()->lib.get_cap_set(id, version_out, size_out);
	}
}

static void virgl_capset_fill(uint32_t id, uint32_t version, void *out, uint32_t size)
{
	memset(out, 0, size);
	state()->lib.fill_caps(id, version, out);
}

static int virgl_context_create(
	uint32_t context, uint32_t flags, const char *name, uint32_t name_length)
{
	char text[64];

	/* It writes it into its messages. */
	log_escape(name, name_length, text, sizeof(text));
	name_length = (uint32_t)strlen(text);
	return result(
		flags ? state()->lib.context_create_with_flags(context, flags, name_length, text)
		      : state()->lib.context_create(context, name_length, text));
}

static void virgl_context_destroy(uint32_t context)
{
	state()->lib.context_destroy(context);
}

static int virgl_resource_create(const struct virgl_resource *r)
{
	struct virgl_renderer_resource_create_args args = {
		.handle = r->id,
		.target = r->target,
		.format = r->format,
		.bind = r->bind,
		.width = r->width,
		.height = r->height,
		.depth = r->depth,
		.array_size = r->array_size,
		.last_level = r->last_level,
		.nr_samples = r->nr_samples,
		.flags = r->flags,
	};

	return result(state()->lib.resource_create(&args, NULL, 0));
}

static int virgl_resource_create_blob(
	const struct virgl_blob *b, const struct iovec *iov, uint32_t n)
{
	const struct virgl_renderer_resource_create_blob_args args = {
		.res_handle = b->id,
		.ctx_id = b->context,
		.blob_mem = b->memory,
		.blob_flags = b->flags,
		.blob_id = b->blob_id,
		.size = b->size,
		.iovecs = iov,
		.num_iovs = n,
	};

	return result(state()->lib.resource_create_blob(&args));
}

static void virgl_resource_unref(uint32_t id)
{
	state()->lib.resource_unref(id);
}

static int virgl_resource_attach(uint32_t id, const struct iovec *iov, uint32_t n)
{
	return result(
		state()->lib.resource_attach_iov((int)id, (struct iovec *)(uintptr_t)iov, (int)n));
}

static void virgl_resource_detach(uint32_t id)
{
	struct iovec *iov = NULL;
	int n = 0;

	state()->lib.resource_detach_iov((int)id, &iov, &n);
}

static void virgl_context_attach(uint32_t context, uint32_t id)
{
	state()->lib.ctx_attach_resource((int)context, (int)id);
}

static void virgl_context_detach(uint32_t context, uint32_t id)
{
	state()->lib.ctx_detach_resource((int)context, (int)id);
}

static struct virgl_box box_of(const struct virgl_transfer *t)
{
	const struct virgl_area *a = &t->area;

	return (struct virgl_box){(int32_t)a->x, (int32_t)a->y, (int32_t)a->z, (int32_t)a->width,
		(int32_t)a->height, (int32_t)a->depth};
}

static int virgl_transfer_write(const struct virgl_transfer *t, const struct iovec *iov, uint32_t n)
{
	struct virgl_box box = box_of(t);

	return result(state()->lib.transfer_write_iov(t->id, t->context, (int)t->level, t->stride,
		t->layer_stride, &box, t->offset, (struct iovec *)(uintptr_t)iov, n));
}

static int virgl_transfer_read(const struct virgl_transfer *t, const struct iovec *iov, uint32_t n)
{
	struct virgl_box box = box_of(t);

	return result(state()->lib.transfer_read_iov(t->id, t->context, t->level, t->stride,
		t->layer_stride, &box, t->offset, (struct iovec *)(uintptr_t)iov, (int)n));
}

static int virgl_submit(uint32_t context, uint32_t *dwords, uint32_t n)
{
	return result(state()->lib.submit_cmd(dwords, (int)context, (int)n));
}

static int virgl_fence(uint32_t fence, uint32_t context)
{
	return result(state()->lib.create_fence((int)fence, context));
}

static int virgl_context_fence(uint32_t context, uint32_t ring, uint64_t fence)
{
	return result(state()->lib.context_create_fence(
		context, VIRGL_RENDERER_FENCE_FLAG_MERGEABLE, ring, fence));
}

static int virgl_resource_export(uint32_t id, int *fd_out, uint32_t *fourcc_out,
	uint32_t *stride_out, uint32_t *offset_out, uint64_t *modifier_out)
{
	struct state *s = state();
	struct virgl_renderer_resource_info info = {0};

	/* Without a render node Mesa crashes. */
	if (s->options.drm_fd < 0 || s->lib.resource_get_info((int)id, &info) != 0) {
		return -ENOTSUP;
	}
	return virgl_export_texture(
		info.tex_id, fd_out, fourcc_out, stride_out, offset_out, modifier_out);
}

int virgl_bound_memory(uint64_t bytes)
{
	const struct rlimit l = {bytes + DRIVER_BYTES, bytes + DRIVER_BYTES};

	return !SANDBOX_SANITIZERS && setrlimit(RLIMIT_DATA, &l) < 0 ? -errno : 0;
}

const struct virgl_ops virgl_renderer = {
	.init = virgl_init,
	.finish = virgl_finish,
	.poll_fd = virgl_poll_fd,
	.poll = virgl_poll,
	.capset_info = virgl_capset_info,
	.capset_fill = virgl_capset_fill,
	.context_create = virgl_context_create,
	.context_destroy = virgl_context_destroy,
	.resource_create = virgl_resource_create,
	.resource_create_blob = virgl_resource_create_blob,
	.resource_unref = virgl_resource_unref,
	.resource_attach = virgl_resource_attach,
	.resource_detach = virgl_resource_detach,
	.context_attach = virgl_context_attach,
	.context_detach = virgl_context_detach,
	.transfer_write = virgl_transfer_write,
	.transfer_read = virgl_transfer_read,
	.submit = virgl_submit,
	.fence = virgl_fence,
	.context_fence = virgl_context_fence,
	.resource_export = virgl_resource_export,
};
