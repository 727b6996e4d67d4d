/* SPDX-License-Identifier: MIT */
#include "broker/cli/png.h"

#include <errno.h>
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The fourth byte means nothing; PNG would take it for transparency. */
static uint8_t *to_rgb(const uint8_t *pixels, size_t n)
{
	uint8_t *rgb = malloc(n * 3);

	for (size_t i = 0; rgb && i < n; i++) {
		rgb[3 * i] = pixels[4 * i + 2];
		rgb[3 * i + 1] = pixels[4 * i + 1];
		rgb[3 * i + 2] = pixels[4 * i];
	}
	return rgb;
}

static int write_to(FILE *f, const uint8_t *rgb, uint32_t width, uint32_t height)
{
	png_image image = {
		.version = PNG_IMAGE_VERSION,
		.width = width,
		.height = height,
		.format = PNG_FORMAT_RGB,
	};

	errno = 0;
	if (!png_image_write_to_stdio(&image, f, 0, rgb, 0, NULL) || fflush(f) != 0) {
		return errno ? -errno : -EIO;
	}
	return 0;
}

int png_write(const char *path, const uint8_t *pixels, uint32_t width, uint32_t height)
{
	_cleanup_free_ uint8_t *rgb = to_rgb(pixels, (size_t)width * height);
	_cleanup_free_ char *temporary = NULL;
	mode_t mask = umask(0);
	FILE *f;
	int fd, r;

	umask(mask);
	if (!rgb) {
		return -ENOMEM;
	}
	if (strcmp(path, "-") == 0) {
		return write_to(stdout, rgb, width, height);
	}
	if (asprintf(&temporary, "%s.XXXXXX", path) < 0) {
		temporary = NULL;
		return -ENOMEM;
	}
	fd = mkstemp(temporary);
	f = fd < 0 ? NULL : fdopen(fd, "wb");
	if (!f) {
		return -errno;
	}
	r = write_to(f, rgb, width, height);
	if (fchmod(fd, 0666 & ~mask) < 0 || fclose(f) != 0) {
		r = r < 0 ? r : -errno;
	}
	if (r == 0 && rename(temporary, path) < 0) {
		r = -errno;
	}
	if (r < 0) {
		unlink(temporary);
	}
	return r;
}
