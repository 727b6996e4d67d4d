/* SPDX-License-Identifier: MIT
 *
 * What the stub's device does: when a transfer completes, and with what. Bulk, control and OUT
 * transfers are done at once (or after a latency), isochronous ones and reports at their pace, or
 * they would never end. Data follows patterns, so that the other end can check it.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "stub.h"

enum {
	GET_STATUS = 0,
	CLEAR_FEATURE = 1,
	SET_ADDRESS = 5,
	GET_DESCRIPTOR = 6,
	GET_CONFIGURATION = 8,
	SET_CONFIGURATION = 9,
	GET_INTERFACE = 10,
	SET_INTERFACE = 11
};

/* One word; name=N or name alone, which is name=1. 0 or -EINVAL. */
static int take_word(const char *word, struct stub_options *o)
{
	const struct {
		const char *name;
		uint32_t *value;
		int base;
	} known[] = {
		{"latency", &o->latency_us, 10},
		{"iso", &o->iso_us, 10},
		{"interrupt", &o->interrupt_us, 10},
		{"short", &o->short_every, 10},
		{"stall", &o->stall_every, 10},
		{"isobad", &o->iso_bad, 10},
		{"gone", &o->gone_after, 10},
		{"memory", &o->memory, 10},
		{"hang", &o->hang, 16},
		{"stuck", &o->stuck, 16},
		{"speed", &o->speed, 10},
		{"fill", &o->fill, 10},
		{"identity", &o->identity, 10},
		{"slow", &o->slow, 10},
		{"busy", &o->busy, 10},
		{"busy_after", &o->busy_after, 10},
		{"storage", &o->storage, 10},
	};
	size_t length = strcspn(word, "=");

	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		if (strlen(known[i].name) == length && strncmp(known[i].name, word, length) == 0) {
			const char *value = word[length] ? word + length + 1 : "1";
			char *end;

			*known[i].value = (uint32_t)strtoul(value, &end, known[i].base);
			return end > value && !*end ? 0 : -EINVAL;
		}
	}
	return -EINVAL;
}

int stub_parse_options(const char *text, struct stub_options *out)
{
	struct stub_options o = {
		.iso_us = 1000, .interrupt_us = 10000, .speed = LIBUSB_SPEED_SUPER};
	char *copy = strdup(text), *save = NULL;
	int r = copy ? 0 : -ENOMEM;

	for (char *word = copy ? strtok_r(copy, " ,\n", &save) : NULL; word && r == 0;
		word = strtok_r(NULL, " ,\n", &save)) {
		r = take_word(word, &o);
	}
	free(copy);
	if (r == 0 && (o.speed < LIBUSB_SPEED_LOW || o.speed > LIBUSB_SPEED_SUPER)) {
		r = -EINVAL;
	}
	if (r == 0) {
		*out = o;
	}
	return r;
}

void stub_device_init(struct stub_device *d, const char *options)
{
	memset(d, 0, sizeof(*d));
	if (stub_parse_options(options, &d->options) < 0) {
		fprintf(stderr, "stub libusb: bad options: %s\n", options);
		abort();
	}
	d->configuration = 1;
	stub_descriptors(d);
}

struct stub_endpoint *stub_endpoint(struct stub_device *d, uint8_t address)
{
	return &d->endpoints[(address & 0x0f) | (address & 0x80) >> 3];
}

uint64_t stub_due(struct stub_device *d, const struct libusb_transfer *t, uint64_t now)
{
	struct stub_endpoint *e = stub_endpoint(d, t->endpoint);
	const struct stub_options *o = &d->options;
	uint64_t pace = 0;

	if (t->endpoint != 0 && (t->endpoint == o->hang || t->endpoint == o->stuck)) {
		return UINT64_MAX;
	}
	if (t->type == LIBUSB_TRANSFER_TYPE_ISOCHRONOUS) {
		pace = (uint64_t)t->num_iso_packets * o->iso_us * 1000;
	} else if (t->endpoint == STUB_INTERRUPT_IN) {
		pace = (uint64_t)o->interrupt_us * 1000;
	}
	if (pace > 0) {
		e->next_due = (e->next_due > now ? e->next_due : now) + pace;
		return e->next_due;
	}
	return o->latency_us ? now + (uint64_t)o->latency_us * 1000 : 0;
}

/* Every eighth is half as long, every sixteenth empty; the rest is number, then number + position.
 */
