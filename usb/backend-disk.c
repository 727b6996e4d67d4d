/* SPDX-License-Identifier: MIT */
#include "usb/backend-disk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/fd.h"
#include "base/log.h"
#include "usb/bot.h"
#include "usb/bytes.h"
#include "usb/disk-descriptors.h"
#include "usb/disk-io.h"
#include "usb/mmc.h"
#include "usb/scsi.h"

#define DEFAULT_PRODUCT "devbroker stick"
#define DEFAULT_CDROM   "devbroker CD-ROM"

struct disk {
	struct backend backend;
	enum usb_speed speed;
	uint8_t configuration; /* 0 or 1 */
	bool u1, u2;
	char serial[DISK_SERIAL_MAX + 1];
	char product[64];
	const char *inquiry; /* the product, or NULL: the unit's default */
	bool cdrom;
	struct disk_strings strings;
	struct scsi_unit unit;
	struct bot bot;
	struct disk_io *io;
	struct disk_io_request quiesce;
	bool quiescing;
	uint8_t descriptor[USB_CONFIG_DESCRIPTOR_MAX];
};

static struct disk *disk_of(struct backend *b)
{
	return (struct disk *)(void *)b;
}

static void complete(void *userdata, struct transfer *t)
{
	struct disk *d = userdata;

	d->backend.sink->completed(d->backend.sink_data, t);
}

static void ejected(void *userdata)
{
	struct disk *d = userdata;

	d->backend.sink->ejected(d->backend.sink_data);
}

/*
 * Requests on endpoint 0. Each handler returns how many bytes it put into d->descriptor for the
 * host, or -1 to stall. bmRequestType and bRequest choose it by the table below.
 */
enum { FEATURE_HALT = 0, FEATURE_REMOTE_WAKEUP = 1, FEATURE_U1 = 48, FEATURE_U2 = 49 };

static int handle_get_descriptor(struct disk *d, const struct usb_setup *s)
{
	size_t n = disk_descriptor(
		d->speed, &d->strings, (uint8_t)(s->value >> 8), (uint8_t)s->value, d->descriptor);

	return n > 0 ? (int)n : -1;
}

static int handle_device_status(struct disk *d, const struct usb_setup *s)
{
	/* Bus-powered, no remote wakeup; U1 and U2 as the host set them. */
	put_le16(d->descriptor, (uint16_t)(d->u1 << 2 | d->u2 << 3));
	return 2;
}

static int handle_interface_status(struct disk *d, const struct usb_setup *s)
{
	if (!d->configuration || s->index != 0) {
		return -1;
	}
	put_le16(d->descriptor, 0);
	return 2;
}

/* True, with the bulk endpoint's direction, if index addresses one that exists now. */
static bool bulk_endpoint(const struct disk *d, uint16_t index, bool *in_out)
{
	if (!d->configuration || (index != DISK_BULK_IN && index != DISK_BULK_OUT)) {
		return false;
	}
	*in_out = index == DISK_BULK_IN;
	return true;
}

static int handle_endpoint_status(struct disk *d, const struct usb_setup *s)
{
	bool in, halted = false;

	if (bulk_endpoint(d, s->index, &in)) {
		halted = bot_halted(&d->bot, in);
	} else if ((s->index & 0x7f) != 0) {
		return -1;
	}
	put_le16(d->descriptor, halted);
	return 2;
}

static int handle_device_feature(struct disk *d, const struct usb_setup *s)
{
	bool set = s->request == 3;

	if (d->speed == USB_SPEED_SUPER && d->configuration && s->value == FEATURE_U1) {
		d->u1 = set;
		return 0;
	}
	if (d->speed == USB_SPEED_SUPER && d->configuration && s->value == FEATURE_U2) {
		d->u2 = set;
		return 0;
	}
	/* The stick wakes nobody; what is off may be switched off. */
	return s->value == FEATURE_REMOTE_WAKEUP && !set ? 0 : -1;
}

/* FUNCTION_SUSPEND, at SuperSpeed only; there is nothing to suspend. */
static int handle_interface_feature(struct disk *d, const struct usb_setup *s)
{
	return d->speed == USB_SPEED_SUPER && s->value == 0 && (s->index & 0xff) == 0 ? 0 : -1;
}

