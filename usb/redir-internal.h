/* SPDX-License-Identifier: MIT
 * What redir.c (reading), redir-write.c (writing) and redir-parser.c (libusbredirparser) share.
 */
#pragma once

#include "base/list.h"
#include "usb/redir.h"

struct usbredirparser;

/* Bytes asked for at once, behind the rest of a large payload. What is read here of a payload is
 * copied to its transfer, so more is not always better: 16 KiB hold some 500 small packets. */
#define REDIR_READ_BYTES (16 * 1024)
/* And where payloads are large: the next packet's header and hardly more, so that next to all of
 * its payload is read to where it belongs. */
#define REDIR_READ_LITTLE 512
#define REDIR_LARGE       (16 * 1024)
/* A full read is followed by another in the same turn of the loop until so much has come: more
 * would only wait in buffers that are cold when their turn comes. */
#define REDIR_TURN_BYTES (1024 * 1024)
/* Unread replies, with what they cost us, from which on the guest's packets wait, and below which
 * they go on. */
#define REDIR_UNREAD_MAX    (4u * 1024 * 1024)
#define REDIR_UNREAD_RESUME (2u * 1024 * 1024)

/* One packet on its way to the guest. */
struct redir_packet {
	struct list link; // redir::queue, or redir::spare
	uint8_t header[REDIR_FRAME_MAX + REDIR_DATA_MAX];
	uint8_t header_size;
	uint8_t mark; /* enum redir_mark */
	uint32_t payload_size;
	const uint8_t *payload;
	uint32_t charge;           /* in redir::unread */
	struct transfer *transfer; /* owns the payload, or NULL */
	bool shared;               /* a later packet pays for the transfer */
	uint8_t *parser_buffer;    /* owns the payload, or NULL */
};

struct redir {
	int fd; /* -1: closed */
	sd_event_source *io;
	uint32_t io_events;
	const struct redir_ops *ops;
	void *userdata;
	struct redir_caps caps;
	bool hello_received;
	bool disconnect_ack;
	bool dead;    /* closed or violated */
	bool held;    /* by the engine */
	bool parsing; /* inside redir_parse */
	bool congested;
	bool blocked; /* the socket took less than there was */

	/* reading */
	size_t in_start;
	size_t in_end;
	uint8_t in[REDIR_READ_BYTES];
	struct transfer *incoming; /* its payload is being read, or NULL */
	uint8_t *incoming_to;      /* in its buffer */
	uint32_t incoming_size;
	uint32_t incoming_done;
	uint32_t skip; /* bytes of a refused payload still to come */
	bool large;    /* the last data packet's payload was */

	/* writing */
	struct list queue; // redir_packet::link
	size_t sent;       /* bytes of the first packet that are written */
	size_t unread;     /* charges of the queue */
	struct list spare; // redir_packet::link
	size_t n_spare;

	/* libusbredirparser */
	struct usbredirparser *parser;
	const uint8_t *feed; /* the packet that it is given */
	size_t feed_size;
	uint8_t next_mark;  /* for the packet that it writes next */
	char complaint[64]; /* its last error */
};

/* redir.c */
void redir_fail(struct redir *r, const char *detail);
void redir_lost(struct redir *r, int error);
void redir_parse(struct redir *r);
/* Gives the payload that is being read up; what is still to come of it is skipped. */
void redir_abandon(struct redir *r);
void redir_update_events(struct redir *r);

/* redir-write.c: p from redir_packet_new (NULL when memory is out: the connection is failed then)
 */
struct redir_packet *redir_packet_new(struct redir *r);
void redir_queue(struct redir *r, struct redir_packet *p);
void redir_write_finish(struct redir *r);

/* redir-parser.c. offer has bits of enum redir_offer. 0 or -errno */
int redir_parser_start(struct redir *r, unsigned int offer) _must_check_;
void redir_parser_finish(struct redir *r);
/* Frees a redir_packet::parser_buffer. */
void redir_parser_free(struct redir *r, uint8_t *buffer);
/* Gives it one whole packet. NULL, or what is wrong with the packet. */
const char *redir_parser_feed(struct redir *r, const uint8_t *packet, size_t size);
