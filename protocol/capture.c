/* SPDX-License-Identifier: MIT */
#include "protocol/capture.h"

#include <errno.h>
#include <string.h>

int capture_record_decode(const void *data, size_t n, struct capture_record *out)
{
	struct capture_record r;
	uint32_t packet;

	if (n < sizeof(r)) {
		return -EAGAIN;
	}
	memcpy(&r, data, sizeof(r));
	if (r.size < sizeof(r)) {
		return -EBADMSG;
	}
	packet = r.size - (uint32_t)sizeof(r);
	if (packet > CAPTURE_PACKET_MAX || packet > r.original ||
		(packet < sizeof(struct capture_usb) && (packet > 0 || r.original > 0))) {
		return -EBADMSG;
	}
	if (n < r.size) {
		return -EAGAIN;
	}
	*out = r;
	return 0;
}
