/* SPDX-License-Identifier: MIT
 *
 * Blocks: a section header, one interface description, an enhanced packet for each packet, and at
 * the end interface statistics, which tell what was lost. Each has its length at both ends and is
 * padded to 32 bits; its numbers are in host byte order, which the section's magic tells.
 */
#include "broker/cli/pcapng.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "build-config.h"

enum {
	BLOCK_INTERFACE = 1,
	BLOCK_STATISTICS = 5,
	BLOCK_PACKET = 6,
	BLOCK_SECTION = 0x0a0d0d0a,
};

enum {
	OPTION_END = 0,
	SECTION_APPLICATION = 4,
	INTERFACE_NAME = 2,
	INTERFACE_TIME_RESOLUTION = 9,
	PACKET_DROPPED = 4,
	STATISTICS_BEGIN = 2,
	STATISTICS_END = 3,
	STATISTICS_RECEIVED = 4,
	STATISTICS_DROPPED = 5,
};

#define MAGIC       0x1a2b3c4du
#define NANOSECONDS 9

/* The part of a block behind a packet's data, and small blocks as a whole. */
struct piece {
	uint32_t n;
	uint8_t bytes[512];
};

static void add(struct piece *p, const void *data, size_t n)
{
	if (n <= sizeof(p->bytes) - p->n) {
		memcpy(p->bytes + p->n, data, n);
		p->n += (uint32_t)n;
	}
}

static void add_u32(struct piece *p, uint32_t n)
{
	add(p, &n, sizeof(n));
}

/* Times are two words, the higher one first. */
static void add_time(struct piece *p, uint64_t ns)
{
	add_u32(p, (uint32_t)(ns >> 32));
	add_u32(p, (uint32_t)ns);
}

static uint32_t padding(uint32_t n)
{
	return -n & 3;
}

static void add_option(struct piece *p, uint16_t code, const void *data, uint16_t n)
{
	static const uint8_t zeros[4];

	add(p, &code, sizeof(code));
	add(p, &n, sizeof(n));
	if (n > 0) {
		add(p, data, n);
		add(p, zeros, padding(n));
	}
}

static void add_time_option(struct piece *p, uint16_t code, uint64_t ns)
{
	const uint32_t words[] = {(uint32_t)(ns >> 32), (uint32_t)ns};

	add_option(p, code, words, sizeof(words));
}

/* A block of a head, data (n bytes; may be none) and a tail. */
static int write_block(FILE *f, uint32_t type, const struct piece *head, const void *data,
	uint32_t n, const struct piece *tail)
{
	static const uint8_t zeros[4];
	uint32_t size = 12 + head->n + n + padding(n) + tail->n;
	const uint32_t begin[] = {type, size};

	errno = 0;
	if (fwrite(begin, sizeof(begin), 1, f) != 1 ||
		fwrite(head->bytes, 1, head->n, f) != head->n || fwrite(data, 1, n, f) != n ||
		fwrite(zeros, 1, padding(n), f) != padding(n) ||
		fwrite(tail->bytes, 1, tail->n, f) != tail->n ||
		fwrite(&size, sizeof(size), 1, f) != 1) {
		return errno ? -errno : -EIO;
	}
	return 0;
}

static const struct piece none;

static uint64_t now_realtime(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static int write_section(FILE *f)
{
	static const char application[] = "devbroker " DEVBROKER_VERSION;
	struct piece p = {0};
	const uint16_t version[] = {1, 0};
	const int64_t length = -1;

	add_u32(&p, MAGIC);
	add(&p, version, sizeof(version));
	add(&p, &length, sizeof(length));
	add_option(&p, SECTION_APPLICATION, application, sizeof(application) - 1);
	add_option(&p, OPTION_END, NULL, 0);
	return write_block(f, BLOCK_SECTION, &p, "", 0, &none);
}

int pcapng_begin(struct pcapng *out, FILE *f, const char *name)
{
	const uint16_t linktype[] = {CAPTURE_LINKTYPE, 0};
	const uint8_t resolution = NANOSECONDS;
	struct piece p = {0};
	int r = write_section(f);

	if (r < 0) {
		return r;
	}
	add(&p, linktype, sizeof(linktype));
	add_u32(&p, CAPTURE_PACKET_MAX);
	add_option(&p, INTERFACE_NAME, name, (uint16_t)strnlen(name, 255));
	add_option(&p, INTERFACE_TIME_RESOLUTION, &resolution, sizeof(resolution));
	add_option(&p, OPTION_END, NULL, 0);
	r = write_block(f, BLOCK_INTERFACE, &p, "", 0, &none);
	if (r == 0) {
		*out = (struct pcapng){.file = f, .begun_ns = now_realtime()};
	}
	return r;
}

int pcapng_add(struct pcapng *p, const struct capture_record *r, const uint8_t *packet)
{
	uint32_t n = r->size - (uint32_t)sizeof(*r);
	struct piece head = {0}, tail = {0};
	uint64_t lost;

	p->dropped = r->dropped > p->dropped ? r->dropped : p->dropped;
	if (n == 0) {
		return 0;
	}
	lost = p->dropped - p->told;
	p->told = p->dropped;
	p->packets++;
	p->last_ns = r->time_ns;
	add_u32(&head, 0);
	add_time(&head, r->time_ns);
	add_u32(&head, n);
	add_u32(&head, r->original);
	if (lost > 0) {
		add_option(&tail, PACKET_DROPPED, &lost, sizeof(lost));
		add_option(&tail, OPTION_END, NULL, 0);
	}
	return write_block(p->file, BLOCK_PACKET, &head, packet, n, &tail);
}

int pcapng_end(struct pcapng *p)
{
	uint64_t now = now_realtime();
	struct piece s = {0};
	int r;

	add_u32(&s, 0);
	add_time(&s, now);
	add_time_option(&s, STATISTICS_BEGIN, p->begun_ns);
	add_time_option(&s, STATISTICS_END, now);
	add_option(&s, STATISTICS_RECEIVED, &p->packets, sizeof(p->packets));
	add_option(&s, STATISTICS_DROPPED, &p->dropped, sizeof(p->dropped));
	add_option(&s, OPTION_END, NULL, 0);
	r = write_block(p->file, BLOCK_STATISTICS, &s, "", 0, &none);
	if (r == 0 && fflush(p->file) != 0) {
		r = -errno;
	}
	return r;
}
