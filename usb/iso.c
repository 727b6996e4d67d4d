/* SPDX-License-Identifier: MIT
 *
 * Isochronous streams. The guest starts one per endpoint and says how many URBs of how many packets
 * it is to have. They are all allocated and charged then, and used again and again until it ends:
 * however fast device and guest are, nothing is allocated, and nothing grows.
 *
 * IN: every URB is submitted. What one brings goes to the guest packet by packet from where it
 * lies, and the URB is submitted again when the last of them is written. A guest that doesn't read
 * loses what the device sends meanwhile.
 *
 * OUT: the guest's packets are read to where they belong in the URB that is being filled. As soon
 * as half of the URBs are full they are submitted, and from then on each one when it is full, so
 * that the device has a reserve. When the device has used that up (an underrun) it starts over.
 * When all are with the device (an overrun) packets are dropped until half of them are free again.
 *
 * A stream ends by itself at an error of a whole URB, and the guest is told with the status STALL:
 * only then does QEMU know that it has ended, and start it again. Errors of single packets don't
 * end it: an IN packet's goes to the guest with it.
 *
 * A URB belongs to its stream, unless it is released: then it goes back to the pool as soon as
 * neither the backend (transfer::submitted) nor the connection (transfer::pieces) has it.
 */
#include "usb/engine-internal.h"

#include "base/checked.h"
#include "base/log.h"

static uint8_t address(unsigned int slot)
{
	return (uint8_t)((slot & 16 ? 0x80 : 0) | (slot & 0x0f));
}

/* t is released, and the backend doesn't have it. */
static void uncharge(struct engine *e, struct transfer *t)
{
	engine_data_settle(e, t);
	if (t->pieces == 0) {
		transfer_put(e->pool, t);
	}
}

/* Releases the first n URBs. */
static void release(struct engine *e, struct iso_stream *s, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		struct transfer *t = s->urbs[i];

		s->urbs[i] = NULL;
		t->released = true;
		if (t->submitted) {
			engine_data_cancel_one(e, t);
		} else {
			uncharge(e, t);
		}
	}
}

static void close_stream(struct engine *e, unsigned int slot)
{
	struct iso_stream *s = &e->iso[slot];
	unsigned int n = s->n_urbs;

	s->ended = false;
	if (!s->started) {
		return;
	}
	if (s->dropped > 0) {
		log_debug("isochronous endpoint %02x: dropped %llu packets of a guest that was too "
			  "fast",
			address(slot), (unsigned long long)s->dropped);
	}
	s->started = false;
	s->n_urbs = 0;
	release(e, s, n);
}

/* Ends it unasked. */
static void end(struct engine *e, unsigned int slot)
{
	close_stream(e, slot);
	e->iso[slot].ended = true;
	redir_send_iso_status(e->redir, 0, TRANSFER_STALL, address(slot));
}

void iso_forget(struct engine *e, int interface)
{
	for (unsigned int slot = 0; slot < USB_ENDPOINTS_MAX; slot++) {
		if (interface < 0 || e->descriptors.active[slot].interface == interface) {
			close_stream(e, slot);
		}
	}
}

/* A URB of n packets of up to bytes bytes, with its table of packets behind its data. NULL if a
 * bound forbids it. */
static struct transfer *new_urb(
	struct engine *e, unsigned int slot, uint32_t n_packets, uint32_t packet_bytes)
{
	const uint32_t align = _Alignof(struct iso_packet);
	uint32_t bytes = (n_packets * packet_bytes + align - 1) / align * align;
	struct transfer *t =
		engine_data_get(e, bytes + n_packets * (uint32_t)sizeof(struct iso_packet));

	if (!t) {
		return NULL;
	}
	t->owner = TRANSFER_OF_STREAM;
	t->type = TRANSFER_ISO;
	t->endpoint = address(slot);
	t->packets = (struct iso_packet *)(void *)(t->data + bytes);
	t->n_packets = 0;
	t->length = 0;
	return t;
}

