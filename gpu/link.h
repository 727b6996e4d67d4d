/* SPDX-License-Identifier: MIT
 * Messages between front and renderer: fixed size, one per SOCK_SEQPACKET datagram, some with fds.
 *
 * The front distrusts what comes from the renderer: link_decode checks size, type, direction, the
 * number of fds and the ranges of all numbers that index something. Host byte order: both ends are
 * one program; the version in READY and in SETUP is compared anyway. Damage and cursors go through
 * shared memory instead (gpu/journal.h), and the bell, an eventfd, wakes the front for them. The
 * front reads the link before it takes damage: a scanout is told before its damage.
 *
 *   renderer: READY                       front: SETUP, MEMORY with its REGIONs, START of each ring
 *   renderer: DONE for SETUP and for each MEMORY, when all of its regions came
 *   renderer: MODES_WANTED                front: MODES, as new as can be had
 *   front: STOP                           renderer: STOPPED, with the ring's position
 *   front: READ_BACK                      renderer: READ_DONE
 *
 * A scanout is shown from an image in shared memory, or, where display and renderer can, from a
 * DMABUF that holds the same picture: the image is as old as its last READ_BACK then.
 *
 * A new renderer, on a link of its own, is sent the same again, the STOP and the RESET that were
 * not answered too. SETUP says that it goes on where another was killed, and a START with the run
 * that the journal has, on which ring. Between STOP and STOPPED the front may send anything, but
 * START for that ring.
 */
#pragma once

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

#define LINK_VERSION     4
#define LINK_QUEUES      2 /* control, cursor */
#define LINK_REGIONS_MAX 32
#define LINK_SCANOUTS    16
#define LINK_FDS_MAX     3
#define LINK_NAME_SIZE   128 /* of what draws in 3D, with its end */

enum link_type {
	/* front to renderer */
	LINK_SETUP = 1,  /* fds: journal, bell. Comes once, before anything else */
	LINK_MEMORY = 2, /* a new memory table; it holds when the last region came */
	LINK_REGION = 3, /* fd: its file */
	LINK_START = 4,  /* fds: those that it says it has, in the order kick, call, err */
	LINK_CALL = 5,   /* fd or none: where the guest is notified from now on */
	LINK_ERR = 6,    /* fd or none: where a broken ring is told from now on */
	LINK_ENABLE = 7,
	LINK_STOP = 8,
	LINK_MODES = 9,
	LINK_RESET = 10, /* the device is reset: no resource, scanout or cursor is left */
	LINK_PING = 11,
	LINK_ALLOW = 12,     /* 3D is allowed again, or (0) not any more */
	LINK_DMABUFS = 13,   /* what scanouts may be shown from, from now on */
	LINK_READ_BACK = 14, /* the image of a scanout is to be as new as its DMABUF */
	/* renderer to front */
	LINK_READY = 32, /* first message: the sandbox is closed */
	LINK_DONE = 33,
	LINK_STOPPED = 34,
	LINK_BROKEN = 35,       /* a ring is broken until its next START; the guest hears by err */
	LINK_MODES_WANTED = 36, /* the guest asks: everything that was told before is too old */
	LINK_SCANOUT = 37,      /* fds: those that it says it has, in the order image, DMABUF */
	LINK_IMAGE_GONE = 38,   /* the front may forget an image */
	LINK_PONG = 39,
	LINK_READ_DONE = 40,
};

/* Which DMABUFs the display takes. */
enum link_dmabufs {
	LINK_DMABUFS_NONE,
	LINK_DMABUFS_PLAIN, /* those whose modifier need not be told */
	LINK_DMABUFS_ALL,
};

struct link_header {
	uint32_t type; /* enum link_type */
	uint32_t size; /* of the whole message */
};
static_assert(sizeof(struct link_header) == 8, "wire size");

#define LINK_SETUP_RECOVER (1U << 0) /* the journal has what an earlier renderer left */
#define LINK_SETUP_NO_3D   (1U << 1) /* every command of 3D is refused, but for ends */

struct link_setup {
	struct link_header header;
	uint32_t version;     /* LINK_VERSION */
	uint32_t n_scanouts;  /* 1 to LINK_SCANOUTS */
	uint32_t flags;       /* LINK_SETUP_* */
	uint32_t dmabufs;     /* enum link_dmabufs */
	uint8_t uuid_seed[8]; /* random, the same for each renderer of this VM */
};
static_assert(sizeof(struct link_setup) == 32, "wire size");

