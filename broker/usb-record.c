/* SPDX-License-Identifier: MIT */
#include "broker/usb-record.h"

#include <errno.h>
#include <string.h>

#include "broker/record.h"

/* A key has no '/', but for a file name it should not begin with a dot either: "usb:…". */
static bool key_ok(const char *key)
{
	return strncmp(key, "usb:", 4) == 0 && !strchr(key, '/') && !strchr(key, '\n');
}

static bool record_ok(const char *name, const void *record)
{
	const struct usb_record *r = record;

	return strcmp(r->key, name) == 0 && key_ok(name);
}

static const struct record_field fields[] = {
	RECORD_TEXT_FIELD("key", usb_record, key),
	RECORD_U64_FIELD("instance", usb_record, instance),
	RECORD_U32_FIELD("interfaces", usb_record, host_drivers),
	{"configuration", RECORD_U32, offsetof(struct usb_record, configuration), UINT8_MAX},
};

static const struct record_kind kind = {
	.directory = "claims",
	.header = "devbroker-claim 1",
	.fields = fields,
	.n_fields = ARRAY_SIZE(fields),
	.size = sizeof(struct usb_record),
	.ok = record_ok,
};

int usb_record_write(const char *run_dir, const struct usb_record *record)
{
	return key_ok(record->key) ? record_write(run_dir, &kind, record->key, record) : -EINVAL;
}

void usb_record_remove(const char *run_dir, const char *key)
{
	record_remove(run_dir, &kind, key);
}

struct each {
	void (*found)(void *userdata, const struct usb_record *record);
	void *userdata;
};

static void on_record(void *userdata, const char *name, const void *record)
{
	const struct each *e = userdata;

	e->found(e->userdata, record);
}

int usb_record_each(const char *run_dir,
	void (*found)(void *userdata, const struct usb_record *record), void *userdata)
{
	struct each e = {.found = found, .userdata = userdata};

	return record_each(run_dir, &kind, on_record, &e);
}
