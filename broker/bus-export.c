/* SPDX-License-Identifier: MIT
 * Broker1.Export: a device for whoever connects, with a VM that is there for it alone. And
 * VM1.Streams, the ways to VMs without QMP.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "base/log.h"
#include "broker/broker.h"
#include "broker/bus-internal.h"
#include "broker/device.h"
#include "broker/lease.h"
#include "broker/vm-options.h"
#include "broker/vm.h"
#include "broker/ways.h"

int bus_get_streams(sd_bus *bus, const char *path, const char *interface, const char *property,
	sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
	const struct vm *vm = userdata;
	bool all = bus_sees_vm(vm->broker, bus, vm);
	int r = sd_bus_message_open_container(reply, 'a', "(sss)");

	for (uint32_t i = 0; r >= 0 && vm->ways && i < ways_count(vm->ways); i++) {
		const struct lease *l;
		const char *where;
		enum way_state state = ways_show(vm->ways, i, &where, &l);

		r = sd_bus_message_append(reply, "(sss)", all ? where : "", way_state_name(state),
			l ? l->device->name : "");
	}
	return r < 0 ? r : sd_bus_message_close_container(reply);
}

/* What Export is told. */
struct request {
	const char *listen; // NULL: the fd is given
	int fd;
	int keep, last_input, keep_off, read_only, firmware;
	const char *interfaces; // may be NULL
};

/* A socket of the client's that listens; only that user decided who may connect to it. */
static int check_socket(int fd, struct stream_address *out, struct refusal_text *text)
{
	int domain = 0, listens = 0, type = 0;
	socklen_t len = sizeof(int);

	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) < 0 || domain != AF_UNIX ||
		getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0 || type != SOCK_STREAM ||
		getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) < 0 || !listens) {
		return refuse(text, REFUSAL_INVALID,
			"what was given to listen is no unix stream socket that listens");
	}
	*out = (struct stream_address){.length = sizeof(out->socket.un)};
	if (getsockname(fd, &out->socket.any, &out->length) < 0) {
		return -errno;
	}
	/* Its name may end where the field does, or have none. */
	out->socket.un.sun_path[sizeof(out->socket.un.sun_path) - 1] = '\0';
	return 0;
}

static int check_address(struct broker *b, const char *text_in, struct stream_address *out,
	struct refusal_text *text)
{
	char tcp[80];

	snprintf(tcp, sizeof(tcp), "tcp:%s", text_in);
	if (strlen(text_in) + sizeof("tcp:") > sizeof(tcp) || stream_address_parse(tcp, out) < 0) {
		return refuse_with(text, REFUSAL_INVALID,
			"Give ADDRESS:PORT, as in 127.0.0.1:4000 or [::1]:4000.",
			"that is no address to listen at");
	}
	if (!stream_address_is_local(out) && !b->config.usb.allow_remote) {
		return refuse_with(text, REFUSAL_DENIED,
			"Use a tunnel (see devbroker(1)), or allow-remote=yes in [usb] of "
			"devbroker.conf.",
			"%s is not on this host alone, and usbredir has neither authentication "
			"nor encryption",
			text_in);
	}
	return 0;
}

static void make_name(struct broker *b, const struct stream_address *a, char out[64])
{
	char text[STREAM_ADDRESS_TEXT];
	unsigned int n = 0;

	if (!stream_address_is_unix(a)) {
		stream_address_print(a, text);
		snprintf(out, 64, "export:%.50s", text + strlen("tcp:"));
		return;
	}
	do {
		snprintf(out, 64, "export:unix:%u", n++);
	} while (broker_vm_named(b, out));
}

static int read_lend(const struct request *q, struct lease_options *lend, struct refusal_text *text)
{
	lend->keep_drivers_off = q->keep_off;
	lend->last_input = q->last_input;
	lend->read_only = q->read_only;
	lend->allow_firmware = q->firmware;
	if (q->interfaces && lease_interfaces_parse(q->interfaces, &lend->interfaces) < 0) {
		return refuse_with(text, REFUSAL_INVALID,
			"Write numbers from 0 to 31 with commas between them, as in 0,2.",
			"what interfaces are to be lent is no list of numbers");
	}
	return 0;
}

/* Listens and lends; nothing is left on failure. */
static int start(struct bus_connection *c, struct device *d, const struct request *q,
	struct lease_options *lend, struct refusal_text *text)
{
	struct broker *b = bus_broker(c);
	struct config_ways ways = {.n_streams = 1, .streams = {{.listens = true}}};
	struct stream_address *address = &ways.streams[0].address;
	char name[64];
	const struct vm_options o = {
		.name = name,
		.ways = &ways,
		.is_export = true,
		.keep = q->keep,
		.limits = b->config.quota,
		.listen_fd = q->listen ? NULL : &q->fd,
	};
	struct refusal_text ignored = {0};
	struct vm *vm;
	int r = q->listen ? check_address(b, q->listen, address, text)
			  : check_socket(q->fd, address, text);

	if (r != 0) {
		return r;
	}
	make_name(b, address, name);
	if (broker_vm_named(b, name)) {
		return refuse_with(
			text, REFUSAL_BUSY, "Use another port.", "%s is there already", name);
	}
	r = vm_add(b, &o, &vm, text);
	if (r != 0) {
		return r;
	}
	r = bus_attach(c, d, vm, lend, false, text);
	if (r != 0) {
		_unused_ int removed = vm_remove(vm, &ignored);
		return r;
	}
	bus_audit(c, AUDIT_ATTACH, d->name, vm->name, "", "It was exported.");
	return 0;
}

static int check_free(const struct device *d, struct refusal_text *text)
{
	return d->lease ? refuse(text, REFUSAL_BUSY, "%s is %s, vm %s", d->name,
				  lease_state_name(d->lease->state), d->lease->vm->name)
			: 0;
}

int bus_on_export(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	struct bus_connection *c = userdata;
	struct refusal_text text = {0};
	struct lease_options lend = {0};
	struct request q = {.fd = -1};
	const struct bus_option options[] = {
		{"listen", 's', &q.listen},
		{"socket", 'h', &q.fd},
		{"keep", 'b', &q.keep},
		{"keep-drivers-off", 'b', &q.keep_off},
		{"last-input", 'b', &q.last_input},
		{"read-only", 'b', &q.read_only},
		{"allow-firmware", 'b', &q.firmware},
		{"interfaces", 's', &q.interfaces},
	};
	const char *name = NULL;
	struct device *d;
	int r = sd_bus_message_read(m, "s", &name);

	if (r >= 0) {
		r = bus_read_options(m, options, ARRAY_SIZE(options), &text);
	}
	if (r == 0 && !q.listen == (q.fd < 0)) {
		r = refuse(&text, REFUSAL_INVALID, "an export listens at one address or socket");
	}
	if (r == 0) {
		r = broker_find_device(bus_broker(c), name, &d, &text);
	}
	if (r == 0) {
		r = check_free(d, &text);
	}
	if (r == 0) {
		r = read_lend(&q, &lend, &text);
	}
	if (r == 0) {
		r = start(c, d, &q, &lend, &text);
	}
	if (r != 0) {
		return bus_fail_call(c, name ? name : "", "", error, r, &text);
	}
	return bus_reply_path(m, BUS_DEVICES, d->name);
}