struct link_memory {
	struct link_header header;
	uint64_t generation;
	uint32_t n_regions; /* up to LINK_REGIONS_MAX; 0: no memory at all */
	uint32_t pad;
};
static_assert(sizeof(struct link_memory) == 24, "wire size");

struct link_region {
	struct link_header header;
	uint64_t guest;  /* physical address */
	uint64_t user;   /* address in the VMM */
	uint64_t size;   /* bytes */
	uint64_t offset; /* into the file */
};
static_assert(sizeof(struct link_region) == 40, "wire size");

#define LINK_HAS_KICK (1U << 0)
#define LINK_HAS_CALL (1U << 1)
#define LINK_HAS_ERR  (1U << 2)

struct link_start {
	struct link_header header;
	uint32_t queue;
	uint32_t size;     /* descriptors */
	uint64_t features; /* virtio's, as negotiated */
	uint64_t desc;     /* these three in the VMM's addresses */
	uint64_t avail;
	uint64_t used;
	/* Which start of this ring by the VMM it is: not 0, never the same twice, but the same for
	 * a renderer that goes on with it. */
	uint64_t run;
	uint32_t next_avail; /* SET_VRING_BASE; not looked at when the journal has this run */
	uint32_t fds;        /* LINK_HAS_* */
	uint32_t enabled;    /* 0 or 1 */
	uint32_t pad;
};
static_assert(sizeof(struct link_start) == 72, "wire size");

struct link_queue {
	struct link_header header;
	uint32_t queue;
	uint32_t pad;
};
static_assert(sizeof(struct link_queue) == 16, "wire size");

struct link_enable {
	struct link_header header;
	uint32_t queue;
	uint32_t enabled; /* 0 or 1 */
};
static_assert(sizeof(struct link_enable) == 16, "wire size");

struct link_allow {
	struct link_header header;
	uint32_t allowed; /* 0 or 1 */
	uint32_t pad;
};
static_assert(sizeof(struct link_allow) == 16, "wire size");

struct link_dmabufs_taken {
	struct link_header header;
	uint32_t which; /* enum link_dmabufs */
	uint32_t pad;
};
static_assert(sizeof(struct link_dmabufs_taken) == 16, "wire size");

struct link_read_back {
	struct link_header header;
	uint32_t scanout;
	/* READ_DONE: which one was read, as in SCANOUT; 0: this renderer shows nothing there. */
	uint32_t image;
	uint64_t seq; /* READ_DONE: of the last READ_BACK of this scanout */
};
static_assert(sizeof(struct link_read_back) == 24, "wire size");

struct link_mode {
	uint32_t x, y, width, height; /* no width or no height: off */
};
static_assert(sizeof(struct link_mode) == 16, "wire size");

struct link_modes {
	struct link_header header;
	struct link_mode modes[LINK_SCANOUTS];
};
static_assert(sizeof(struct link_modes) == 8 + 16 * LINK_SCANOUTS, "wire size");

struct link_plain { /* RESET, MODES_WANTED */
	struct link_header header;
};
static_assert(sizeof(struct link_plain) == 8, "wire size");

struct link_ping {
	struct link_header header;
	uint64_t seq;
};
static_assert(sizeof(struct link_ping) == 16, "wire size");

struct link_ready {
	struct link_header header;
	uint32_t version;              /* LINK_VERSION */
	uint32_t sandbox_stages;       /* bits of enum sandbox_stage that are closed */
	char renderer[LINK_NAME_SIZE]; /* GL_RENDERER, printable ASCII; "": 2D only */
};
static_assert(sizeof(struct link_ready) == 144, "wire size");

struct link_done {
	struct link_header header;
	uint32_t type;       /* LINK_SETUP, LINK_MEMORY or LINK_RESET */
	int32_t error;       /* 0 or -errno: it can't be used, and nothing of it is */
	uint64_t generation; /* of the MEMORY, else 0 */
};
static_assert(sizeof(struct link_done) == 24, "wire size");