static int handle_endpoint_feature(struct disk *d, const struct usb_setup *s)
{
	bool in;

	if (s->value != FEATURE_HALT) {
		return -1;
	}
	if (bulk_endpoint(d, s->index, &in)) {
		bot_set_halt(&d->bot, in, s->request == 3);
		return 0;
	}
	return (s->index & 0x7f) == 0 ? 0 : -1;
}

static int handle_get_configuration(struct disk *d, const struct usb_setup *s)
{
	d->descriptor[0] = d->configuration;
	return 1;
}

static int handle_get_interface(struct disk *d, const struct usb_setup *s)
{
	if (!d->configuration || s->index != 0) {
		return -1;
	}
	d->descriptor[0] = 0;
	return 1;
}

/* SET_SEL and SET_ISOCH_DELAY tell about the host's links; a virtual one has no latency. */
static int handle_super_only(struct disk *d, const struct usb_setup *s)
{
	return d->speed == USB_SPEED_SUPER ? 0 : -1;
}

static int handle_max_lun(struct disk *d, const struct usb_setup *s)
{
	if (!d->configuration || s->value != 0 || s->index != 0 || s->length != 1) {
		return -1;
	}
	d->descriptor[0] = 0;
	return 1;
}

static int handle_storage_reset(struct disk *d, const struct usb_setup *s)
{
	if (!d->configuration || s->value != 0 || s->index != 0 || s->length != 0) {
		return -1;
	}
	bot_reset_recovery(&d->bot);
	return 0;
}

static const struct {
	uint8_t type;
	uint8_t request;
	int (*handle)(struct disk *d, const struct usb_setup *s);
} requests[] = {
	{0x80, 6, handle_get_descriptor},
	{0x80, 0, handle_device_status},
	{0x81, 0, handle_interface_status},
	{0x82, 0, handle_endpoint_status},
	{0x00, 1, handle_device_feature},
	{0x00, 3, handle_device_feature},
	{0x01, 1, handle_interface_feature},
	{0x01, 3, handle_interface_feature},
	{0x02, 1, handle_endpoint_feature},
	{0x02, 3, handle_endpoint_feature},
	{0x80, 8, handle_get_configuration},
	{0x81, 10, handle_get_interface},
	{0x00, 0x30, handle_super_only},
	{0x00, 0x31, handle_super_only},
	{0xa1, 0xfe, handle_max_lun},
	{0x21, 0xff, handle_storage_reset},
};

static void submit_control(struct disk *d, struct transfer *t)
{
	const struct usb_setup *s = &t->setup;
	int n = -1;

	for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
		if (requests[i].type == s->request_type && requests[i].request == s->request) {
			n = requests[i].handle(d, s);
			break;
		}
	}
	t->status = n < 0 ? TRANSFER_STALL : TRANSFER_OK;
	t->actual = 0;
	if (n >= 0 && (s->request_type & 0x80)) {
		t->actual = MIN((uint32_t)n, t->length);
		t->actual = MIN(t->actual, (uint32_t)s->length);
		if (t->actual > 0) {
			memcpy(t->data, d->descriptor, t->actual);
		}
	} else if (n >= 0) {
		t->actual = t->length;
	}
	complete(d, t);
}

static void disk_submit(struct backend *b, struct transfer *t)
{
	struct disk *d = disk_of(b);
	bool in;

	list_init(&t->backend);
	if (t->type == TRANSFER_CONTROL) {
		submit_control(d, t);
	} else if (t->type == TRANSFER_BULK && bulk_endpoint(d, t->endpoint, &in)) {
		bot_submit(&d->bot, t);
	} else {
		t->status = TRANSFER_INVALID;
		t->actual = 0;
		complete(d, t);
	}
}

static void disk_cancel(struct backend *b, struct transfer *t)
{
	bot_cancel(&disk_of(b)->bot, t);
}

static int disk_describe(struct backend *b, struct usb_description *out)
{
	struct disk *d = disk_of(b);

	out->speed = d->speed;
	disk_device_descriptor(d->speed, out->device);
	out->config_size = d->configuration ? disk_config_descriptor(d->speed, out->config) : 0;
	return 0;
}

static void answer(struct disk *d, enum transfer_status status)
{
	d->backend.sink->request_done(d->backend.sink_data, status);
}

static void disk_set_configuration(struct backend *b, uint8_t value)
{
	struct disk *d = disk_of(b);

	if (value > 1) {
		answer(d, TRANSFER_STALL);
		return;
	}
	d->configuration = value;
	bot_reset(&d->bot);
	answer(d, TRANSFER_OK);
}

