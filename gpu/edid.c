/* SPDX-License-Identifier: MIT
 *
 * VESA E-EDID 1.4: one block with the best mode as its first timing, and some usual modes beside
 * it, so that guests don't fall back to guesses. A mode of 4096 pixels or lines and more does not
 * fit there; a DisplayID 1.3 block follows then that has it as a type I timing.
 */
#include "gpu/edid.h"

#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/checked.h"

#define BLOCK       128
#define REFRESH     60
#define DOTS_DPI    96
#define TIMING_MAX  4095  /* of a detailed timing's fields */
#define CLOCK_MIN   1000  /* in 10 kHz: what no display goes below */
#define CLOCK_MAX   65535 /* in 10 kHz */
#define SIZE_MAX_MM 2544  /* what is told in whole centimetres too, in a byte */
#define DESCRIPTORS 54    /* where the first of four stands */
#define DESCRIPTOR  18    /* bytes of each */

struct timing {
	uint32_t width;
	uint32_t height;
	uint32_t h_blank, h_front, h_sync;
	uint32_t v_blank, v_front, v_sync;
	uint32_t clock; /* 10 kHz */
};

/* CVT with reduced blanking: the length of the vertical sync tells the aspect ratio. */
static uint32_t sync_lines(uint32_t width, uint32_t height)
{
	static const struct {
		uint32_t x, y, lines;
	} ratios[] = {{4, 3, 4}, {16, 9, 5}, {16, 10, 6}, {5, 4, 7}, {15, 9, 7}};

	for (size_t i = 0; i < ARRAY_SIZE(ratios); i++) {
		if (width * ratios[i].y == height * ratios[i].x) {
			return ratios[i].lines;
		}
	}
	return 10;
}

static struct timing timing_of(uint32_t width, uint32_t height)
{
	struct timing t = {
		.width = width,
		.height = height,
		.h_blank = 160,
		.h_front = 48,
		.h_sync = 32,
		.v_front = 3,
		.v_sync = sync_lines(width, height),
	};
	/* At least 460 microseconds of vertical blanking. */
	const uint32_t frame_us = 1000000 / REFRESH, blank_us = 460;
	uint32_t columns = width + t.h_blank, least = CLOCK_MIN * 10000 / REFRESH / columns + 2;

	t.v_blank = blank_us * height / (frame_us - blank_us) + 1;
	t.v_blank = MAX(t.v_blank, t.v_front + t.v_sync + 6);
	t.v_blank = MAX(t.v_blank, least > height ? least - height : 0);
	/* Steps of 250 kHz. */
	t.clock = (uint32_t)((uint64_t)columns * (height + t.v_blank) * REFRESH / 250000 * 25);
	return t;
}

static uint32_t millimetres(uint32_t pixels)
{
	return (pixels * 254 + DOTS_DPI * 5) / (DOTS_DPI * 10);
}

static void put16(uint8_t *at, uint32_t value)
{
	at[0] = (uint8_t)value;
	at[1] = (uint8_t)(value >> 8);
}

/* Two numbers of 12 bits: low bytes, then both high halves. */
static void put_pair(uint8_t *at, uint32_t a, uint32_t b)
{
	at[0] = (uint8_t)a;
	at[1] = (uint8_t)b;
	at[2] = (uint8_t)((a >> 8) << 4 | b >> 8);
}

/* 3.10.2: a detailed timing, on a display of this size, which is in 12 bits too or unknown. */
static void put_timing(uint8_t *at, const struct timing *t, uint32_t width_mm, uint32_t height_mm)
{
	put16(at, t->clock);
	put_pair(at + 2, t->width, t->h_blank);
	put_pair(at + 5, t->height, t->v_blank);
	at[8] = (uint8_t)t->h_front;
	at[9] = (uint8_t)t->h_sync;
	at[10] = (uint8_t)(t->v_front << 4 | t->v_sync);
	at[11] = 0;
	put_pair(at + 12, width_mm, height_mm);
	at[17] = 0x1a; /* digital separate sync, horizontal positive, vertical negative */
}

static bool fits_timing(const struct timing *t)
{
	return t->width <= TIMING_MAX && t->height <= TIMING_MAX && t->clock <= CLOCK_MAX;
}

/* 3.10.3: text of up to 13 characters, ended by a line feed and filled with spaces. */
static void put_text(uint8_t *at, uint8_t tag, const char *text)
{
	size_t n = strlen(text);

	memset(at, 0, 5);
	at[3] = tag;
	memset(at + 5, ' ', DESCRIPTOR - 5);
	memcpy(at + 5, text, n);
	at[5 + n] = '\n';
}

static void put_checksum(uint8_t *block, size_t size)
{
	uint8_t sum = 0;

	for (size_t i = 0; i < size - 1; i++) {
		sum = (uint8_t)(sum + block[i]);
	}
	block[size - 1] = (uint8_t)(0x100 - sum);
}

