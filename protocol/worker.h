/* SPDX-License-Identifier: MIT
 * Messages between the broker and its workers: fixed size, one per SOCK_SEQPACKET datagram, no fds
 * (but HELD's, CAPTURE's and PACE's).
 *
 * The broker treats every worker as hostile: worker_msg_decode checks size, type, direction, enum
 * ranges and text before a handler sees a message. Host byte order: both ends are one build on one
 * machine; the version in READY is compared anyway.
 */
#pragma once

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

#define WORKER_PROTOCOL_VERSION 6

/* What a worker and the record of its lease share, and nobody else. */
#define WORKER_COOKIE_SIZE 16

enum worker_msg_type {
	/* worker to broker */
	WORKER_MSG_READY = 1, /* first message: the sandbox is closed, serving starts */
	WORKER_MSG_STATE = 2, /* what the guest's side of the device is now */
	WORKER_MSG_PONG = 3,  /* answers PING, with counters */
	WORKER_MSG_DONE = 4,  /* last message: why the worker ends by itself */
	WORKER_MSG_QMP = 5,   /* devbroker-qmp's result; follows READY, precedes its exit */
	/* The guest wants another configuration: the worker has released its interfaces and waits
	 * for CONFIGURED. At most one is outstanding. */
	WORKER_MSG_SET_CONFIGURATION = 6,
	WORKER_MSG_CLAIM = 7, /* devbroker-claim's result; follows READY, precedes its exit */
	/* Answers ADOPT, and brings the fd of its image, if it has one: the only message with one.
	 */
	WORKER_MSG_HELD = 8,
	/* broker to worker */
	WORKER_MSG_PING = 16,
	WORKER_MSG_DETACH = 17,     /* tell the guest, flush, send DONE, exit */
	WORKER_MSG_CONFIGURED = 18, /* answers SET_CONFIGURATION; interfaces may be claimed again */
	WORKER_MSG_UNPLUGGED = 19,  /* the device is gone: tell the guest, send DONE, exit */
	/* From now on it goes on serving when the broker is gone, and waits for the next one. */
	WORKER_MSG_KEEP = 20,
	/* The first message of a broker that came after: answered with HELD if the cookie is that
	 * of KEEP, else the connection is closed. */
	WORKER_MSG_ADOPT = 21,
	/* Brings a pipe's end: capture into it (protocol/capture.h) until nobody reads it. */
	WORKER_MSG_CAPTURE = 23,
	/* Brings the page of its VM's rates (protocol/pace.h), which hold from now on. */
	WORKER_MSG_PACE = 24,
};

/* State of a USB worker. */
enum worker_state {
	WORKER_STATE_CONNECTING = 0, /* no hello from the guest's side yet */
	WORKER_STATE_ATTACHED = 1,   /* hellos exchanged, device_connect written */
	WORKER_STATE_CONFIGURED = 2, /* the guest set a configuration */
	WORKER_STATE_FLUSHING = 3,   /* the guest is told; data goes to the disk; may take long */
	WORKER_STATE_EJECTED = 4,    /* the guest ejected the medium: release it */
	WORKER_STATE_COUNT_,
};

enum worker_done_reason {
	WORKER_DONE_DETACHED = 0,    /* as told by DETACH */
	WORKER_DONE_PEER_CLOSED = 1, /* the guest's side closed the stream */
	WORKER_DONE_PEER_BAD = 2, /* it broke the usbredir protocol or a bound; detail says which */
	WORKER_DONE_DEVICE_LOST = 3, /* the device or its image failed for good */
	WORKER_DONE_BROKER_GONE = 4, /* the control socket closed */
	WORKER_DONE_INTERNAL = 5,    /* errno in error */
	WORKER_DONE_DEVICE_BUSY = 6, /* an interface can't be claimed: a host driver has it */
	WORKER_DONE_NOT_SHOWN = 7,   /* nothing of the device may be shown to the guest */
	WORKER_DONE_COUNT_,
};

