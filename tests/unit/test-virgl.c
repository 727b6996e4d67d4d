/* SPDX-License-Identifier: MIT
 * What virglrenderer and the driver below it are told by the environment, and how much of what they
 * say gets into the log. The library is a stub that is found in its place (LD_LIBRARY_PATH).
 */
#include <dlfcn.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "gpu/virgl.h"
#include "tests/unit/test.h"

struct stub {
	const char *(*environment)(void);
	void (*say)(const char *fmt, ...);
};

static struct stub stub(void)
{
	void *lib = dlopen("libvirglrenderer.so.1", RTLD_NOW | RTLD_NOLOAD);
	struct stub s;

	assert_non_null(lib);
	s.environment = (const char *(*)(void))dlsym(lib, "stub_environment");
	s.say = (void (*)(const char *, ...))dlsym(lib, "stub_say");
	assert_non_null(s.environment);
	assert_non_null(s.say);
	dlclose(lib);
	return s;
}

static void start(int drm_fd)
{
	const struct virgl_options o = {.drm_fd = drm_fd};
	char name[VIRGL_RENDERER_NAME_SIZE];

	assert_int_equal(virgl_renderer.init(&o, name), 0);
}

/* What it saw of a variable: NULL, nothing. */
static const char *seen(const char *name)
{
	size_t n = strlen(name);

	for (const char *e = stub().environment(); *e; e += strlen(e) + 1) {
		if (strncmp(e, name, n) == 0 && e[n] == '=') {
			return e + n + 1;
		}
	}
	return NULL;
}

static void scrubbed_environment(void **state)
{
	static const char *const foreign[] = {"MESA_DEBUG", "MESA_GL_VERSION_OVERRIDE",
		"MESA_LOADER_DRIVER_OVERRIDE", "GALLIUM_DRIVER", "GALLIUM_HUD", "VREND_DEBUG",
		"VIRGL_DEBUG", "LIBGL_DRIVERS_PATH", "EGL_PLATFORM", "GBM_BACKEND",
		"__EGL_VENDOR_LIBRARY_FILENAMES", "__GLX_VENDOR_LIBRARY_NAME", "DRI_PRIME",
		"LP_DEBUG", "DISPLAY", "WAYLAND_DISPLAY"};
	char threads[16];
	cpu_set_t all, one;

	for (size_t i = 0; i < ARRAY_SIZE(foreign); i++) {
		setenv(foreign[i], "all", 1);
	}
	setenv("LP_NUM_THREADS", "99", 1);
	setenv("MESA_SHADER_CACHE_DISABLE", "false", 1);
	setenv("MESAS", "stay", 1);
	setenv("DISPLAYS", "stay", 1);
	start(-1);
	for (size_t i = 0; i < ARRAY_SIZE(foreign); i++) {
		if (seen(foreign[i])) {
			fail_msg("%s got through", foreign[i]);
		}
	}
	assert_string_equal(seen("MESAS"), "stay");
	assert_string_equal(seen("DISPLAYS"), "stay");
	assert_string_equal(seen("MESA_SHADER_CACHE_DISABLE"), "true");
	assert_string_equal(seen("LIBGL_ALWAYS_SOFTWARE"), "1");
	/* As many threads as CPUs, up to 8; on one CPU none. */
	assert_int_equal(sched_getaffinity(0, sizeof(all), &all), 0);
	snprintf(threads, sizeof(threads), "%d",
		CPU_COUNT(&all) > 8    ? 8
		: CPU_COUNT(&all) == 1 ? 0
				       : CPU_COUNT(&all));
	assert_string_equal(seen("LP_NUM_THREADS"), threads);
	CPU_ZERO(&one);
	for (size_t i = 0; CPU_COUNT(&one) == 0; i++) {
		if (CPU_ISSET(i, &all)) {
			CPU_SET(i, &one);
		}
	}
	assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
	virgl_renderer.finish();
	start(-1);
	assert_string_equal(seen("LP_NUM_THREADS"), "0");
	assert_int_equal(sched_setaffinity(0, sizeof(all), &all), 0);
	virgl_renderer.finish();
	/* A render node draws by itself. */
	start(0);
	assert_null(seen("LIBGL_ALWAYS_SOFTWARE"));
	assert_null(seen("LP_NUM_THREADS"));
	virgl_renderer.finish();
}

static char text[65536];

/* What got to stderr until now, since log_to(). */
static void log_to(int fd)
{
	assert_true(dup2(fd, STDERR_FILENO) >= 0);
}

static int lines(int fd)
{
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
	int count = 0;

	text[n > 0 ? n : 0] = '\0';
	for (const char *at = text; *at; at++) {
		count += *at == '\n';
	}
	return count;
}

/* A guest can have it say something with each command. */
static void bounded_log(void **state)
{
	int fd = memfd_create("log", 0), before = dup(STDERR_FILENO), n;
	char longest[5000];

	start(-1);
	memset(longest, 'x', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	log_to(fd);
	stub().say("context %d: \x1b[31mno\nand <3>forged\n", 7);
	stub().say("%s", longest);
	for (int i = 0; i < 1000; i++) {
		stub().say("error %d\n", i);
	}
	n = lines(fd);
	log_to(before);
	virgl_renderer.finish();
	assert_int_equal(n, 20);
	assert_non_null(strstr(text, "virglrenderer: context 7: "));
	assert_null(strchr(text, '\x1b'));
	assert_null(strstr(text, "forged"));
	assert_non_null(strstr(text, "error 16"));
	assert_non_null(strstr(text, "error 17 (and silent for up to 10 s now)\n"));
	assert_null(strstr(text, "error 18"));
	assert_in_range(strlen(text), 100, 2000);
	close(before);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(scrubbed_environment),
		cmocka_unit_test(bounded_log),
	};

	return cmocka_run_group_tests_name("virgl", tests, NULL, NULL);
}