uint32_t stub_pattern(uint32_t n, uint8_t *out, uint32_t room)
{
	uint32_t length = n % 16 == 15 ? 0 : n % 8 == 7 ? room / 2 : room;

	for (uint32_t i = 0; i < length; i++) {
		out[i] = (uint8_t)(i < 4 ? n >> 8 * i : n + i);
	}
	return length;
}

static void iso_in(struct stub_device *d, struct libusb_transfer *t)
{
	struct stub_endpoint *e = stub_endpoint(d, t->endpoint);
	uint8_t *p = t->buffer;

	for (int i = 0; i < t->num_iso_packets; i++) {
		struct libusb_iso_packet_descriptor *packet = &t->iso_packet_desc[i];
		uint32_t n = e->sequence++;

		if (d->options.iso_bad && n % d->options.iso_bad == d->options.iso_bad - 1) {
			packet->status = LIBUSB_TRANSFER_ERROR;
			packet->actual_length = 0;
		} else {
			packet->status = LIBUSB_TRANSFER_COMPLETED;
			packet->actual_length = stub_pattern(n, p, packet->length);
		}
		p += packet->length;
	}
}

static void iso_out(struct stub_device *d, struct libusb_transfer *t)
{
	struct stub_endpoint *e = stub_endpoint(d, t->endpoint);
	const uint8_t *p = t->buffer;

	for (int i = 0; i < t->num_iso_packets; i++) {
		struct libusb_iso_packet_descriptor *packet = &t->iso_packet_desc[i];
		uint32_t n = 0;

		packet->status = LIBUSB_TRANSFER_COMPLETED;
		packet->actual_length = packet->length;
		for (uint32_t k = 0; k < packet->length; k++) {
			n |= k < 4 ? (uint32_t)p[k] << 8 * k : 0;
			if (k >= 4 && p[k] != (uint8_t)(n + k)) {
				d->counters.iso_spoilt++;
				break;
			}
		}
		if (packet->length > 0) {
			d->counters.iso_packets++;
			d->counters.iso_gaps += n != e->sequence;
			e->sequence = n + 1;
		}
		p += packet->length;
	}
}

static void data_out(struct stub_device *d, const struct libusb_transfer *t)
{
	uint32_t h = d->counters.bulk_out ? d->counters.bulk_hash : 2166136261u;

	if (d->options.fill) {
		for (int i = 0; i < t->length; i++) {
			h = (h ^ t->buffer[i]) * 16777619u;
		}
	}
	d->counters.bulk_hash = h;
	d->counters.bulk_out += (uint32_t)t->length;
}

static void bulk(struct stub_device *d, struct libusb_transfer *t, uint32_t stream)
{
	struct stub_endpoint *e = stub_endpoint(d, t->endpoint);
	const struct stub_options *o = &d->options;

	d->bulk_transfers++;
	if (o->stall_every && d->bulk_transfers % o->stall_every == 0) {
		e->halted = true;
		t->status = LIBUSB_TRANSFER_STALL;
		return;
	}
	t->actual_length = t->length;
	if (!(t->endpoint & 0x80)) {
		data_out(d, t);
		return;
	}
	if (o->short_every && d->bulk_transfers % o->short_every == 0) {
		t->actual_length /= 2;
	}
	for (int i = 0; i < (o->fill ? t->actual_length : MIN(t->actual_length, 8)); i++) {
		t->buffer[i] = (uint8_t)(i < 4   ? e->sequence >> 8 * i
					 : i < 8 ? stream >> 8 * (i - 4)
						 : e->sequence + (uint32_t)i);
	}
	e->sequence++;
}

/* Answers with up to size bytes of what the device knows. */
static int reply(struct libusb_transfer *t, const void *data, size_t size)
{
	size_t wanted = (size_t)t->length - LIBUSB_CONTROL_SETUP_SIZE;
	size_t n = MIN(size, wanted);

	memcpy(t->buffer + LIBUSB_CONTROL_SETUP_SIZE, data, n);
	return (int)n;
}

static int get_descriptor(struct stub_device *d, struct libusb_transfer *t, uint16_t value)
{
	static const char *const strings[] = {"devbroker", "stub", "0001"};
	uint8_t string[64] = {4, 3, 0x09, 0x04};
	uint8_t index = (uint8_t)value;

	switch (value >> 8) {
	case LIBUSB_DT_DEVICE:
		return reply(t, d->descriptor, sizeof(d->descriptor));
	case LIBUSB_DT_CONFIG:
		return index == 0 ? reply(t, d->config, d->config_size) : -1;
	case LIBUSB_DT_STRING:
		if (index > ARRAY_SIZE(strings)) {
			return -1;
		}
		if (index > 0) {
			string[0] = (uint8_t)(2 + 2 * strlen(strings[index - 1]));
			for (size_t i = 0; strings[index - 1][i]; i++) {
				string[2 + 2 * i] = (uint8_t)strings[index - 1][i];
				string[3 + 2 * i] = 0;
			}
		}
		return reply(t, string, string[0]);
	default:
		return -1;
	}
}

