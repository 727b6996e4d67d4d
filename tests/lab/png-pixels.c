/* SPDX-License-Identifier: MIT
 * png-pixels FILE: writes its pixels to stdout as QEMU's screendump has them (PPM, 24 bits).
 */
#include <png.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
	png_image image = {.version = PNG_IMAGE_VERSION};
	unsigned char *pixels;
	size_t size;

	if (argc != 2 || !png_image_begin_read_from_file(&image, argv[1])) {
		fprintf(stderr, "png-pixels: %s\n", argc == 2 ? image.message : "needs one FILE");
		return 1;
	}
	image.format = PNG_FORMAT_RGB;
	size = PNG_IMAGE_SIZE(image);
	pixels = malloc(size);
	if (!pixels || !png_image_finish_read(&image, NULL, pixels, 0, NULL)) {
		fprintf(stderr, "png-pixels: %s\n", pixels ? image.message : "out of memory");
		return 1;
	}
	printf("P6\n%u %u\n255\n", image.width, image.height);
	fwrite(pixels, 1, size, stdout);
	free(pixels);
	return ferror(stdout) || fflush(stdout) != 0;
}
