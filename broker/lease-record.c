/* SPDX-License-Identifier: MIT */
#include "broker/lease-record.h"

#include <string.h>

#define HEX "0123456789abcdef"

static bool hex_ok(const char *text, size_t n)
{
	return strlen(text) == n && strspn(text, HEX) == n;
}

static bool record_ok(const char *name, const void *record)
{
	const struct lease_record *r = record;

	return hex_ok(name, 16) && strcmp(r->id, name) == 0 && r->device[0] && r->vm[0] &&
	       (!r->cookie[0] || hex_ok(r->cookie, 32)) && r->worker <= INT32_MAX &&
	       r->vmm <= INT32_MAX;
}

static const struct record_field fields[] = {
	RECORD_TEXT_FIELD("id", lease_record, id),
	RECORD_TEXT_FIELD("device", lease_record, device),
	RECORD_TEXT_FIELD("vm", lease_record, vm),
	RECORD_TEXT_FIELD("state", lease_record, state),
	RECORD_TEXT_FIELD("reason", lease_record, reason),
	RECORD_TEXT_FIELD("detail", lease_record, detail),
	RECORD_BOOL_FIELD("retry", lease_record, retry),
	RECORD_U32_FIELD("tries", lease_record, tries),
	RECORD_BOOL_FIELD("plugged", lease_record, plugged),
	RECORD_U64_FIELD("vmm", lease_record, vmm),
	RECORD_TEXT_FIELD("qmp-id", lease_record, qmp_id),
	RECORD_U32_FIELD("way", lease_record, way),
	RECORD_U64_FIELD("worker", lease_record, worker),
	RECORD_TEXT_FIELD("cookie", lease_record, cookie),
	RECORD_U64_FIELD("bytes-in-flight", lease_record, bytes),
	RECORD_U64_FIELD("transfers-in-flight", lease_record, transfers),
	RECORD_U32_FIELD("vm-interfaces", lease_record, options.interfaces),
	RECORD_U64_FIELD("vm-bytes-in-flight", lease_record, options.bytes_in_flight),
	RECORD_U32_FIELD("vm-transfers-in-flight", lease_record, options.transfers_in_flight),
	RECORD_BOOL_FIELD("keep-drivers-off", lease_record, options.keep_drivers_off),
	RECORD_BOOL_FIELD("last-input", lease_record, options.last_input),
	RECORD_BOOL_FIELD("no-reset", lease_record, options.no_reset),
	RECORD_BOOL_FIELD("vm-read-only", lease_record, options.read_only),
	RECORD_BOOL_FIELD("allow-firmware", lease_record, options.allow_firmware),
	RECORD_BOOL_FIELD("by-policy", lease_record, options.by_policy),
	RECORD_U64_FIELD("asked-usec", lease_record, asked),
	RECORD_U64_FIELD("connect-usec", lease_record, connect),
	RECORD_U64_FIELD("connected-at-usec", lease_record, connected_at),
	RECORD_U64_FIELD("configure-usec", lease_record, configure),
	RECORD_U64_FIELD("configured-at-usec", lease_record, configured_at),
	RECORD_U64_FIELD("instance", lease_record, instance),
	RECORD_TEXT_FIELD("descriptors", lease_record, descriptors),
	RECORD_U32_FIELD("interfaces", lease_record, interfaces),
	RECORD_U64_FIELD("image-dev", lease_record, image_dev),
	RECORD_U64_FIELD("image-ino", lease_record, image_ino),
	RECORD_U64_FIELD("image-rdev", lease_record, image_rdev),
	RECORD_TEXT_FIELD("serial", lease_record, serial),
	RECORD_TEXT_FIELD("speed", lease_record, speed),
	RECORD_BOOL_FIELD("read-only", lease_record, read_only),
	RECORD_BOOL_FIELD("cdrom", lease_record, cdrom),
	RECORD_TEXT_FIELD("path", lease_record, path),
	RECORD_BOOL_FIELD("nbd", lease_record, nbd),
	RECORD_TEXT_FIELD("export", lease_record, export),
};

const struct record_kind lease_record_kind = {
	.directory = "workers",
	.header = "devbroker-lease 1",
	.fields = fields,
	.n_fields = ARRAY_SIZE(fields),
	.size = sizeof(struct lease_record),
	.ok = record_ok,
};