/* Bytes of data, or -1: a stall. */
static int standard_request(
	struct stub_device *d, struct libusb_transfer *t, const struct libusb_control_setup *setup)
{
	uint8_t number = (uint8_t)setup->wIndex;
	struct stub_endpoint *e = stub_endpoint(d, number);

	switch (setup->bRequest) {
	case GET_DESCRIPTOR:
		return get_descriptor(d, t, setup->wValue);
	case GET_STATUS:
		return reply(t,
			(const uint8_t[2]){
				(setup->bmRequestType & 0x1f) == LIBUSB_RECIPIENT_ENDPOINT &&
				e->halted},
			2);
	case GET_CONFIGURATION:
		return reply(t, &d->configuration, 1);
	case GET_INTERFACE:
		return number < STUB_INTERFACES ? reply(t, &d->alt[number], 1) : -1;
	case SET_ADDRESS:
	case SET_CONFIGURATION:
	case SET_INTERFACE:
		d->counters.forbidden++;
		return 0;
	case CLEAR_FEATURE:
		return 0; /* the device's side of it only: the host's stack would be out of step */
	default:
		return -1;
	}
}

static int vendor_request(
	struct stub_device *d, struct libusb_transfer *t, const struct libusb_control_setup *setup)
{
	size_t n = (size_t)t->length - LIBUSB_CONTROL_SETUP_SIZE;

	switch (setup->bRequest) {
	case STUB_REQUEST_COUNTERS:
		return reply(t, &d->counters, sizeof(d->counters));
	case STUB_REQUEST_SCRATCH:
		if (setup->bmRequestType & 0x80) {
			return reply(t, d->scratch, sizeof(d->scratch));
		}
		n = MIN(n, sizeof(d->scratch));
		memcpy(d->scratch, t->buffer + LIBUSB_CONTROL_SETUP_SIZE, n);
		return (int)n;
	default:
		return -1;
	}
}

static void control(struct stub_device *d, struct libusb_transfer *t)
{
	const struct libusb_control_setup *raw = (const void *)t->buffer;
	struct libusb_control_setup setup = *raw;
	int n;

	setup.wValue = libusb_le16_to_cpu(raw->wValue);
	setup.wIndex = libusb_le16_to_cpu(raw->wIndex);
	n = (setup.bmRequestType & 0x60) == LIBUSB_REQUEST_TYPE_STANDARD
		    ? standard_request(d, t, &setup)
		    : vendor_request(d, t, &setup);
	t->status = n < 0 ? LIBUSB_TRANSFER_STALL : LIBUSB_TRANSFER_COMPLETED;
	t->actual_length = n < 0 ? 0 : n;
}

static void interrupt(struct stub_device *d, struct libusb_transfer *t)
{
	struct stub_endpoint *e = stub_endpoint(d, t->endpoint);

	t->actual_length = t->length;
	if (t->endpoint & 0x80) {
		/* Reports are never empty. */
		uint32_t n = e->sequence++;

		for (int i = 0; i < t->length; i++) {
			t->buffer[i] = (uint8_t)(i < 4 ? n >> 8 * i : n + (uint32_t)i);
		}
	}
}

void stub_complete(struct stub_device *d, struct libusb_transfer *t, uint32_t stream)
{
	t->status = LIBUSB_TRANSFER_COMPLETED;
	t->actual_length = 0;
	d->counters.transfers++;
	if (d->options.gone_after && d->counters.transfers >= d->options.gone_after) {
		d->gone = true;
	}
	if (d->gone) {
		t->status = LIBUSB_TRANSFER_NO_DEVICE;
	} else if (stub_endpoint(d, t->endpoint)->halted) {
		t->status = LIBUSB_TRANSFER_STALL;
	} else if (t->type == LIBUSB_TRANSFER_TYPE_CONTROL) {
		control(d, t);
	} else if (t->type == LIBUSB_TRANSFER_TYPE_ISOCHRONOUS) {
		(t->endpoint & 0x80 ? iso_in : iso_out)(d, t);
	} else if (t->type == LIBUSB_TRANSFER_TYPE_INTERRUPT) {
		interrupt(d, t);
	} else {
		bulk(d, t, stream);
	}
}
