/* SPDX-License-Identifier: MIT
 * Runs in the test guests: measures a block device without the page cache, prints JSON.
 *
 *   blockio read|write DEVICE BLOCK COUNT         sequential, one at a time
 *   blockio random DEVICE BLOCK COUNT SEED        random reads, one at a time
 *   blockio unmap DEVICE LBA COUNT              UNMAP of one range, in blocks
 *   blockio eject DEVICE                          START STOP UNIT with LoEj, as eject(1) does
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <scsi/sg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* SPC-3 and SBC-3: ALLOW MEDIUM REMOVAL, then START STOP UNIT (stop, load/eject). */
static int eject(const char *device)
{
	static const unsigned char commands[2][6] = {{0x1e}, {0x1b, 0, 0, 0, 2}};
	int fd = open(device, O_RDONLY | O_NONBLOCK);

	for (int i = 0; i < 2; i++) {
		unsigned char sense[32];
		sg_io_hdr_t io = {
			.interface_id = 'S',
			.dxfer_direction = SG_DXFER_NONE,
			.cmd_len = 6,
			.cmdp = (unsigned char *)commands[i],
			.sbp = sense,
			.mx_sb_len = sizeof(sense),
			.timeout = 10000,
		};

		if (fd < 0 || ioctl(fd, SG_IO, &io) < 0 || io.status != 0) {
			fprintf(stderr, "blockio: eject: %s, status %d\n", strerror(errno),
				io.status);
			return 1;
		}
	}
	return 0;
}

/* SBC-3 5.28: one descriptor. What Linux would send only if told to (provisioning_mode). */
static int unmap(const char *device, uint64_t lba, uint32_t count)
{
	static const unsigned char command[10] = {0x42, [8] = 24};
	unsigned char list[24] = {0, 22, 0, 16}, sense[32];
	int fd = open(device, O_RDWR | O_NONBLOCK);
	sg_io_hdr_t io = {
		.interface_id = 'S',
		.dxfer_direction = SG_DXFER_TO_DEV,
		.dxferp = list,
		.dxfer_len = sizeof(list),
		.cmd_len = sizeof(command),
		.cmdp = (unsigned char *)command,
		.sbp = sense,
		.mx_sb_len = sizeof(sense),
		.timeout = 10000,
	};

	for (int i = 0; i < 8; i++) {
		list[8 + i] = (unsigned char)(lba >> (56 - 8 * i));
	}
	for (int i = 0; i < 4; i++) {
		list[16 + i] = (unsigned char)(count >> (24 - 8 * i));
	}
	if (fd < 0 || ioctl(fd, SG_IO, &io) < 0 || io.status != 0) {
		fprintf(stderr, "blockio: unmap: %s, status %d\n", strerror(errno), io.status);
		return 1;
	}
	return 0;
}

int main(int argc, char **argv)
{
	uint64_t size, block, count, seed, *times, start, total;
	int writing, random_order, fd;
	void *buffer;

	if (argc == 3 && strcmp(argv[1], "eject") == 0) {
		return eject(argv[2]);
	}
	if (argc == 5 && strcmp(argv[1], "unmap") == 0) {
		return unmap(
			argv[2], strtoull(argv[3], NULL, 0), (uint32_t)strtoull(argv[4], NULL, 0));
	}
	if (argc < 5) {
		fprintf(stderr,
			"usage: blockio read|write|random|unmap DEVICE BLOCK COUNT [SEED]\n");
		return 2;
	}
	writing = strcmp(argv[1], "write") == 0;
	random_order = strcmp(argv[1], "random") == 0;
	block = strtoull(argv[3], NULL, 0);
	count = strtoull(argv[4], NULL, 0);
	seed = argc > 5 ? strtoull(argv[5], NULL, 0) : 88172645463325252u;
	fd = open(argv[2], (writing ? O_WRONLY : O_RDONLY) | O_DIRECT);
	if (fd < 0 || ioctl(fd, BLKGETSIZE64, &size) < 0 || size < block ||
		posix_memalign(&buffer, 4096, block) != 0) {
		fprintf(stderr, "blockio: %s: %s\n", argv[2], strerror(errno));
		return 1;
	}
	times = calloc(count, sizeof(*times));
	memset(buffer, 0x5a, block);
	start = now_ns();
	for (uint64_t i = 0; i < count; i++) {
		uint64_t n = size / block;
		off_t at = (off_t)((random_order ? next_random(&seed) % n : i % n) * block);
		uint64_t begin = now_ns();
		ssize_t done =
			writing ? pwrite(fd, buffer, block, at) : pread(fd, buffer, block, at);

		if (done != (ssize_t)block) {
			fprintf(stderr, "blockio: %s at %lld: %s\n", argv[1], (long long)at,
				strerror(errno));
			return 1;
		}
		times[i] = now_ns() - begin;
	}
	if (writing && fsync(fd) < 0) {
		fprintf(stderr, "blockio: fsync: %s\n", strerror(errno));
		return 1;
	}
	total = now_ns() - start;
	qsort(times, count, sizeof(*times), by_value);
	printf("{\"bytes\": %llu, \"ns\": %llu, \"p50_ns\": %llu, \"p99_ns\": %llu}\n",
		(unsigned long long)(block * count), (unsigned long long)total,
		(unsigned long long)times[count / 2], (unsigned long long)times[count * 99 / 100]);
	return 0;
}
