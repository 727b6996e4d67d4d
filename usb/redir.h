/* SPDX-License-Identifier: MIT
 * One usbredir connection as its host side: reads and checks the guest's packets, and writes ours.
 *
 * The engine implements struct redir_ops. No operation may destroy the redir; each may send, hold
 * and stop. After closed or violated nothing is called any more but sent and abandoned.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "base/cleanup.h"
#include "usb/descriptors.h"
#include "usb/redir-wire.h"
#include "usb/transfer.h"

struct redir;

/* Packets whose complete writing the engine wants to know of. */
enum redir_mark { REDIR_MARK_NONE, REDIR_MARK_CONNECT, REDIR_MARK_DISCONNECT };

struct redir_ops {
	/* Both hellos are exchanged. */
	void (*hello)(void *userdata);
	/* A data packet: gives a transfer, and in *payload_out where in its buffer to read the
	 * payload to; or NULL: refused, answered by redir_refuse or not at all, and its payload is
	 * skipped. */
	struct transfer *(*begin)(
		void *userdata, const struct redir_request *r, uint8_t **payload_out);
	/* The payload is complete: t is the engine's. */
	void (*received)(void *userdata, struct transfer *t);
	/* The connection ended before that. */
	void (*abandoned)(void *userdata, struct transfer *t);
	/* A reply is written, or will never be: t is the engine's again. Once per packet of an
	 * isochronous t. */
	void (*sent)(void *userdata, struct transfer *t);
	void (*written)(void *userdata, enum redir_mark mark);
	/* Unread replies fell below the bound again. */
	void (*drained)(void *userdata);
	void (*cancel)(void *userdata, uint64_t id);
	void (*reset)(void *userdata);
	void (*set_configuration)(void *userdata, uint64_t id, uint8_t value);
	void (*get_configuration)(void *userdata, uint64_t id);
	void (*set_alt)(void *userdata, uint64_t id, uint8_t interface, uint8_t alt);
	void (*get_alt)(void *userdata, uint64_t id, uint8_t interface);
	void (*start_interrupt)(void *userdata, uint64_t id, uint8_t endpoint);
	void (*stop_interrupt)(void *userdata, uint64_t id, uint8_t endpoint);
	void (*start_iso)(void *userdata, uint64_t id, uint8_t endpoint, uint8_t packets_per_urb,
		uint8_t urbs);
	void (*stop_iso)(void *userdata, uint64_t id, uint8_t endpoint);
	/* Only where offered and negotiated. Masks have bit descriptors_slot(address). */
	void (*alloc_streams)(void *userdata, uint64_t id, uint32_t endpoints, uint32_t n_streams);
	void (*free_streams)(void *userdata, uint64_t id, uint32_t endpoints);
	void (*start_bulk)(void *userdata, uint64_t id, uint8_t endpoint, uint32_t stream_id,
		uint32_t bytes_per_transfer, uint8_t transfers);
	void (*stop_bulk)(void *userdata, uint64_t id, uint8_t endpoint, uint32_t stream_id);
	void (*rejected)(void *userdata); /* the guest's filter refuses the device */
	void (*disconnect_ack)(void *userdata);
	/* The guest's side closed the stream (0), or it failed (errno). */
	void (*closed)(void *userdata, int error);
	/* The guest broke the protocol or a bound; detail says how in a few words. */
	void (*violated)(void *userdata, const char *detail);
};

/* What a host may offer or not; the rest always is. */
enum redir_offer { REDIR_OFFER_STREAMS = 1, REDIR_OFFER_RECEIVING = 2 };

/* Takes fd, a stream socket, even on error; event, ops and userdata are borrowed. offer has bits of
 * enum redir_offer. Queues our hello. 0 or -errno. */
int redir_create(sd_event *event, int fd, unsigned int offer, const struct redir_ops *ops,
	void *userdata, struct redir **out) _must_check_;
/* Calls abandoned and sent for what is left. */
void redir_destroy(struct redir *r);

/* Writes what is queued, as far as the socket takes it: once per turn of the loop. May go on with
 * packets that waited for that. */
void redir_flush(struct redir *r);

/* While held no packet of the guest is looked at; when no longer held, those that waited are,
 * maybe from within this call. */
void redir_hold(struct redir *r, bool hold);
/* Whether so much is unread that the guest's packets wait; don't send unasked then. */
bool redir_congested(const struct redir *r);
/* Drops every queued packet that isn't yet on its way, and the payload that is being read. */
void redir_drop(struct redir *r);
/* Ends the connection now; abandons the payload that is being read. */
void redir_close(struct redir *r);
/* Whether both announced usbredir's device_disconnect_ack. */
bool redir_has_disconnect_ack(const struct redir *r);

/* Replies to a data packet: its transfer with what the backend set, which redir has until sent();
 * or, without one, with a status and no data. A transfer that the guest didn't ask for goes the
 * same way. */
void redir_send_transfer(struct redir *r, struct transfer *t);
/* Sends packet i of an isochronous IN transfer, which lies at offset in its buffer. Call it for all
 * of a transfer's packets in order; redir has each until sent(). */
void redir_send_iso_packet(
	struct redir *r, struct transfer *t, uint32_t i, uint32_t offset, uint64_t id);
void redir_refuse(
	struct redir *r, const struct redir_request *request, enum transfer_status status);

void redir_send_ep_info(struct redir *r, const struct descriptors *d);
void redir_send_interface_info(struct redir *r, const struct descriptors *d);
void redir_send_device_connect(struct redir *r, const struct descriptors *d);
void redir_send_device_disconnect(struct redir *r);
void redir_send_configuration_status(
	struct redir *r, uint64_t id, enum transfer_status status, uint8_t configuration);
void redir_send_alt_status(
	struct redir *r, uint64_t id, enum transfer_status status, uint8_t interface, uint8_t alt);
void redir_send_interrupt_status(
	struct redir *r, uint64_t id, enum transfer_status status, uint8_t endpoint);
void redir_send_iso_status(
	struct redir *r, uint64_t id, enum transfer_status status, uint8_t endpoint);
void redir_send_bulk_status(struct redir *r, uint64_t id, enum transfer_status status,
	uint8_t endpoint, uint32_t stream_id);
void redir_send_streams_status(struct redir *r, uint64_t id, enum transfer_status status,
	uint32_t endpoints, uint32_t n_streams);