static bool open_stream(struct engine *e, unsigned int slot, uint8_t n_packets, uint8_t n_urbs)
{
	struct iso_stream *s = &e->iso[slot];
	uint16_t packet_bytes = e->descriptors.active[slot].interval_bytes;

	*s = (struct iso_stream){.n_packets = n_packets, .packet_bytes = packet_bytes};
	for (unsigned int i = 0; i < n_urbs; i++) {
		s->urbs[i] = new_urb(e, slot, n_packets, packet_bytes);
		if (!s->urbs[i]) {
			release(e, s, i);
			return false;
		}
	}
	s->n_urbs = n_urbs;
	s->started = true;
	return true;
}

/* Can't fail: that needs a forked child. */
static void want_submit(struct engine *e)
{
	(void)sd_event_source_set_enabled(e->iso_ready, SD_EVENT_ONESHOT);
}

void iso_start(void *userdata, uint64_t id, uint8_t endpoint, uint8_t n_packets, uint8_t n_urbs)
{
	struct engine *e = userdata;
	const struct usb_endpoint *ep = descriptors_endpoint(&e->descriptors, endpoint);
	unsigned int slot = descriptors_slot(endpoint);
	enum transfer_status status = TRANSFER_OK;

	if (e->phase != ENGINE_RUNNING) {
		return;
	}
	if (!ep || ep->type != USB_ENDPOINT_ISO || ep->interval_bytes == 0 ||
		!e->backend->ops->isochronous || engine_guarded(e, endpoint) ||
		e->iso[slot].started || n_packets < 1 || n_packets > ISO_PACKETS_MAX ||
		n_urbs < 1 || n_urbs > ISO_URBS_MAX) {
		status = TRANSFER_INVALID;
	} else if (!open_stream(e, slot, n_packets, n_urbs)) {
		status = TRANSFER_STALL; /* maybe later */
	}
	if (status != TRANSFER_OK) {
		e->count.refused++;
	} else if (endpoint & 0x80) {
		want_submit(e);
	}
	redir_send_iso_status(e->redir, id, status, endpoint);
}

void iso_stop(void *userdata, uint64_t id, uint8_t endpoint)
{
	struct engine *e = userdata;
	const struct usb_endpoint *ep = descriptors_endpoint(&e->descriptors, endpoint);
	enum transfer_status status = TRANSFER_OK;

	if (e->phase != ENGINE_RUNNING) {
		return;
	}
	if (!ep || ep->type != USB_ENDPOINT_ISO) {
		status = TRANSFER_INVALID;
		e->count.refused++;
	} else {
		close_stream(e, descriptors_slot(endpoint));
	}
	redir_send_iso_status(e->redir, id, status, endpoint);
}

static void submit(struct engine *e, struct iso_stream *s, struct transfer *t)
{
	t->status = TRANSFER_OK;
	s->n_submitted++;
	engine_data_submit(e, t);
}

static void submit_in(struct engine *e, struct iso_stream *s, struct transfer *t)
{
	for (uint32_t i = 0; i < s->n_packets; i++) {
		t->packets[i] = (struct iso_packet){.length = s->packet_bytes};
	}
	t->n_packets = s->n_packets;
	t->length = (uint32_t)s->n_packets * s->packet_bytes;
	submit(e, s, t);
}

/* From the loop and not where a URB becomes free: that may be within the writing of the queue,
 * which would go on for ever with a device and a guest that are both fast enough. */
static int handle_ready(sd_event_source *source, void *userdata)
{
	struct engine *e = userdata;

	for (unsigned int slot = 16; slot < USB_ENDPOINTS_MAX; slot++) {
		struct iso_stream *s = &e->iso[slot];

		/* A submit that fails at once ends the stream. */
		for (unsigned int i = 0; s->started && i < s->n_urbs; i++) {
			if (!s->urbs[i]->submitted && s->urbs[i]->pieces == 0) {
				submit_in(e, s, s->urbs[i]);
			}
		}
	}
	return 0;
}

int iso_create(struct engine *e)
{
	int r = sd_event_add_defer(e->event, &e->iso_ready, handle_ready, e);

	return r < 0 ? r : sd_event_source_set_enabled(e->iso_ready, SD_EVENT_OFF);
}

