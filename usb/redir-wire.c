/* SPDX-License-Identifier: MIT */
#include "usb/redir-wire.h"

/* Largest payload of a packet without a 32-bit length: 64 KiB less one. */
#define PAYLOAD16_MAX 0xffff

struct type_bounds {
	uint16_t type;
	uint16_t header;  /* exactly so many bytes, then */
	uint32_t payload; /* at most so many */
};

/* What a guest may send. A hello's payload is its capabilities, a filter's is its rules. */
static const struct type_bounds bounds[] = {
	{REDIR_HELLO, 64, 256},
	{REDIR_RESET, 0, 0},
	{REDIR_SET_CONFIGURATION, 1, 0},
	{REDIR_GET_CONFIGURATION, 0, 0},
	{REDIR_SET_ALT_SETTING, 2, 0},
	{REDIR_GET_ALT_SETTING, 1, 0},
	{REDIR_START_ISO_STREAM, 3, 0},
	{REDIR_STOP_ISO_STREAM, 1, 0},
	{REDIR_START_INTERRUPT_RECEIVING, 1, 0},
	{REDIR_STOP_INTERRUPT_RECEIVING, 1, 0},
	{REDIR_ALLOC_BULK_STREAMS, 8, 0},
	{REDIR_FREE_BULK_STREAMS, 4, 0},
	{REDIR_CANCEL_DATA_PACKET, 0, 0},
	{REDIR_FILTER_REJECT, 0, 0},
	{REDIR_FILTER_FILTER, 0, REDIR_CONTROL_MAX - REDIR_FRAME_MAX},
	{REDIR_DEVICE_DISCONNECT_ACK, 0, 0},
	{REDIR_START_BULK_RECEIVING, 10, 0},
	{REDIR_STOP_BULK_RECEIVING, 5, 0},
	{REDIR_CONTROL_PACKET, 10, PAYLOAD16_MAX},
	{REDIR_BULK_PACKET, 10, TRANSFER_BYTES_MAX}, /* header: redir_wire_data_size */
	{REDIR_ISO_PACKET, 4, PAYLOAD16_MAX},
	{REDIR_INTERRUPT_PACKET, 4, PAYLOAD16_MAX},
};

static uint16_t get_u16(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t get_u32(const uint8_t *p)
{
	return get_u16(p) | (uint32_t)get_u16(p + 2) << 16;
}

static uint8_t *put_u16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
	return p + 2;
}

static uint8_t *put_u32(uint8_t *p, uint32_t v)
{
	return put_u16(put_u16(p, (uint16_t)v), (uint16_t)(v >> 16));
}

static uint8_t *put_frame(
	uint8_t *p, const struct redir_caps *caps, uint32_t type, uint32_t length, uint64_t id)
{
	p = put_u32(put_u32(put_u32(p, type), length), (uint32_t)id);
	return caps->ids64 ? put_u32(p, (uint32_t)(id >> 32)) : p;
}

void redir_wire_decode_frame(
	const uint8_t *p, const struct redir_caps *caps, struct redir_frame *out)
{
	out->type = get_u32(p);
	out->length = get_u32(p + 4);
	out->id = get_u32(p + 8);
	if (caps->ids64) {
		out->id |= (uint64_t)get_u32(p + 12) << 32;
	}
}

size_t redir_wire_data_size(uint32_t type, const struct redir_caps *caps)
{
	switch (type) {
	case REDIR_CONTROL_PACKET:
	case REDIR_BUFFERED_BULK_PACKET:
		return 10;
	case REDIR_BULK_PACKET:
		return caps->bulk32 ? 10 : 8;
	default:
		return 4;
	}
}

const char *redir_wire_check(const struct redir_frame *f, const struct redir_caps *caps)
{
	const struct type_bounds *b = NULL;
	size_t header;

	for (size_t i = 0; i < ARRAY_SIZE(bounds); i++) {
		if (bounds[i].type == f->type) {
			b = &bounds[i];
			break;
		}
	}
	if (!b) {
		return "unknown packet type";
	}
	header = redir_wire_is_data(f->type) ? redir_wire_data_size(f->type, caps) : b->header;
	if (f->length < header) {
		return "frame too short";
	}
	if (f->length - header > b->payload) {
		return b->payload ? "frame too large" : "frame of a wrong size";
	}
	return NULL;
}

static void decode_control(const uint8_t *p, struct redir_request *r)
{
	r->type = TRANSFER_CONTROL;
	r->setup = (struct usb_setup){
		.request = p[1],
		.request_type = p[2],
		.value = get_u16(p + 4),
		.index = get_u16(p + 6),
		.length = get_u16(p + 8),
	};
	r->length = r->setup.length;
}

