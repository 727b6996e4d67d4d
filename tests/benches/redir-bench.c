/* SPDX-License-Identifier: MIT
 * Drives a real, sandboxed devbroker-usb as a guest's usb-storage would, without QEMU, and beside
 * it two processes that only pass messages of the same sizes over the same kind of socket: the
 * limit.
 *
 *   redir-bench start WORKER IMAGE COUNT           spawn to hello, RSS after device_connect
 *   redir-bench read|write WORKER IMAGE BLOCK N    sequential commands of BLOCK bytes
 *   redir-bench random WORKER IMAGE BLOCK N        random reads
 *   redir-bench limit BLOCK N                      the messages of N reads of BLOCK bytes
 *
 * Prints one JSON object. One command in flight, as QEMU's usb-storage guests have.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BLOCK_MAX (1 << 20)
#define HEAD      16 /* type, length, 64-bit id */
#define BULK_HEAD 10 /* with the length's upper half */
#define CBW_SIZE  31
#define CSW_SIZE  13
#define EP_IN     0x81

/* usbredirproto.h: packet types and capabilities. */
enum {
	HELLO = 0,
	CONNECT = 1,
	EP_INFO = 5,
	SET_CONFIGURATION = 6,
	CONFIGURATION_STATUS = 8,
	BULK = 101
};
#define CAPS (1u << 1 | 1u << 3 | 1u << 4 | 1u << 5 | 1u << 6)

struct bench {
	int fd;
	pid_t pid;
	uint64_t id;
	uint32_t tag;
	uint8_t ep_in;
	uint8_t ep_out;
	uint8_t buffer[BLOCK_MAX + 256];
};