struct link_stopped {
	struct link_header header;
	uint32_t queue;
	uint32_t next_avail; /* for GET_VRING_BASE; up to 65535 */
};
static_assert(sizeof(struct link_stopped) == 16, "wire size");

struct link_broken {
	struct link_header header;
	uint32_t queue;
	uint32_t pad;
	char reason[64]; /* NUL-terminated, printable ASCII */
};
static_assert(sizeof(struct link_broken) == 80, "wire size");

#define LINK_HAS_IMAGE  (1U << 0) /* the front has not had it yet; the same of the next one */
#define LINK_HAS_DMABUF (1U << 1)

struct link_scanout {
	struct link_header header;
	uint32_t scanout;
	/* A number that stands for one image for good, as long as this renderer lives; 0: the
	 * scanout is off. */
	uint32_t image;
	uint32_t width, height; /* of the image: rows of width pixels of 4 bytes, B8G8R8X8 */
	uint32_t x, y, scanout_width, scanout_height; /* what is shown of it; within it */
	uint32_t damaged; /* 1: all of it, because damage of it may have been told before this */
	uint32_t fds;     /* LINK_HAS_* */
	uint32_t from_dmabuf; /* 1: the image has a DMABUF, which is shown */
	uint32_t fourcc; /* this and the rest: of the DMABUF, where its fd comes; gpu/dmabuf.h */
	uint32_t stride;
	uint32_t flags;
	uint64_t modifier;
};
static_assert(sizeof(struct link_scanout) == 72, "wire size");

struct link_image_gone {
	struct link_header header;
	uint32_t image; /* 0: all that no scanout shows now */
	uint32_t pad;
};
static_assert(sizeof(struct link_image_gone) == 16, "wire size");

struct link_pong {
	struct link_header header;
	uint64_t seq;      /* of the PING */
	uint64_t commands; /* of the control queue, executed */
	uint64_t cursor_commands;
	uint64_t errors;    /* answered with an error */
	uint64_t bytes;     /* charged now */
	uint64_t uncharged; /* taken beyond that */
	uint64_t bytes_max;
	uint32_t resources;
	uint32_t busy;     /* 1: there is more in the rings; 0: not when the PING came */
	uint64_t cpu_ns;   /* of all its threads: what drawing in software costs, too */
	uint64_t refused;  /* over the budget, ever */
	uint64_t poisoned; /* contexts, ever */
	uint32_t contexts;
	uint32_t fences; /* requests that wait for them */
};
static_assert(sizeof(struct link_pong) == 104, "wire size");

union link_msg {
	struct link_header header;
	struct link_setup setup;
	struct link_memory memory;
	struct link_region region;
	struct link_start start;
	struct link_queue queue; /* CALL, ERR, STOP */
	struct link_enable enable;
	struct link_allow allow;
	struct link_dmabufs_taken dmabufs;
	struct link_read_back read_back; /* READ_BACK, READ_DONE */
	struct link_modes modes;
	struct link_plain plain;
	struct link_ping ping;
	struct link_ready ready;
	struct link_done done;
	struct link_stopped stopped;
	struct link_broken broken;
	struct link_scanout scanout;
	struct link_image_gone image_gone;
	struct link_pong pong;
};

enum link_direction { LINK_TO_RENDERER, LINK_TO_FRONT };

/* Checks one received datagram and copies it into *out. -EBADMSG if anything is wrong with it:
 * length, type, direction, number of fds, a queue or scanout that there is none of, non-zero
 * padding, text that is not NUL-terminated printable ASCII. Does nothing with the fds. */
int link_decode(enum link_direction direction, const void *data, size_t size, size_t n_fds,
	union link_msg *out) _must_check_;

/* Zeroes *msg, sets its type and size. Returns the size to send. */
size_t link_init(union link_msg *msg, enum link_type type);

/* Sends a message of link_init, without blocking. 0, -EAGAIN (not sent), or -errno. */
int link_send(int sock, const union link_msg *msg, const int *fds, size_t n_fds) _must_check_;

/* Receives and decodes one message; its fds are the caller's then, the rest of fds is -1. 1, 0 (the
 * other side is gone), -EAGAIN, or -errno with every fd closed. */
int link_receive(int sock, enum link_direction direction, union link_msg *out,
	int fds[static LINK_FDS_MAX]) _must_check_;