void iso_destroy(struct engine *e)
{
	e->iso_ready = sd_event_source_disable_unref(e->iso_ready);
}

void iso_let_go(struct engine *e, struct transfer *t)
{
	if (--t->pieces > 0) {
		return;
	}
	if (t->released) {
		transfer_put(e->pool, t);
	} else if (transfer_is_in(t)) {
		want_submit(e);
	}
}

static void deliver(struct engine *e, struct iso_stream *s, struct transfer *t)
{
	uint32_t offset = 0;

	/* Stays ours until all are handed over: the connection may end in the middle. */
	t->pieces++;
	for (uint32_t i = 0; i < t->n_packets && !t->released; i++) {
		t->pieces++;
		redir_send_iso_packet(e->redir, t, i, offset, s->next_id++);
		offset += t->packets[i].length;
	}
	iso_let_go(e, t);
}

static void empty(struct engine *e, struct iso_stream *s, struct transfer *t)
{
	for (uint32_t i = 0; i < t->n_packets; i++) {
		e->count.errors += t->packets[i].status != TRANSFER_OK;
	}
	t->n_packets = 0;
	t->length = 0;
	if (s->n_submitted == 0) {
		s->running = false;
	}
}

void iso_completed(struct engine *e, struct transfer *t)
{
	unsigned int slot = descriptors_slot(t->endpoint);
	struct iso_stream *s = &e->iso[slot];

	if (t->released) {
		uncharge(e, t);
		return;
	}
	s->n_submitted--;
	if (t->status != TRANSFER_OK) {
		end(e, slot);
	} else if (transfer_is_in(t)) {
		deliver(e, s, t);
	} else {
		empty(e, s, t);
	}
}

/* Whether there is no place for one more packet. */
static bool overrun(struct iso_stream *s)
{
	const struct transfer *t = s->urbs[s->filling];

	if (s->dropping && s->n_submitted <= s->n_urbs / 2) {
		s->dropping = false;
	}
	if (t->submitted) {
		s->dropping = true;
	}
	s->dropped += s->dropping;
	return s->dropping;
}

struct transfer *iso_begin(struct engine *e, const struct redir_request *r, uint8_t **payload_out)
{
	unsigned int slot = descriptors_slot(r->endpoint);
	struct iso_stream *s = &e->iso[slot];
	struct transfer *t;

	if (r->endpoint & 0xf0 || (!s->started && !s->ended)) {
		e->count.refused++;
		redir_refuse(e->redir, r, TRANSFER_INVALID);
		return NULL;
	}
	if (!s->started) {
		return NULL; /* sent before the guest knew */
	}
	if (r->length > s->packet_bytes) {
		e->count.refused++;
		end(e, slot);
		return NULL;
	}
	if (overrun(s)) {
		return NULL;
	}
	t = s->urbs[s->filling];
	t->packets[t->n_packets] = (struct iso_packet){.length = r->length};
	t->pieces++;
	*payload_out = t->data + t->length;
	return t;
}

/* Submits what is full, oldest first. */
static void submit_full(struct engine *e, struct iso_stream *s)
{
	s->running = true;
	while (s->started && s->n_full > 0) {
		unsigned int i = (s->filling + s->n_urbs - s->n_full) % s->n_urbs;

		s->n_full--;
		submit(e, s, s->urbs[i]);
	}
}

void iso_received(struct engine *e, struct transfer *t)
{
	struct iso_stream *s = &e->iso[descriptors_slot(t->endpoint)];

	if (t->released) {
		iso_let_go(e, t);
		return;
	}
	t->pieces--;
	t->length += t->packets[t->n_packets++].length;
	if (t->n_packets < s->n_packets) {
		return;
	}
	s->filling = (uint8_t)((s->filling + 1) % s->n_urbs);
	s->n_full++;
	if (s->running || s->n_full >= MAX(1, s->n_urbs / 2)) {
		submit_full(e, s);
	}
}