static void disk_set_interface(struct backend *b, uint8_t interface, uint8_t alt)
{
	struct disk *d = disk_of(b);

	if (!d->configuration || interface != 0 || alt != 0) {
		answer(d, TRANSFER_STALL);
		return;
	}
	bot_reset(&d->bot);
	answer(d, TRANSFER_OK);
}

/* The configuration stays, as it does for a device that the host's kernel resets. */
static void disk_reset(struct backend *b)
{
	struct disk *d = disk_of(b);

	d->u1 = false;
	d->u2 = false;
	bot_reset(&d->bot);
	answer(d, TRANSFER_OK);
}

static void quiesce_done(struct disk_io_request *r, int error)
{
	struct disk *d = r->userdata;

	d->quiescing = false;
	d->backend.sink->quiesced(d->backend.sink_data, error);
}

static void disk_quiesce(struct backend *b)
{
	struct disk *d = disk_of(b);

	if (d->quiescing) { /* one answer for all who ask meanwhile */
		return;
	}
	d->quiescing = true;
	disk_io_abort_verify(d->io);
	d->quiesce = (struct disk_io_request){
		.op = DISK_IO_FLUSH,
		.done = quiesce_done,
		.userdata = d,
	};
	disk_io_submit(d->io, &d->quiesce);
}

static void disk_destroy(struct backend *b)
{
	struct disk *d = disk_of(b);

	disk_io_destroy(d->io);
	free(d);
}

static const struct backend_ops disk_ops = {
	.name = "disk",
	.slow = true,
	.describe = disk_describe,
	.submit = disk_submit,
	.cancel = disk_cancel,
	.set_configuration = disk_set_configuration,
	.set_interface = disk_set_interface,
	.reset = disk_reset,
	.quiesce = disk_quiesce,
	.destroy = disk_destroy,
};

int backend_disk_open(struct backend *b, char *why, size_t why_size)
{
	struct disk *d = disk_of(b);
	const uint32_t block = d->cdrom ? MMC_BLOCK_SIZE : SCSI_BLOCK_SIZE;
	struct disk_io_medium medium;
	int e = disk_io_open(d->io, block, &medium, why, why_size);

	if (e < 0) {
		return e;
	}
	if (d->cdrom) {
		scsi_unit_init_cdrom(&d->unit, medium.size / block, d->inquiry, d->serial);
	} else {
		scsi_unit_init(&d->unit, medium.size / block, !medium.writable,
			disk_io_can_discard(d->io), d->inquiry, d->serial);
	}
	return 0;
}

/* The strings reach the guest as UTF-16 and in INQUIRY: printable ASCII only. */
static void copy_string(char *out, size_t size, const char *text)
{
	size_t i = 0;

	for (; i < size - 1 && text[i]; i++) {
		out[i] = text[i] >= 0x20 && text[i] < 0x7f ? text[i] : '_';
	}
	out[i] = '\0';
}

int backend_disk_create(const struct backend_disk_options *o, struct backend **out)
{
	struct disk *d = NULL;
	int e = -EINVAL;

	if (o->speed == USB_SPEED_HIGH || o->speed == USB_SPEED_SUPER) {
		d = calloc(1, sizeof(*d));
		e = d ? 0 : -ENOMEM;
	}
	if (e < 0) {
		safe_close(o->image_fd);
		return e;
	}
	d->backend.ops = &disk_ops;
	d->speed = o->speed;
	d->configuration = 1;
	copy_string(d->serial, sizeof(d->serial), o->serial);
	copy_string(d->product, sizeof(d->product),
		o->product ? o->product
		: o->cdrom ? DEFAULT_CDROM
			   : DEFAULT_PRODUCT);
	d->strings = (struct disk_strings){d->product, d->serial};
	d->cdrom = o->cdrom;
	d->inquiry = o->product ? d->product : NULL;
	e = disk_io_start(
		&(struct disk_io_options){
			.fd = o->image_fd,
			.export = o->export ? o->export : "",
			.writable = !o->read_only && !o->cdrom,
			.event = o->event,
		},
		&d->io);
	if (e < 0) {
		free(d);
		return e;
	}
	d->bot.unit = &d->unit;
	d->bot.io = d->io;
	d->bot.complete = complete;
	d->bot.ejected = ejected;
	d->bot.userdata = d;
	d->bot.max_packet = disk_max_packet(d->speed);
	bot_init(&d->bot);
	*out = &d->backend;
	return 0;
}
