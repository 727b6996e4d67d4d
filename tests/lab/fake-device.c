/* SPDX-License-Identifier: MIT
 *
 * USB devices in a process, for the lab's host: the kernel's vhci_hcd takes a socket and speaks
 * USB/IP over it (Documentation/usb/usbip_protocol.rst), so that every byte of every descriptor and
 * the moment of every answer are decided here. FunctionFS can't do that: the composite framework
 * makes the configuration's descriptor, has at most 16 interfaces, and no isochronous in dummy_hcd.
 *
 *   fake-device KIND SERIAL
 *
 * The kinds stand in fake-kinds.c. The device goes when the process ends. SIGUSR1 turns it into
 * another one, which the kernel finds out at the next reset.
 */
#include "tests/lab/fake-device.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"

#define VHCI        "/sys/devices/platform/vhci_hcd.0/"
#define PENDING_MAX 256
#define BUFFER_MAX  (1 << 20)
#define NS_PER_MS   1000000

enum usbip_command {
	CMD_SUBMIT = 1,
	CMD_UNLINK = 2,
	RET_SUBMIT = 3,
	RET_UNLINK = 4,
};

/* All big endian. */
struct usbip_header {
	uint32_t command;
	uint32_t seqnum;
	uint32_t devid;
	uint32_t direction; /* 1: IN */
	uint32_t ep;
	union {
		struct {
			uint32_t flags;
			int32_t length;
			int32_t start_frame;
			int32_t packets;
			int32_t interval;
			uint8_t setup[8];
		} submit;
		struct {
			int32_t status;
			int32_t length;
			int32_t start_frame;
			int32_t packets;
			int32_t errors;
			uint8_t padding[8];
		} done;
		uint32_t unlink_seqnum;
		int32_t unlink_status;
	};
};
static_assert(sizeof(struct usbip_header) == 48, "usbip_protocol.rst");

struct usbip_iso {
	uint32_t offset;
	uint32_t length;
	uint32_t actual;
	int32_t status;
};

/* An isochronous IN transfer whose time has not come yet. */
struct pending {
	uint32_t seqnum; /* 0: unused */
	int packets;
	int interval;
	int64_t due_ns;
	struct usbip_iso iso[FAKE_ISO_MAX];
};

static int vhci = -1;
static struct fake_device device;
static uint32_t iso_position;
static int64_t iso_time;
static struct pending pending[PENDING_MAX];
static volatile sig_atomic_t turned;

static void on_turn(int number)
{
	turned = 1;
}

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "fake-device: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 * NS_PER_MS + ts.tv_nsec;
}

/* The end of the connection is the end of the device: nothing to say about it. */
static void read_all(void *data, size_t size)
{
	for (size_t at = 0; at < size;) {
		ssize_t n = read(vhci, (char *)data + at, size - at);

		if (n == 0 || (n < 0 && errno != EINTR)) {
			exit(0);
		}
		at += n > 0 ? (size_t)n : 0;
	}
}

static void write_all(const void *data, size_t size)
{
	for (size_t at = 0; at < size;) {
		ssize_t n = send(vhci, (const char *)data + at, size - at, MSG_NOSIGNAL);

		if (n < 0 && errno != EINTR) {
			exit(0);
		}
		at += n > 0 ? (size_t)n : 0;
	}
}

static void answer(uint32_t seqnum, int status, int length, const void *data, size_t data_size)
{
	struct usbip_header h = {
		.command = htobe32(RET_SUBMIT),
		.seqnum = htobe32(seqnum),
		.done = {.status = (int32_t)htobe32((uint32_t)status),
			.length = (int32_t)htobe32((uint32_t)length)},
	};

	write_all(&h, sizeof(h));
	write_all(data, data_size);
}

static void handle_control(uint32_t seqnum, const uint8_t *setup, bool in, int length)
{
	uint8_t data[4096];
	size_t size = 0;
	int status;

	if (turned) {
		device.turned = true;
	}
	status = fake_control(&device, setup, data, sizeof(data), &size);
	if (size > (size_t)length) {
		size = (size_t)length;
	}
	if (status == FAKE_NEVER) {
		return;
	}
	answer(seqnum, status, in ? (int)size : length, data, in && status == 0 ? size : 0);
}

/* Answers one isochronous IN transfer: each packet carries what goes on from the one before. */
static void answer_iso(struct pending *p)
{
	struct usbip_header h = {
		.command = htobe32(RET_SUBMIT),
		.seqnum = htobe32(p->seqnum),
	};
	uint8_t data[FAKE_ISO_MAX * FAKE_ISO_SIZE];
	size_t size = 0;

	for (int i = 0; i < p->packets; i++) {
		uint32_t n = be32toh(p->iso[i].length);

		n = n < FAKE_ISO_SIZE ? n : FAKE_ISO_SIZE;
		for (uint32_t k = 0; k + 1 < n; k += 2, iso_position++) {
			uint16_t sample = fake_sample(iso_position);

			memcpy(data + size + k, &sample, sizeof(sample));
		}
		size += n;
		p->iso[i].actual = htobe32(n);
		p->iso[i].status = 0;
	}
	h.done.length = (int32_t)htobe32((uint32_t)size);
	h.done.packets = (int32_t)htobe32((uint32_t)p->packets);
	write_all(&h, sizeof(h));
	write_all(data, size);
	write_all(p->iso, (size_t)p->packets * sizeof(p->iso[0]));
	p->seqnum = 0;
}

