/* SPDX-License-Identifier: MIT
 *
 * Some drivers go through all of a client's buffers and contexts to write this text, and how many
 * there are is its guest's doing: so reading takes up to one part in a hundred of the time, however
 * long it takes.
 */
#include "broker/gpu-fdinfo.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"

#define TEXT_MAX 8192 /* amdgpu and xe write 1 to 2 KiB */
#define REST     100  /* times as long as it was read, it is not read */

void gpu_fdinfo_init(struct gpu_fdinfo *f)
{
	*f = (struct gpu_fdinfo){.node = -1, .text = -1};
}

int gpu_fdinfo_open(struct gpu_fdinfo *f, int node)
{
	_cleanup_close_ int own = fcntl(node, F_DUPFD_CLOEXEC, 3);
	char path[48];

	if (own < 0) {
		return -errno;
	}
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", own);
	f->text = open(path, O_RDONLY | O_CLOEXEC);
	if (f->text < 0) {
		return -errno;
	}
	f->node = steal_fd(&own);
	f->next_ns = 0;
	f->cycles = (struct gpu_cycles){0};
	return 0;
}

void gpu_fdinfo_close(struct gpu_fdinfo *f)
{
	f->text = safe_close(f->text);
	f->node = safe_close(f->node);
}

int gpu_fdinfo_read(struct gpu_fdinfo *f, bool demanded, struct drm_usage *out)
{
	char text[TEXT_MAX];
	uint64_t before = now_ns(), after;
	ssize_t n;
	int r;

	if (f->text < 0) {
		return -EBADF;
	}
	if (!demanded && before < f->next_ns) {
		return -EAGAIN;
	}
	n = pread(f->text, text, sizeof(text), 0);
	r = n < 0 ? -errno : (size_t)n == sizeof(text) ? -E2BIG : 0;
	if (r == 0) {
		r = drm_usage_parse(text, (size_t)n, out);
	}
	after = now_ns();
	if (r == 0 && out->counts_cycles && !out->counts_time) {
		out->counts_time = true;
		out->engine_ns = gpu_cycles_ns(&f->cycles, out->cycles, out->cycles_all, after);
	}
	f->next_ns = after + REST * (after - before);
	return r;
}
