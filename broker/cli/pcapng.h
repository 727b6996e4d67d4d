/* SPDX-License-Identifier: MIT
 * A capture written as pcapng (draft-ietf-opsawg-pcapng), as Wireshark reads USB traffic.
 */
#pragma once

#include <stdint.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "protocol/capture.h"

struct pcapng {
	FILE *file; /* borrowed */
	uint64_t begun_ns;
	uint64_t last_ns;
	uint64_t packets;
	uint64_t dropped;
	uint64_t told; /* of them, with the packets that came after */
};

/* Section and interface (a device's name); f is borrowed. 0 or -errno. */
int pcapng_begin(struct pcapng *out, FILE *f, const char *name) _must_check_;
/* What a record holds: a packet, or that some were lost. 0 or -errno. */
int pcapng_add(
	struct pcapng *p, const struct capture_record *r, const uint8_t *packet) _must_check_;
/* The statistics. 0 or -errno. */
int pcapng_end(struct pcapng *p) _must_check_;