const char *redir_wire_decode_data(const struct redir_frame *f, const struct redir_caps *caps,
	const uint8_t *p, struct redir_request *out)
{
	struct redir_request r = {.id = f->id, .endpoint = p[0]};

	r.payload = f->length - (uint32_t)redir_wire_data_size(f->type, caps);
	switch (f->type) {
	case REDIR_CONTROL_PACKET:
		decode_control(p, &r);
		break;
	case REDIR_BULK_PACKET:
		r.type = TRANSFER_BULK;
		r.length = get_u16(p + 2);
		r.stream_id = get_u32(p + 4);
		if (caps->bulk32) {
			r.length |= (uint32_t)get_u16(p + 8) << 16;
		}
		break;
	default:
		r.type = f->type == REDIR_ISO_PACKET ? TRANSFER_ISO : TRANSFER_INTERRUPT;
		r.length = get_u16(p + 2);
		break;
	}
	if (r.payload != (r.endpoint & 0x80 ? 0 : r.length)) {
		return "payload and length differ";
	}
	*out = r;
	return NULL;
}

size_t redir_wire_encode_data(const struct redir_request *r, const struct redir_caps *caps,
	uint8_t status, uint32_t length, uint32_t payload,
	uint8_t out[REDIR_FRAME_MAX + REDIR_DATA_MAX])
{
	static const uint32_t types[] = {
		[TRANSFER_CONTROL] = REDIR_CONTROL_PACKET,
		[TRANSFER_BULK] = REDIR_BULK_PACKET,
		[TRANSFER_INTERRUPT] = REDIR_INTERRUPT_PACKET,
		[TRANSFER_ISO] = REDIR_ISO_PACKET,
	};
	uint32_t type = r->buffered ? REDIR_BUFFERED_BULK_PACKET : types[r->type];
	uint32_t size = (uint32_t)redir_wire_data_size(type, caps) + payload;
	uint8_t *p = put_frame(out, caps, type, size, r->id);

	if (type == REDIR_BUFFERED_BULK_PACKET) {
		p = put_u32(put_u32(p, r->stream_id), length);
		*p++ = r->endpoint;
		*p++ = status;
		return (size_t)(p - out);
	}
	*p++ = r->endpoint;
	if (type == REDIR_CONTROL_PACKET) {
		*p++ = r->setup.request;
		*p++ = r->setup.request_type;
		*p++ = status;
		p = put_u16(put_u16(p, r->setup.value), r->setup.index);
		p = put_u16(p, (uint16_t)length);
	} else {
		*p++ = status;
		p = put_u16(p, (uint16_t)length);
	}
	if (type == REDIR_BULK_PACKET) {
		p = put_u32(p, r->stream_id);
		p = caps->bulk32 ? put_u16(p, (uint16_t)(length >> 16)) : p;
	}
	return (size_t)(p - out);
}

size_t redir_wire_encode_unsupported(const struct redir_frame *f, const struct redir_caps *caps,
	const uint8_t *p, uint8_t out[REDIR_FRAME_MAX + REDIR_DATA_MAX])
{
	bool streams = f->type == REDIR_ALLOC_BULK_STREAMS || f->type == REDIR_FREE_BULK_STREAMS;
	uint8_t *q;

	if (streams ? caps->streams : caps->receiving) {
		return 0;
	}
	switch (f->type) {
	case REDIR_ALLOC_BULK_STREAMS:
	case REDIR_FREE_BULK_STREAMS:
		q = put_frame(out, caps, REDIR_BULK_STREAMS_STATUS, 9, f->id);
		q = put_u32(put_u32(q, get_u32(p)), 0);
		*q++ = TRANSFER_INVALID;
		break;
	case REDIR_START_BULK_RECEIVING:
		q = put_frame(out, caps, REDIR_BULK_RECEIVING_STATUS, 6, f->id);
		q = put_u32(q, get_u32(p));
		*q++ = p[8];
		*q++ = TRANSFER_INVALID;
		break;
	case REDIR_STOP_BULK_RECEIVING:
		q = put_frame(out, caps, REDIR_BULK_RECEIVING_STATUS, 6, f->id);
		q = put_u32(q, get_u32(p));
		*q++ = p[4];
		*q++ = TRANSFER_INVALID;
		break;
	default:
		return 0;
	}
	return (size_t)(q - out);
}