static void die(const char *what)
{
	fprintf(stderr, "redir-bench: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void put32(uint8_t *p, uint32_t v)
{
	for (int i = 0; i < 4; i++) {
		p[i] = (uint8_t)(v >> 8 * i);
	}
}

static uint32_t get32(const uint8_t *p)
{
	return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void write_all(int fd, struct iovec *iov, int n)
{
	while (n > 0) {
		ssize_t r = writev(fd, iov, n);

		if (r < 0) {
			die("write");
		}
		while (n > 0 && (size_t)r >= iov->iov_len) {
			r -= (ssize_t)iov->iov_len;
			iov++;
			n--;
		}
		if (n > 0) {
			iov->iov_base = (uint8_t *)iov->iov_base + r;
			iov->iov_len -= (size_t)r;
		}
	}
}

static void read_all(int fd, void *data, size_t size)
{
	uint8_t *p = data;

	while (size > 0) {
		ssize_t r = read(fd, p, size);

		if (r <= 0) {
			die("read");
		}
		p += r;
		size -= (size_t)r;
	}
}

/* The next packet's body into b->buffer; returns its type. */
static uint32_t receive(struct bench *b, size_t head, size_t *size_out)
{
	uint8_t h[HEAD];
	uint32_t size;

	read_all(b->fd, h, head);
	size = get32(h + 4);
	if (size > sizeof(b->buffer)) {
		die("packet too large");
	}
	read_all(b->fd, b->buffer, size);
	*size_out = size;
	return get32(h);
}

static void send_bulk(struct bench *b, uint8_t ep, const void *data, uint32_t length)
{
	uint32_t payload = ep & 0x80 ? 0 : length;
	uint8_t h[HEAD + BULK_HEAD] = {0};
	struct iovec iov[2] = {{h, sizeof(h)}, {(void *)(uintptr_t)data, payload}};

	put32(h, BULK);
	put32(h + 4, BULK_HEAD + payload);
	put32(h + 8, (uint32_t)++b->id);
	h[HEAD] = ep;
	h[HEAD + 2] = (uint8_t)length;
	h[HEAD + 3] = (uint8_t)(length >> 8);
	h[HEAD + 8] = (uint8_t)(length >> 16);
	h[HEAD + 9] = (uint8_t)(length >> 24);
	write_all(b->fd, iov, payload ? 2 : 1);
}

/* Waits for the reply of a bulk transfer and checks its status. */
static size_t bulk_reply(struct bench *b)
{
	size_t size;

	while (receive(b, HEAD, &size) != BULK) {
	}
	if (b->buffer[1] != 0) {
		errno = EIO;
		die("bulk status");
	}
	return size - BULK_HEAD;
}

static void start_worker(struct bench *b, const char *worker, const char *image)
{
	int pair[2];
	char fd_arg[32];

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0) {
		die("socketpair");
	}
	b->pid = fork();
	if (b->pid == 0) {
		close(pair[0]);
		snprintf(fd_arg, sizeof(fd_arg), "--stream-fd=%d", pair[1]);
		execl(worker, "devbroker-usb", "--disk", image, fd_arg, "--log-level=error", NULL);
		_exit(127);
	}
	close(pair[1]);
	b->fd = pair[0];
}

static void greet(struct bench *b)
{
	uint8_t hello[12 + 68] = {0};
	struct iovec iov = {hello, sizeof(hello)};
	uint32_t type;
	size_t size;

	put32(hello + 4, 68);
	put32(hello + 12 + 64, CAPS);
	write_all(b->fd, &iov, 1);
	if (receive(b, 12, &size) != HELLO) {
		die("no hello");
	}
	do {
		type = receive(b, HEAD, &size);
		for (int i = 0; type == EP_INFO && i < 32; i++) {
			if (b->buffer[i] == 2) {
				*(i < 16 ? &b->ep_out : &b->ep_in) =
					(uint8_t)(i < 16 ? i : (i - 16) | 0x80);
			}
		}
	} while (type != CONNECT);
}

static void configure(struct bench *b)
{
	uint8_t packet[HEAD + 1] = {0};
	struct iovec iov = {packet, sizeof(packet)};
	size_t size;

	put32(packet, SET_CONFIGURATION);
	put32(packet + 4, 1);
	packet[HEAD] = 1;
	write_all(b->fd, &iov, 1);
	while (receive(b, HEAD, &size) != CONFIGURATION_STATUS) {
	}
}

static uint8_t command(struct bench *b, const uint8_t *cdb, uint8_t cdb_size, const void *out,
	uint32_t length, bool in)
{
	uint8_t cbw[CBW_SIZE] = {'U', 'S', 'B', 'C'};

	put32(cbw + 4, ++b->tag);
	put32(cbw + 8, length);
	cbw[12] = in ? 0x80 : 0;
	cbw[14] = cdb_size;
	memcpy(cbw + 15, cdb, cdb_size);
	send_bulk(b, b->ep_out, cbw, sizeof(cbw));
	bulk_reply(b);
	if (length > 0) {
		send_bulk(b, in ? b->ep_in : b->ep_out, out, length);
		bulk_reply(b);
	}
	send_bulk(b, b->ep_in, NULL, CSW_SIZE);
	bulk_reply(b);
	return b->buffer[BULK_HEAD + 12];
}

static void transfer(struct bench *b, bool writing, uint64_t lba, uint32_t block, const void *out)
{
	uint8_t cdb[10] = {writing ? 0x2a : 0x28};

	for (int i = 0; i < 4; i++) {
		cdb[2 + i] = (uint8_t)(lba >> (24 - 8 * i));
	}
	cdb[7] = (uint8_t)(block / 512 >> 8);
	cdb[8] = (uint8_t)(block / 512);
	if (command(b, cdb, sizeof(cdb), out, block, !writing) != 0) {
		errno = EIO;
		die("SCSI command");
	}
}

static double cpu_of_children(void)
{
	struct rusage u;

	getrusage(RUSAGE_CHILDREN, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void print(uint64_t *times, uint64_t n, uint64_t bytes, uint64_t total, double cpu)
{
	qsort(times, n, sizeof(*times), by_value);
	printf("{\"bytes\": %llu, \"ns\": %llu, \"p50_ns\": %llu, \"p99_ns\": %llu, "
	       "\"cpu_s\": %.4f}\n",
		(unsigned long long)bytes, (unsigned long long)total,
		(unsigned long long)times[n / 2], (unsigned long long)times[n * 99 / 100], cpu);
}

static int run_commands(
	const char *mode, const char *worker, const char *image, uint32_t block, uint64_t n)
{
	bool writing = strcmp(mode, "write") == 0, random_order = strcmp(mode, "random") == 0;
	struct bench *b = calloc(1, sizeof(*b));
	uint8_t *out = malloc(BLOCK_MAX);
	uint64_t *times = calloc(n, sizeof(*times)), seed = 88172645463325252u, start, total;
	struct stat st;

	if (stat(image, &st) < 0 || !out || !times || !b) {
		die(image);
	}
	memset(out, 0x5a, BLOCK_MAX);
	start_worker(b, worker, image);
	greet(b);
	configure(b);
	/* The unit attention of the power-on, and its sense. */
	command(b, (const uint8_t[6]){0}, 6, NULL, 0, true);
	command(b, (const uint8_t[6]){3, 0, 0, 0, 18}, 6, NULL, 18, true);
	start = now_ns();
	for (uint64_t i = 0; i < n; i++) {
		uint64_t blocks = (uint64_t)st.st_size / block, at, begin = now_ns();

		seed ^= seed << 13;
		seed ^= seed >> 7;
		seed ^= seed << 17;
		at = (random_order ? seed : i) % blocks;
		transfer(b, writing, at * (block / 512), block, out);
		times[i] = now_ns() - begin;
	}
	total = now_ns() - start;
	close(b->fd);
	waitpid(b->pid, NULL, 0);
	print(times, n, block * n, total, cpu_of_children());
	return 0;
}

static uint64_t rss_kib(pid_t pid)
{
	char path[96], line[128];
	unsigned long long kib = 0;
	FILE *f;
	int child = 0;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)pid, (int)pid);
	f = fopen(path, "r");
	if (!f || fscanf(f, "%d", &child) != 1) {
		die(path);
	}
	fclose(f);
	snprintf(path, sizeof(path), "/proc/%d/status", child);
	f = fopen(path, "r");
	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "VmRSS: %llu", &kib) == 1) {
			break;
		}
	}
	if (f) {
		fclose(f);
	}
	return kib;
}