static void take_iso(const struct usbip_header *h, int packets, bool in)
{
	int64_t now = now_ns();
	struct pending *p = NULL;

	for (size_t i = 0; i < PENDING_MAX && !p; i++) {
		p = pending[i].seqnum == 0 ? &pending[i] : NULL;
	}
	if (!p || packets > FAKE_ISO_MAX || !in) {
		fprintf(stderr, "fake-device: an isochronous transfer that was not expected\n");
		exit(1);
	}
	p->seqnum = be32toh(h->seqnum);
	p->packets = packets;
	read_all(p->iso, (size_t)packets * sizeof(p->iso[0]));
	/* One packet a millisecond, one transfer after the other. */
	iso_time = (iso_time > now ? iso_time : now) + (int64_t)packets * NS_PER_MS;
	p->due_ns = iso_time;
}

static void handle_submit(const struct usbip_header *h)
{
	static uint8_t buffer[BUFFER_MAX];
	bool in = be32toh(h->direction) == 1;
	int length = (int)be32toh((uint32_t)h->submit.length);
	int packets = (int)be32toh((uint32_t)h->submit.packets);
	uint8_t ep = (uint8_t)(be32toh(h->ep) | (in ? 0x80u : 0));
	int status;

	if (length < 0 || length > BUFFER_MAX) {
		die("a transfer is too long");
	}
	if (!in) {
		read_all(buffer, (size_t)length);
	}
	if ((ep & 0x0f) == 0) {
		handle_control(be32toh(h->seqnum), h->submit.setup, in, length);
		return;
	}
	if (packets > 0) {
		take_iso(h, packets, in);
		return;
	}
	status = fake_data(&device, ep, buffer, &length);
	if (status != FAKE_NEVER) {
		answer(be32toh(h->seqnum), status, length, buffer,
			in && status == 0 ? (size_t)length : 0);
	}
}

static void handle_unlink(const struct usbip_header *h)
{
	struct usbip_header r = {
		.command = htobe32(RET_UNLINK),
		.seqnum = h->seqnum,
		.unlink_status = (int32_t)htobe32((uint32_t)-ECONNRESET),
	};

	for (size_t i = 0; i < PENDING_MAX; i++) {
		if (pending[i].seqnum == be32toh(h->unlink_seqnum)) {
			pending[i].seqnum = 0;
		}
	}
	if (device.kind->cancels) {
		write_all(&r, sizeof(r));
	}
}

static void handle_message(void)
{
	struct usbip_header h;

	read_all(&h, sizeof(h));
	if (be32toh(h.command) == CMD_SUBMIT) {
		handle_submit(&h);
	} else if (be32toh(h.command) == CMD_UNLINK) {
		handle_unlink(&h);
	} else {
		die("an unknown message");
	}
}

/* Answers what is due; the milliseconds until the next, -1 if there is none. */
static int run_pending(void)
{
	int64_t now = now_ns(), next = INT64_MAX;

	for (;;) {
		struct pending *first = NULL;

		for (size_t i = 0; i < PENDING_MAX; i++) {
			if (pending[i].seqnum && (!first || pending[i].due_ns < first->due_ns)) {
				first = &pending[i];
			}
		}
		next = first ? first->due_ns : INT64_MAX;
		if (next > now) {
			break;
		}
		answer_iso(first);
	}
	return next == INT64_MAX ? -1 : (int)((next - now) / NS_PER_MS) + 1;
}

/* A free port of the hub of that speed; lines are "hs|ss PORT STATUS SPEED DEVID ...", 4 is free.
 */
static unsigned int free_port(const char *hub)
{
	_cleanup_free_ char *line = NULL;
	FILE *f = fopen(VHCI "status", "re");
	unsigned int port = 0, status = 0;
	size_t size = 0;
	char name[4];

	if (!f) {
		die(VHCI "status");
	}
	while (getline(&line, &size, f) > 0) {
		if (sscanf(line, "%3s %u %u", name, &port, &status) == 3 &&
			strcmp(name, hub) == 0 && status == 4) {
			fclose(f);
			return port;
		}
	}
	fclose(f);
	errno = EBUSY;
	die("no free port");
}

static void plug(void)
{
	int pair[2], attach = open(VHCI "attach", O_WRONLY | O_CLOEXEC);
	const char *hub = device.kind->speed == FAKE_SPEED_SUPER ? "ss" : "hs";
	char text[64];

	if (attach < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
		die(VHCI "attach");
	}
	snprintf(text, sizeof(text), "%u %d 1 %u", free_port(hub), pair[1],
		(unsigned int)device.kind->speed);
	if (write(attach, text, strlen(text)) < 0) {
		die("attach");
	}
	close(attach);
	close(pair[1]);
	vhci = pair[0];
}

int main(int argc, char **argv)
{
	struct sigaction turn = {.sa_handler = on_turn};

	if (argc != 3 || !(device.kind = fake_kind_find(argv[1]))) {
		fprintf(stderr, "usage: fake-device KIND SERIAL\n");
		return 2;
	}
	device.serial = argv[2];
	sigaction(SIGUSR1, &turn, NULL);
	plug();
	for (;;) {
		struct pollfd p = {.fd = vhci, .events = POLLIN};

		if (poll(&p, 1, run_pending()) > 0) {
			handle_message();
		}
	}
}