enum qmp_status {
	QMP_STATUS_OK = 0,
	QMP_STATUS_CLOSED = 1,      /* connection closed by the VMM */
	QMP_STATUS_NO_GREETING = 2, /* another client is connected, or it is no QMP socket */
	QMP_STATUS_BAD_REPLY = 3,   /* not QMP */
	QMP_STATUS_REFUSED = 4,     /* the VMM answered with an error; text holds it */
	QMP_STATUS_TIMEOUT = 5,     /* no answer, or no DEVICE_DELETED, in time */
	QMP_STATUS_COUNT_,
};

enum qmp_vm_state {
	QMP_VM_UNKNOWN = 0,
	QMP_VM_RUNNING = 1,
	QMP_VM_PAUSED = 2,
	QMP_VM_STOPPED = 3,   /* shutdown, guest-panicked, internal-error, … */
	QMP_VM_MIGRATING = 4, /* incoming: a usb-redir that is plugged now would send no hello */
	QMP_VM_COUNT_,
};

struct worker_header {
	uint32_t type; /* enum worker_msg_type */
	uint32_t size; /* of the whole message */
};
static_assert(sizeof(struct worker_header) == 8, "wire size");

struct worker_ready {
	struct worker_header header;
	uint32_t version;        /* WORKER_PROTOCOL_VERSION */
	uint32_t sandbox_stages; /* bits of enum sandbox_stage that are closed */
};
static_assert(sizeof(struct worker_ready) == 16, "wire size");

struct worker_state_msg {
	struct worker_header header;
	uint32_t state; /* enum worker_state */
	uint32_t pad;
	uint64_t connect_ns; /* CLOCK_MONOTONIC when device_connect was written, 0 before */
};
static_assert(sizeof(struct worker_state_msg) == 24, "wire size");

struct worker_ping {
	struct worker_header header;
	uint64_t seq;
};
static_assert(sizeof(struct worker_ping) == 16, "wire size");

/* As enum transfer_type of a worker has them. */
enum worker_transfers {
	WORKER_TRANSFERS_CONTROL,
	WORKER_TRANSFERS_BULK,
	WORKER_TRANSFERS_INTERRUPT,
	WORKER_TRANSFERS_ISO,
	WORKER_TRANSFERS_COUNT_,
};
/* Bucket i counts what took less than 2^i µs, and no less than half of that; the last one, what
 * took longer than all others. */
#define WORKER_LATENCY_BUCKETS 24

struct worker_pong {
	struct worker_header header;
	uint64_t seq; /* of the PING */
	uint64_t transfers;
	uint64_t bytes_in;  /* device to guest */
	uint64_t bytes_out; /* guest to device */
	uint64_t refused;   /* transfers refused by a bound or by policy */
	uint64_t errors;    /* transfers that ended with an I/O error */
	uint32_t in_flight;
	uint32_t in_flight_bytes;
	uint32_t in_flight_peak;
	uint32_t state; /* enum worker_state */
	uint64_t by_type[WORKER_TRANSFERS_COUNT_];
	uint64_t stalls;
	/* From the device's getting a guest's bulk or control transfer to its completion. */
	uint64_t latency_usec; /* of all together */
	uint64_t latency[WORKER_LATENCY_BUCKETS];
};
static_assert(sizeof(struct worker_pong) == 312, "wire size");

struct worker_done {
	struct worker_header header;
	uint32_t reason; /* enum worker_done_reason */
	int32_t error;   /* errno, 0 if none */
	char detail[64]; /* NUL-terminated, printable ASCII; empty if none */
};
static_assert(sizeof(struct worker_done) == 80, "wire size");

struct worker_qmp {
	struct worker_header header;
	uint32_t status;   /* enum qmp_status */
	uint32_t vm_state; /* enum qmp_vm_state */
	char text[240];    /* NUL-terminated, printable ASCII: the VMM's words, or with OK what was
			    * done beside; empty if none */
};
static_assert(sizeof(struct worker_qmp) == 256, "wire size");

