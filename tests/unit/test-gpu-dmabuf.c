/* SPDX-License-Identifier: MIT
 * What is taken for a DMABUF. Real ones need a DRM device: test-gpu-front-dmabuf has one.
 */
#include "gpu/dmabuf.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_gpu.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/fd.h"
#include "gpu/picture.h"
#include "tests/unit/test.h"

#define XR24  0x34325258
#define NV12  0x3231564e
#define TILED UINT64_C(0x0100000000000002)

static void numbers(void **state)
{
	static const struct {
		struct dmabuf d;
		uint32_t width, height;
		bool fits;
	} cases[] = {
		{{-1, XR24, 400, 0, 0}, 100, 50, true},
		{{-1, XR24, 400, VIRTIO_GPU_RESOURCE_FLAG_Y_0_TOP, 0}, 100, 50, true},
		{{-1, XR24, 399, 0, 0}, 100, 50, false},
		{{-1, XR24, 0, 0, TILED}, 100, 50, true},
		{{-1, XR24, 4, 0, 0}, UINT32_MAX, 1, false},
		{{-1, XR24, UINT32_MAX, 0, 0}, UINT32_MAX, UINT32_MAX, false},
		{{-1, XR24, 400, 2, 0}, 100, 50, false},
		{{-1, NV12, 400, 0, 0}, 100, 50, false},
		{{-1, 0, 400, 0, 0}, 100, 50, false},
		{{-1, XR24, 400, 0, 0}, 0, 50, false},
		{{-1, XR24, 400, 0, 0}, 100, 0, false},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(
			dmabuf_fits(&cases[i].d, cases[i].width, cases[i].height), cases[i].fits);
	}
}

/* Files that are none, however large. */
static void files(void **state)
{
	int pipes[2], socks[2], fds[8], n = 0;

	assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, socks), 0);
	fds[n++] = pipes[0];
	fds[n++] = pipes[1];
	fds[n++] = socks[0];
	fds[n++] = socks[1];
	fds[n++] = eventfd(0, EFD_CLOEXEC);
	fds[n++] = open("/dev/zero", O_RDWR | O_CLOEXEC);
	fds[n++] = open("/", O_PATH | O_CLOEXEC);
	fds[n++] = memfd_create("large", MFD_CLOEXEC);
	assert_int_equal(ftruncate(fds[n - 1], 1 << 20), 0);
	for (int i = 0; i < n; i++) {
		const struct dmabuf d = {.fd = fds[i], .fourcc = XR24, .stride = 400};

		assert_true(dmabuf_fits(&d, 100, 50));
		assert_int_equal(dmabuf_check(&d, 100, 50), -EINVAL);
		safe_close(fds[i]);
	}
	assert_int_equal(
		dmabuf_check(&(struct dmabuf){.fd = 999, .fourcc = XR24, .stride = 400}, 100, 50),
		-EBADF);
}

static struct picture *picture(struct pictures *all, uint32_t number)
{
	int fd = memfd_create("picture", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	struct picture *p;

	assert_int_equal(ftruncate(fd, 4096), 0);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
	assert_int_equal(pictures_add(all, number, 4, 4, fd, &p), 0);
	safe_close(fd);
	return p;
}

/* As many as there may be; each is closed with its picture, when nobody shows that any more. */
static void of_pictures(void **state)
{
	struct pictures all;
	struct picture *p = NULL, *held;
	struct dmabuf d = {.fd = -1};

	pictures_init(&all);
	for (uint32_t i = 0; i < PICTURES_DMABUFS_MAX; i++) {
		d.fd = memfd_create("dmabuf", MFD_CLOEXEC);
		p = picture(&all, i + 1);
		assert_int_equal(p->dmabuf.fd, -1);
		assert_int_equal(pictures_add_dmabuf(&all, p, &d), 0);
	}
	d.fd = memfd_create("dmabuf", MFD_CLOEXEC);
	assert_int_equal(pictures_add_dmabuf(&all, p, &d), -EEXIST);
	assert_int_equal(pictures_add_dmabuf(&all, picture(&all, 1000), &d), -E2BIG);
	held = picture_ref(pictures_find(&all, 1));
	pictures_forget(&all, 1);
	assert_int_equal(all.n_dmabufs, PICTURES_DMABUFS_MAX - 1);
	assert_true(fcntl(held->dmabuf.fd, F_GETFD) >= 0);
	assert_int_equal(pictures_add_dmabuf(&all, pictures_find(&all, 1000), &d), 0);
	d.fd = held->dmabuf.fd;
	picture_unref(held);
	assert_true(fcntl(d.fd, F_GETFD) < 0);
	pictures_finish(&all);
	assert_int_equal(all.n_dmabufs, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers),
		cmocka_unit_test(files),
		cmocka_unit_test(of_pictures),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