/* 3.9: width in steps of 8 from 256, aspect ratio (0 is 16:10, 1 4:3, 2 5:4, 3 16:9), 60 Hz. */
static void put_standard_timings(uint8_t *at)
{
	static const struct {
		uint16_t width, ratio;
	} modes[] = {{1920, 3}, {1920, 0}, {1680, 0}, {1600, 3}, {1440, 0}, {1280, 2}, {1280, 0},
		{1280, 3}};

	for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
		at[2 * i] = (uint8_t)(modes[i].width / 8 - 31);
		at[2 * i + 1] = (uint8_t)(modes[i].ratio << 6 | (REFRESH - 60));
	}
}

static void put_base(uint8_t *b, uint32_t number, const struct timing *t, const struct timing *best)
{
	static const uint8_t magic[8] = {0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0};
	/* sRGB */
	static const uint8_t colours[10] = {
		0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54};
	uint32_t width_mm = millimetres(best->width), height_mm = millimetres(best->height);
	char serial[14];

	if (width_mm > SIZE_MAX_MM || height_mm > SIZE_MAX_MM) {
		width_mm = height_mm = 0;
	}
	memcpy(b, magic, sizeof(magic));
	/* Manufacturer "DBR": letters of 5 bits, big-endian. */
	b[8] = ('D' - '@') << 2 | ('B' - '@') >> 3;
	b[9] = (('B' - '@') << 5 | ('R' - '@')) & 0xff;
	put16(b + 10, 1);          /* product */
	put16(b + 12, number + 1); /* serial number */
	b[16] = 0;                 /* week: none */
	b[17] = 2026 - 1990;
	b[18] = 1;
	b[19] = 4;
	b[20] = 0xa0; /* digital, 8 bits a colour, no known interface */
	b[21] = (uint8_t)((width_mm + 5) / 10);
	b[22] = (uint8_t)((height_mm + 5) / 10);
	b[23] = 220 - 100; /* gamma 2.2 */
	b[24] = 0x06;      /* sRGB; the first timing is the native one */
	memcpy(b + 25, colours, sizeof(colours));
	b[35] = 0x21; /* 640x480 and 800x600 at 60 Hz */
	b[36] = 0x08; /* 1024x768 at 60 Hz */
	put_standard_timings(b + 38);
	snprintf(serial, sizeof(serial), "%u", number + 1);
	put_timing(b + DESCRIPTORS, t, width_mm, height_mm);
	put_text(b + DESCRIPTORS + DESCRIPTOR, 0xfc, "devbroker");
	put_text(b + DESCRIPTORS + 2 * DESCRIPTOR, 0xff, serial);
	b[DESCRIPTORS + 3 * DESCRIPTOR + 3] = 0x10; /* nothing */
}

/* DisplayID 1.3, 4.4.1: a type I timing; every number is stored less one. */
static void put_display_id(uint8_t *b, const struct timing *t)
{
	enum { HEADER = 4, DATA = 3, TIMING = 20 };
	uint8_t *section = b + 1, *data = section + HEADER, *at = data + DATA;

	b[0] = 0x70; /* a DisplayID section in an EDID extension */
	section[0] = 0x12;
	section[1] = 121; /* bytes up to the section's own checksum */
	section[2] = 3;   /* a display that stands by itself; the first block says the rest */
	data[0] = 0x03;
	data[2] = TIMING;
	put16(at, t->clock - 1);
	at[2] = (uint8_t)((t->clock - 1) >> 16);
	at[3] = 0x80 | 8; /* preferred; aspect ratio undefined */
	put16(at + 4, t->width - 1);
	put16(at + 6, t->h_blank - 1);
	put16(at + 8, (t->h_front - 1) | 0x8000); /* positive */
	put16(at + 10, t->h_sync - 1);
	put16(at + 12, t->height - 1);
	put16(at + 14, t->v_blank - 1);
	put16(at + 16, t->v_front - 1);
	put16(at + 18, t->v_sync - 1);
	put_checksum(section, BLOCK - 2);
}

size_t edid_build(
	uint32_t number, uint32_t width, uint32_t height, uint8_t out[static EDID_SIZE_MAX])
{
	struct timing best, first;

	assert(width > 0 && width <= EDID_SIDE_MAX && height > 0 && height <= EDID_SIDE_MAX);
	best = timing_of(width, height);
	first = fits_timing(&best) ? best : timing_of(1920, 1080);
	memset(out, 0, EDID_SIZE_MAX);
	put_base(out, number, &first, &best);
	if (fits_timing(&best)) {
		put_checksum(out, BLOCK);
		return BLOCK;
	}
	out[126] = 1;
	put_checksum(out, BLOCK);
	put_display_id(out + BLOCK, &best);
	put_checksum(out + BLOCK, BLOCK);
	return (size_t)2 * BLOCK;
}
