/* SPDX-License-Identifier: MIT
 * The front's view of a renderer's images: which files it maps, and for how long.
 */
#include "gpu/picture.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"
#include "tests/unit/test.h"

static int image(off_t size, int seals)
{
	int fd = memfd_create("image", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert_int_equal(ftruncate(fd, size), 0);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

static int add(struct pictures *p, uint32_t number, uint32_t width, uint32_t height, int fd)
{
	struct picture *picture;
	int r = pictures_add(p, number, width, height, fd, &picture);

	assert_true(r < 0 || (picture->number == number && pictures_find(p, number) == picture));
	safe_close(fd);
	return r;
}

static void files(void **state)
{
	struct pictures p;
	int pipe_fds[2];

	pictures_init(&p);
	assert_int_equal(add(&p, 1, 10, 10, image(400, F_SEAL_SHRINK)), 0);
	assert_int_equal(add(&p, 2, 10, 10, image(399, F_SEAL_SHRINK)), -EINVAL);
	assert_int_equal(add(&p, 2, 10, 10, image(400, 0)), -EINVAL);
	assert_int_equal(add(&p, 2, 10, 10, image(400, F_SEAL_GROW | F_SEAL_SEAL)), -EINVAL);
	assert_int_equal(add(&p, 2, 0, 10, image(400, F_SEAL_SHRINK)), -EINVAL);
	assert_int_equal(add(&p, 2, 10, 0, image(400, F_SEAL_SHRINK)), -EINVAL);
	assert_int_equal(add(&p, 0, 10, 10, image(400, F_SEAL_SHRINK)), -EINVAL);
	assert_int_equal(
		add(&p, 2, PICTURE_SIDE_MAX + 1, 1, image(1 << 20, F_SEAL_SHRINK)), -EINVAL);
	assert_int_equal(add(&p, 2, UINT32_MAX, UINT32_MAX, image(400, F_SEAL_SHRINK)), -EINVAL);
	assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
	assert_int_equal(add(&p, 2, 1, 1, pipe_fds[0]), -EINVAL);
	assert_int_equal(add(&p, 2, 1, 1, open("/dev/zero", O_RDONLY | O_CLOEXEC)), -EINVAL);
	safe_close(pipe_fds[1]);
	assert_int_equal(p.n, 1);
	pictures_finish(&p);
	assert_int_equal(p.n, 0);
}

static void references(void **state)
{
	struct pictures p;
	struct picture *held;

	pictures_init(&p);
	assert_int_equal(add(&p, 1, 1, 1, image(4096, F_SEAL_SHRINK)), 0);
	assert_int_equal(add(&p, 2, 1, 1, image(4096, F_SEAL_SHRINK)), 0);
	held = picture_ref(pictures_find(&p, 2));
	pictures_forget(&p, 0);
	assert_null(pictures_find(&p, 1));
	assert_ptr_equal(pictures_find(&p, 2), held);
	pictures_forget(&p, 2);
	assert_null(pictures_find(&p, 2));
	assert_int_equal(held->pixels[0], 0); /* still mapped */
	/* Another one of the same number is another one. */
	assert_int_equal(add(&p, 2, 1, 1, image(4096, F_SEAL_SHRINK)), 0);
	assert_ptr_not_equal(pictures_find(&p, 2), held);
	assert_null(picture_unref(held));
	assert_null(picture_unref(NULL));
	assert_int_equal(p.n, 1);
	pictures_finish(&p);
}

static void bounded(void **state)
{
	struct pictures p;

	pictures_init(&p);
	for (uint32_t i = 1; i <= PICTURES_MAX; i++) {
		assert_int_equal(add(&p, i, 1, 1, image(4, F_SEAL_SHRINK)), 0);
	}
	assert_int_equal(add(&p, PICTURES_MAX + 1, 1, 1, image(4, F_SEAL_SHRINK)), -E2BIG);
	pictures_forget(&p, 77);
	assert_int_equal(add(&p, PICTURES_MAX + 1, 1, 1, image(4, F_SEAL_SHRINK)), 0);
	pictures_finish(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(files),
		cmocka_unit_test(references),
		cmocka_unit_test(bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
