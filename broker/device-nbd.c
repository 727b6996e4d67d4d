/* SPDX-License-Identifier: MIT */
#include "broker/device-nbd.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "broker/broker.h"
#include "broker/lease-record.h"
#include "broker/vm.h"

#define EXPORT_MAX 255 /* bytes */

static struct device_disk *nbd_of(struct device *d)
{
	return list_entry(d, struct device_disk, device);
}

/* Connected, and a stream; what kind of stream was its owner's to choose. */
static bool is_connection(int fd)
{
	struct sockaddr_storage peer;
	socklen_t size = sizeof(int), peer_size = sizeof(peer);
	int type = 0;

	return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_STREAM &&
	       getpeername(fd, (struct sockaddr *)&peer, &peer_size) == 0;
}

static bool export_ok(const char *export)
{
	size_t n = strnlen(export, EXPORT_MAX + 1);

	for (size_t i = 0; i < n; i++) {
		if ((unsigned char)export[i] < 0x20 || export[i] == 0x7f) {
			return false;
		}
	}
	return n <= EXPORT_MAX;
}

int device_nbd_check(struct device_disk *k, bool held, struct refusal_text *text)
{
	if (!export_ok(k->export)) {
		return refuse_with(text, REFUSAL_INVALID,
			"Use at most 255 bytes without control characters.",
			"%s: that is no name of an export", k->device.name);
	}
	k->handed = held;
	if (!held && (k->image_fd < 0 || !is_connection(k->image_fd))) {
		return refuse_with(text, REFUSAL_IMAGE_INVALID,
			"Use devbroker(1), which connects to the server.",
			"%s: that is no connection to an NBD server", k->device.name);
	}
	return 0;
}

/* The server has closed it, or the worker has given the server up. */
static bool is_over(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLRDHUP};

	return fd >= 0 && poll(&p, 1, 0) == 1 && p.revents;
}

/* The connection after the one that is used up. */
static void use_next(struct device_disk *k)
{
	if (k->next_fd >= 0) {
		safe_close(k->image_fd);
		k->image_fd = steal_fd(&k->next_fd);
		k->handed = false;
	}
}

/* Whether the export that a guest has may come from another server. */
static int check_same(
	const struct device_disk *k, const struct device_disk_options *o, struct refusal_text *text)
{
	if (!is_connection(o->image_fd)) {
		return refuse_with(text, REFUSAL_IMAGE_INVALID,
			"Use devbroker(1), which connects to the server.",
			"%s: that is no connection to an NBD server", k->device.name);
	}
	if (strcmp(k->export, o->export) != 0 || k->cdrom != o->cdrom ||
		k->read_only != (o->read_only || o->cdrom)) {
		return refuse_with(text, REFUSAL_EXISTS,
			"Detach it first, or add the same export with the same options.",
			"vm %s has another %s", k->device.lease->vm->name, k->device.name);
	}
	return 0;
}

int device_nbd_renew(struct broker *b, const struct device_disk_options *o, struct device **out,
	struct refusal_text *text)
{
	char full[NAME_MAX_LENGTH + 8];
	struct device_disk *k;
	struct device *d;
	int r;

	snprintf(full, sizeof(full), "disk:%s", o->name);
	d = broker_device_named(b, full);
	if (!d || d->ops != &device_nbd_ops) {
		return REFUSAL_NOT_FOUND;
	}
	k = nbd_of(d);
	if (!d->lease) {
		if (k->handed || is_over(k->image_fd)) {
			_unused_ int gone = device_remove(d, text);
		}
		return REFUSAL_NOT_FOUND;
	}
	if (d->lease->taken && !is_over(k->image_fd)) {
		return REFUSAL_NOT_FOUND; /* it works, as far as anybody knows */
	}
	r = check_same(k, o, text);
	if (r != 0) {
		return r;
	}
	safe_close(k->next_fd);
	k->next_fd = o->image_fd;
	*out = d;
	if (!d->lease->taken) {
		use_next(k);
	}
	lease_renew(d->lease);
	return 0;
}

static int check_usable(const struct device *d, struct refusal_text *text)
{
	if (!device_disk_of(d)->handed) {
		return 0;
	}
	return refuse_with(text, REFUSAL_IMAGE_INVALID,
		"Add it again, under the same name: devbroker disk add URI --name NAME",
		"the connection of %s to its NBD server is used up", d->name);
}

static int nbd_check(
	struct device *d, const struct lease_options *options, struct refusal_text *text)
{
	if (options->interfaces) {
		return refuse_with(text, REFUSAL_NOT_SUPPORTED, "Lend all of it.",
			"%s has one interface: there is nothing to choose", d->name);
	}
	return check_usable(d, text);
}

static void nbd_take(struct device *d, struct lease *l)
{
	struct refusal_text text = {0};
	int r = check_usable(d, &text);

	lease_taken(l, r, &text);
}

static int nbd_worker(struct device *d, struct worker_args *args)
{
	nbd_of(d)->handed = true;
	return device_disk_worker(d, args);
}

/* The server notices once nobody has the socket any more. */
static void nbd_give_back(struct device *d, struct lease *l)
{
	struct device_disk *k = nbd_of(d);

	if (k->handed) {
		k->image_fd = safe_close(k->image_fd);
	}
	use_next(k);
	lease_given_back(l);
}

static void nbd_note(const struct device *d, struct lease_record *r)
{
	const struct device_disk *k = device_disk_of(d);

	r->nbd = true;
	snprintf(r->export, sizeof(r->export), "%s", k->export);
	snprintf(r->serial, sizeof(r->serial), "%s", d->serial);
	snprintf(r->speed, sizeof(r->speed), "%s", k->speed);
	snprintf(r->path, sizeof(r->path), "%s", k->path ? k->path : "");
	r->read_only = k->read_only;
	r->cdrom = k->cdrom;
}

static int nbd_adopt(struct device *d, struct lease *l, const struct lease_record *r, int fd)
{
	struct device_disk *k = nbd_of(d);

	safe_close(fd);
	if (!r->nbd || !k->handed) {
		return -ESTALE;
	}
	return 0;
}

static const char *nbd_description(const struct device *d)
{
	return device_disk_of(d)->cdrom ? "CD-ROM drive from an NBD server"
					: "USB stick from an NBD server";
}

/* The server tells it to the worker only. */
static uint64_t nbd_size(const struct device *d)
{
	return 0;
}

const struct device_ops device_nbd_ops = {
	.kind = "disk",
	.program = SPAWNER_USB_NBD,
	.check = nbd_check,
	.take = nbd_take,
	.worker = nbd_worker,
	.give_back = nbd_give_back,
	.note = nbd_note,
	.adopt = nbd_adopt,
	.destroy = device_disk_destroy,
	.description = nbd_description,
	.speed = device_disk_speed,
	.path = device_disk_path,
	.size = nbd_size,
	.read_only = device_disk_read_only,
};
