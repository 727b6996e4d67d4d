/* SPDX-License-Identifier: MIT
 *
 * libusbredirparser's part: hello, and every packet but the data packets, both ways. It is given
 * exactly one packet at a time, checked before, and what it writes is handed to the queue at once,
 * so its own queue never holds more than one packet.
 */
#include "usb/redir-internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <usbredirfilter.h>
#include <usbredirparser.h>

#include "base/checked.h"
#include "base/log.h"
#include "build-config.h"

static void handle_log(void *priv, int level, const char *msg)
{
	struct redir *r = priv;

	if (level <= usbredirparser_warning) {
		log_escape(msg, strlen(msg), r->complaint, sizeof(r->complaint));
		log_debug("usbredirparser: %s", r->complaint);
	}
}

static int handle_read(void *priv, uint8_t *data, int count)
{
	struct redir *r = priv;
	size_t n = MIN(r->feed_size, (size_t)count);

	memcpy(data, r->feed, n);
	r->feed += n;
	r->feed_size -= n;
	return (int)n;
}

/* Owns data (usbredirparser_fl_write_cb_owns_buffer), and must take all of it. */
static int handle_write(void *priv, uint8_t *data, int count)
{
	struct redir *r = priv;
	struct redir_packet *p = redir_packet_new(r);

	if (!p) {
		usbredirparser_free_write_buffer(r->parser, data);
		return count;
	}
	p->parser_buffer = data;
	p->payload = data;
	p->payload_size = (uint32_t)count;
	p->mark = r->next_mark;
	r->next_mark = REDIR_MARK_NONE;
	redir_queue(r, p);
	return count;
}

static bool negotiated(struct redir *r, int cap)
{
	return usbredirparser_have_cap(r->parser, cap) &&
	       usbredirparser_peer_has_cap(r->parser, cap);
}

static void handle_hello(void *priv, struct usb_redir_hello_header *hello)
{
	struct redir *r = priv;
	char version[128];

	r->hello_received = true;
	r->caps.ids64 = negotiated(r, usb_redir_cap_64bits_ids);
	r->caps.bulk32 = negotiated(r, usb_redir_cap_32bits_bulk_length);
	r->caps.streams = negotiated(r, usb_redir_cap_bulk_streams);
	r->caps.receiving = negotiated(r, usb_redir_cap_bulk_receiving);
	r->disconnect_ack = negotiated(r, usb_redir_cap_device_disconnect_ack);
	log_debug("guest's hello: %s",
		log_escape(hello->version, sizeof(hello->version), version, sizeof(version)));
	r->ops->hello(r->userdata);
}

static void handle_reset(void *priv)
{
	struct redir *r = priv;

	r->ops->reset(r->userdata);
}

static void handle_set_configuration(
	void *priv, uint64_t id, struct usb_redir_set_configuration_header *h)
{
	struct redir *r = priv;

	r->ops->set_configuration(r->userdata, id, h->configuration);
}

static void handle_get_configuration(void *priv, uint64_t id)
{
	struct redir *r = priv;

	r->ops->get_configuration(r->userdata, id);
}

static void handle_set_alt_setting(
	void *priv, uint64_t id, struct usb_redir_set_alt_setting_header *h)
{
	struct redir *r = priv;

	r->ops->set_alt(r->userdata, id, h->interface, h->alt);
}

static void handle_get_alt_setting(
	void *priv, uint64_t id, struct usb_redir_get_alt_setting_header *h)
{
	struct redir *r = priv;

	r->ops->get_alt(r->userdata, id, h->interface);
}

static void handle_start_interrupt(
	void *priv, uint64_t id, struct usb_redir_start_interrupt_receiving_header *h)
{
	struct redir *r = priv;

	r->ops->start_interrupt(r->userdata, id, h->endpoint);
}

static void handle_stop_interrupt(
	void *priv, uint64_t id, struct usb_redir_stop_interrupt_receiving_header *h)
{
	struct redir *r = priv;

	r->ops->stop_interrupt(r->userdata, id, h->endpoint);
}

static void handle_start_iso(void *priv, uint64_t id, struct usb_redir_start_iso_stream_header *h)
{
	struct redir *r = priv;

	r->ops->start_iso(r->userdata, id, h->endpoint, h->pkts_per_urb, h->no_urbs);
}

static void handle_stop_iso(void *priv, uint64_t id, struct usb_redir_stop_iso_stream_header *h)
{
	struct redir *r = priv;

	r->ops->stop_iso(r->userdata, id, h->endpoint);
}

static void handle_alloc_streams(
	void *priv, uint64_t id, struct usb_redir_alloc_bulk_streams_header *h)
{
	struct redir *r = priv;

	r->ops->alloc_streams(r->userdata, id, h->endpoints, h->no_streams);
}