static int run_start(const char *worker, const char *image, uint64_t n)
{
	uint64_t *times = calloc(n, sizeof(*times)), rss = 0;
	struct bench *b = calloc(1, sizeof(*b));

	for (uint64_t i = 0; i < n; i++) {
		uint64_t begin = now_ns();
		uint8_t first;

		start_worker(b, worker, image);
		if (recv(b->fd, &first, 1, MSG_PEEK) != 1) {
			die("worker");
		}
		times[i] = now_ns() - begin;
		greet(b);
		rss = rss_kib(b->pid) > rss ? rss_kib(b->pid) : rss;
		close(b->fd);
		waitpid(b->pid, NULL, 0);
	}
	qsort(times, n, sizeof(*times), by_value);
	printf("{\"p50_ns\": %llu, \"p99_ns\": %llu, \"rss_kib\": %llu}\n",
		(unsigned long long)times[n / 2], (unsigned long long)times[n * 99 / 100],
		(unsigned long long)rss);
	return 0;
}

/* What one read is made of: to the worker and back, three times. */
static const size_t limit_to[] = {HEAD + BULK_HEAD + CBW_SIZE, HEAD + BULK_HEAD, HEAD + BULK_HEAD};

static void limit_peer(int fd, uint32_t block)
{
	static uint8_t buffer[BLOCK_MAX + 256];
	const size_t back[] = {
		HEAD + BULK_HEAD, HEAD + BULK_HEAD + block, HEAD + BULK_HEAD + CSW_SIZE};

	for (;;) {
		for (size_t i = 0; i < 3; i++) {
			struct iovec iov = {buffer, back[i]};
			ssize_t r = recv(fd, buffer, limit_to[i], MSG_WAITALL);

			if (r <= 0) {
				_exit(0);
			}
			write_all(fd, &iov, 1);
		}
	}
}

static int run_limit(uint32_t block, uint64_t n)
{
	static uint8_t buffer[BLOCK_MAX + 256];
	const size_t back[] = {
		HEAD + BULK_HEAD, HEAD + BULK_HEAD + block, HEAD + BULK_HEAD + CSW_SIZE};
	uint64_t *times = calloc(n, sizeof(*times)), start, total;
	int pair[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0) {
		die("socketpair");
	}
	pid = fork();
	if (pid == 0) {
		close(pair[0]);
		limit_peer(pair[1], block);
	}
	close(pair[1]);
	start = now_ns();
	for (uint64_t i = 0; i < n; i++) {
		uint64_t begin = now_ns();

		for (size_t k = 0; k < 3; k++) {
			struct iovec iov = {buffer, limit_to[k]};

			write_all(pair[0], &iov, 1);
			read_all(pair[0], buffer, back[k]);
		}
		times[i] = now_ns() - begin;
	}
	total = now_ns() - start;
	close(pair[0]);
	waitpid(pid, NULL, 0);
	print(times, n, block * n, total, cpu_of_children());
	return 0;
}

int main(int argc, char **argv)
{
	uint64_t block = argc > 4 ? strtoull(argv[4], NULL, 0) : 0;

	if (argc == 4 && strcmp(argv[1], "limit") == 0) {
		block = strtoull(argv[2], NULL, 0);
		return block > 0 && block <= BLOCK_MAX
			       ? run_limit((uint32_t)block, strtoull(argv[3], NULL, 0))
			       : 2;
	}
	if (argc == 5 && strcmp(argv[1], "start") == 0) {
		return run_start(argv[2], argv[3], block);
	}
	if (argc == 6 && block >= 512 && block <= BLOCK_MAX) {
		return run_commands(
			argv[1], argv[2], argv[3], (uint32_t)block, strtoull(argv[5], NULL, 0));
	}
	fprintf(stderr, "usage: redir-bench start|read|write|random|limit ...\n");
	return 2;
}