struct worker_detach {
	struct worker_header header;
};
static_assert(sizeof(struct worker_detach) == 8, "wire size");

struct worker_set_configuration {
	struct worker_header header;
	uint32_t value; /* bConfigurationValue, 0 to 255; 0: unconfigured */
	uint32_t pad;
};
static_assert(sizeof(struct worker_set_configuration) == 16, "wire size");

struct worker_claim {
	struct worker_header header;
	/* Interfaces (by number) whose host driver was taken off, or is bound again. */
	uint32_t interfaces;
	int32_t error; /* 0 or -errno of the first step that failed */
};
static_assert(sizeof(struct worker_claim) == 16, "wire size");

struct worker_configured {
	struct worker_header header;
	int32_t error; /* 0, or -errno: the configuration is what it was, or none */
	uint32_t pad;
};
static_assert(sizeof(struct worker_configured) == 16, "wire size");

struct worker_unplugged {
	struct worker_header header;
};
static_assert(sizeof(struct worker_unplugged) == 8, "wire size");

struct worker_keep {
	struct worker_header header;
	uint8_t cookie[WORKER_COOKIE_SIZE];
	uint64_t orphan_usec; /* how long it waits for the next broker */
};
static_assert(sizeof(struct worker_keep) == 32, "wire size");

struct worker_adopt {
	struct worker_header header;
	uint8_t cookie[WORKER_COOKIE_SIZE];
};
static_assert(sizeof(struct worker_adopt) == 24, "wire size");

struct worker_capture {
	struct worker_header header;
	uint32_t bus;    /* number of the device's, 0: it has none */
	uint32_t device; /* its number there, 0 to 127 */
	uint32_t headers_only;
	uint32_t pad;
};
static_assert(sizeof(struct worker_capture) == 24, "wire size");

struct worker_pace {
	struct worker_header header;
};
static_assert(sizeof(struct worker_pace) == 8, "wire size");

struct worker_held {
	struct worker_header header;
	uint32_t version;        /* WORKER_PROTOCOL_VERSION */
	uint32_t sandbox_stages; /* as in READY */
	uint32_t state;          /* enum worker_state */
	uint32_t pad;
	uint64_t connect_ns; /* as in STATE */
	uint8_t cookie[WORKER_COOKIE_SIZE];
};
static_assert(sizeof(struct worker_held) == 48, "wire size");

union worker_msg {
	struct worker_header header;
	struct worker_ready ready;
	struct worker_state_msg state;
	struct worker_ping ping;
	struct worker_pong pong;
	struct worker_done done;
	struct worker_qmp qmp;
	struct worker_detach detach;
	struct worker_set_configuration set_configuration;
	struct worker_claim claim;
	struct worker_configured configured;
	struct worker_unplugged unplugged;
	struct worker_keep keep;
	struct worker_adopt adopt;
	struct worker_held held;
	struct worker_capture capture;
	struct worker_pace pace;
};

enum worker_direction { WORKER_TO_BROKER, BROKER_TO_WORKER };

/* Checks size bytes of one received datagram and copies them into *out. -EBADMSG if anything is
 * wrong with it: length, type, direction, an enum out of range, non-zero padding, text that is not
 * NUL-terminated printable ASCII. */
int worker_msg_decode(enum worker_direction direction, const void *data, size_t size,
	union worker_msg *out) _must_check_;

/* Zeroes *msg, sets its type and size. Returns the size to send. */
size_t worker_msg_init(union worker_msg *msg, enum worker_msg_type type);

/* Copies text into a message's fixed field, cut and with non-printable bytes as '?'. */
void worker_msg_text(char *field, size_t field_size, const char *text);

const char *worker_state_name(uint32_t state);
const char *worker_done_name(uint32_t reason);
const char *qmp_status_name(uint32_t status);