static void handle_free_streams(
	void *priv, uint64_t id, struct usb_redir_free_bulk_streams_header *h)
{
	struct redir *r = priv;

	r->ops->free_streams(r->userdata, id, h->endpoints);
}

static void handle_start_bulk(
	void *priv, uint64_t id, struct usb_redir_start_bulk_receiving_header *h)
{
	struct redir *r = priv;

	r->ops->start_bulk(
		r->userdata, id, h->endpoint, h->stream_id, h->bytes_per_transfer, h->no_transfers);
}

static void handle_stop_bulk(
	void *priv, uint64_t id, struct usb_redir_stop_bulk_receiving_header *h)
{
	struct redir *r = priv;

	r->ops->stop_bulk(r->userdata, id, h->endpoint, h->stream_id);
}

static void handle_cancel(void *priv, uint64_t id)
{
	struct redir *r = priv;

	r->ops->cancel(r->userdata, id);
}

static void handle_filter_reject(void *priv)
{
	struct redir *r = priv;

	r->ops->rejected(r->userdata);
}

/* The guest's side checks its filter itself when it sees the device, and says filter_reject. */
static void handle_filter(void *priv, struct usbredirfilter_rule *rules, int rules_count)
{
	usbredirfilter_free(rules);
}

static void handle_disconnect_ack(void *priv)
{
	struct redir *r = priv;

	r->ops->disconnect_ack(r->userdata);
}

static void set_handlers(struct usbredirparser *p)
{
	p->log_func = handle_log;
	p->read_func = handle_read;
	p->write_func = handle_write;
	p->hello_func = handle_hello;
	p->reset_func = handle_reset;
	p->set_configuration_func = handle_set_configuration;
	p->get_configuration_func = handle_get_configuration;
	p->set_alt_setting_func = handle_set_alt_setting;
	p->get_alt_setting_func = handle_get_alt_setting;
	p->start_interrupt_receiving_func = handle_start_interrupt;
	p->stop_interrupt_receiving_func = handle_stop_interrupt;
	p->start_iso_stream_func = handle_start_iso;
	p->stop_iso_stream_func = handle_stop_iso;
	p->alloc_bulk_streams_func = handle_alloc_streams;
	p->free_bulk_streams_func = handle_free_streams;
	p->start_bulk_receiving_func = handle_start_bulk;
	p->stop_bulk_receiving_func = handle_stop_bulk;
	p->cancel_data_packet_func = handle_cancel;
	p->filter_reject_func = handle_filter_reject;
	p->filter_filter_func = handle_filter;
	p->device_disconnect_ack_func = handle_disconnect_ack;
}

int redir_parser_start(struct redir *r, unsigned int offer)
{
	static const int caps[] = {
		usb_redir_cap_connect_device_version,
		usb_redir_cap_filter,
		usb_redir_cap_device_disconnect_ack,
		usb_redir_cap_ep_info_max_packet_size,
		usb_redir_cap_64bits_ids,
		usb_redir_cap_32bits_bulk_length,
	};
	uint32_t bits[USB_REDIR_CAPS_SIZE] = {0};
	struct usbredirparser *p = usbredirparser_create();

	if (!p) {
		return -ENOMEM;
	}
	r->parser = p;
	p->priv = r;
	set_handlers(p);
	for (size_t i = 0; i < ARRAY_SIZE(caps); i++) {
		usbredirparser_caps_set_cap(bits, caps[i]);
	}
	if (offer & REDIR_OFFER_STREAMS) {
		usbredirparser_caps_set_cap(bits, usb_redir_cap_bulk_streams);
	}
	if (offer & REDIR_OFFER_RECEIVING) {
		usbredirparser_caps_set_cap(bits, usb_redir_cap_bulk_receiving);
	}
	usbredirparser_init(p, "devbroker " DEVBROKER_VERSION, bits, USB_REDIR_CAPS_SIZE,
		usbredirparser_fl_usb_host | usbredirparser_fl_write_cb_owns_buffer);
	return usbredirparser_do_write(p) < 0 ? -ENOMEM : 0;
}

void redir_parser_finish(struct redir *r)
{
	if (r->parser) {
		usbredirparser_destroy(r->parser);
	}
}

void redir_parser_free(struct redir *r, uint8_t *buffer)
{
	usbredirparser_free_write_buffer(r->parser, buffer);
}

const char *redir_parser_feed(struct redir *r, const uint8_t *packet, size_t size)
{
	int e;

	r->complaint[0] = '\0';
	r->feed = packet;
	r->feed_size = size;
	e = usbredirparser_do_read(r->parser);
	r->feed = NULL;
	if (e < 0 || r->feed_size > 0) {
		return r->complaint[0] ? r->complaint : "malformed packet";
	}
	return NULL;
}

