/* SPDX-License-Identifier: MIT
 * A fuzz target without its fuzzer: replay FOLDER N runs each file of a corpus, and N changed ones
 * of each, the same ones every time.
 */
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "tests/fuzz/fuzz.h"

#define SIZE_MAX_INPUT 65536
#define FRONT          1024

static uint32_t next(uint32_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 17;
	*seed ^= *seed << 5;
	return *seed;
}

/* Changes a few bytes to others or to extremes, or cuts the end. */
static size_t change(uint8_t *data, size_t size, uint32_t *seed)
{
	static const uint8_t extremes[] = {0, 1, 0x7f, 0x80, 0xff, 4, 8, 16};

	for (uint32_t n = next(seed) % 8 + 1; n > 0 && size > 0; n--) {
		/* Most of what decides lies in front. */
		size_t at = next(seed) % (next(seed) % 2 && size > FRONT ? FRONT : size);

		switch (next(seed) % 4) {
		case 0:
			data[at] = (uint8_t)next(seed);
			break;
		case 1:
			data[at] ^= (uint8_t)(1U << next(seed) % 8);
			break;
		case 2:
			if (next(seed) % 16 == 0) {
				size = at;
			}
			break;
		default:
			data[at] = extremes[next(seed) % sizeof(extremes)];
		}
	}
	return size;
}

/* libFuzzer's inputs end where their memory does, and so do these. */
static void run(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size ? size : 1);

	if (!copy) {
		abort();
	}
	memcpy(copy, data, size);
	LLVMFuzzerTestOneInput(copy, size);
	free(copy);
}

static int replay(const char *path, unsigned long changed)
{
	static uint8_t data[SIZE_MAX_INPUT], other[SIZE_MAX_INPUT];
	uint32_t seed = 2463534242;
	size_t size;
	FILE *f = fopen(path, "re");

	if (!f) {
		perror(path);
		return -1;
	}
	size = fread(data, 1, sizeof(data), f);
	fclose(f);
	run(data, size);
	for (unsigned long i = 0; i < changed; i++) {
		memcpy(other, data, size);
		run(other, change(other, size, &seed));
	}
	return 0;
}

int main(int argc, char **argv)
{
	char path[PATH_MAX];
	struct dirent *e;
	int n = 0, r = 0;
	DIR *d = argc == 3 ? opendir(argv[1]) : NULL;

	if (!d) {
		fprintf(stderr, "usage: replay FOLDER N\n");
		return 2;
	}
	log_set_level(LOG_LEVEL_ERROR);
	while (r == 0 && (e = readdir(d))) {
		if (e->d_name[0] != '.') {
			snprintf(path, sizeof(path), "%s/%s", argv[1], e->d_name);
			r = replay(path, strtoul(argv[2], NULL, 10));
			n++;
		}
	}
	closedir(d);
	printf("%d files\n", n);
	return r < 0 || n == 0;
}