/* Hands what a usbredirparser_send_* call queued to our queue. */
static void take_written(struct redir *r, enum redir_mark mark)
{
	r->next_mark = (uint8_t)mark;
	(void)usbredirparser_do_write(r->parser);
	r->next_mark = REDIR_MARK_NONE;
}

void redir_send_ep_info(struct redir *r, const struct descriptors *d)
{
	struct usb_redir_ep_info_header h = {0};

	for (size_t i = 0; i < USB_ENDPOINTS_MAX; i++) {
		h.type[i] = d->active[i].type;
		h.interval[i] = d->active[i].interval;
		h.interface[i] = d->active[i].interface;
		h.max_packet_size[i] = d->active[i].max_packet_size;
		h.max_streams[i] = d->active[i].max_streams;
	}
	usbredirparser_send_ep_info(r->parser, &h);
	take_written(r, REDIR_MARK_NONE);
}

void redir_send_interface_info(struct redir *r, const struct descriptors *d)
{
	struct usb_redir_interface_info_header h = {
		.interface_count = (uint32_t)d->n_interfaces,
	};

	for (size_t i = 0; i < d->n_interfaces; i++) {
		const struct usb_alt *alt = &d->alts[d->interfaces[i].active];

		h.interface[i] = alt->interface;
		h.interface_class[i] = alt->class;
		h.interface_subclass[i] = alt->subclass;
		h.interface_protocol[i] = alt->protocol;
	}
	usbredirparser_send_interface_info(r->parser, &h);
	take_written(r, REDIR_MARK_NONE);
}

void redir_send_device_connect(struct redir *r, const struct descriptors *d)
{
	struct usb_redir_device_connect_header h = {
		.speed = d->speed, /* enum usb_speed has usbredir's values */
		.device_class = d->class,
		.device_subclass = d->subclass,
		.device_protocol = d->protocol,
		.vendor_id = d->vendor,
		.product_id = d->product,
		.device_version_bcd = d->version,
	};

	usbredirparser_send_device_connect(r->parser, &h);
	take_written(r, REDIR_MARK_CONNECT);
}

void redir_send_device_disconnect(struct redir *r)
{
	usbredirparser_send_device_disconnect(r->parser);
	take_written(r, REDIR_MARK_DISCONNECT);
}

void redir_send_configuration_status(
	struct redir *r, uint64_t id, enum transfer_status status, uint8_t configuration)
{
	struct usb_redir_configuration_status_header h = {
		.status = (uint8_t)status,
		.configuration = configuration,
	};

	usbredirparser_send_configuration_status(r->parser, id, &h);
	take_written(r, REDIR_MARK_NONE);
}

void redir_send_alt_status(
	struct redir *r, uint64_t id, enum transfer_status status, uint8_t interface, uint8_t alt)
{
	struct usb_redir_alt_setting_status_header h = {
		.status = (uint8_t)status,
		.interface = interface,
		.alt = alt,
	};

	usbredirparser_send_alt_setting_status(r->parser, id, &h);
	take_written(r, REDIR_MARK_NONE);
}

void redir_send_interrupt_status(
	struct redir *r, uint64_t id, enum transfer_status status, uint8_t endpoint)
{
	struct usb_redir_interrupt_receiving_status_header h = {
		.status = (uint8_t)status,
		.endpoint = endpoint,
	};

	/* The parser aborts no process, but it refuses to send this for an OUT endpoint, which
	 * only a guest can have asked for. */
	usbredirparser_send_interrupt_receiving_status(r->parser, id, &h);
	take_written(r, REDIR_MARK_NONE);
}

void redir_send_iso_status(
	struct redir *r, uint64_t id, enum transfer_status status, uint8_t endpoint)
{
	struct usb_redir_iso_stream_status_header h = {
		.status = (uint8_t)status,
		.endpoint = endpoint,
	};

	usbredirparser_send_iso_stream_status(r->parser, id, &h);
	take_written(r, REDIR_MARK_NONE);
}

void redir_send_bulk_status(struct redir *r, uint64_t id, enum transfer_status status,
	uint8_t endpoint, uint32_t stream_id)
{
	struct usb_redir_bulk_receiving_status_header h = {
		.stream_id = stream_id,
		.endpoint = endpoint,
		.status = (uint8_t)status,
	};

	usbredirparser_send_bulk_receiving_status(r->parser, id, &h);
	take_written(r, REDIR_MARK_NONE);
}

void redir_send_streams_status(struct redir *r, uint64_t id, enum transfer_status status,
	uint32_t endpoints, uint32_t n_streams)
{
	struct usb_redir_bulk_streams_status_header h = {
		.endpoints = endpoints,
		.no_streams = n_streams,
		.status = (uint8_t)status,
	};

	usbredirparser_send_bulk_streams_status(r->parser, id, &h);
	take_written(r, REDIR_MARK_NONE);
}
