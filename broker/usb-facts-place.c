/* SPDX-License-Identifier: MIT
 *
 * Where a device is plugged in: the key, that outlives bus numbers.
 *
 * A device's own name in sysfs is BUS-CHAIN ("2-3.4"): the bus counts up as controllers are found,
 * the chain is the ports on the way from the root hub. The key has the controller instead of the
 * bus. A USB 3 connector has two halves, a port of the USB 2 bus and one of the SuperSpeed bus of
 * the same controller, often with different numbers, and one device may turn up on either: the
 * kernel ties the ports together (by the firmware's tables, or by number) and shows that as a
 * "peer" link between them. The key spells the USB 2 half. Below the last port with a peer, numbers
 * are kept: a hub counts the ports of its two halves alike (USB 3.2, 10.3.1), and its other half
 * may not be there yet.
 */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "broker/usb-facts-internal.h"

#define SUPER_SPEED 5000 /* Mbit/s of a SuperSpeed root hub, at least */
#define CHAIN_MAX   64   /* seven tiers of ports up to 255, with room */

/* Splits "2-3.4" (or "usb2", whose chain is "0"). false if it is no USB device's name. */
static bool split_name(const char *sysname, char *bus, size_t bus_size, const char **chain_out)
{
	const char *digits = strncmp(sysname, "usb", 3) == 0 ? sysname + 3 : sysname;
	size_t n = strspn(digits, "0123456789");

	if (n == 0 || n >= bus_size) {
		return false;
	}
	memcpy(bus, digits, n);
	bus[n] = '\0';
	if (digits != sysname) {
		*chain_out = "0";
		return digits[n] == '\0';
	}
	*chain_out = digits + n + 1;
	return digits[n] == '-' && **chain_out &&
	       strspn(*chain_out, "0123456789.") == strlen(*chain_out) &&
	       strlen(*chain_out) < CHAIN_MAX;
}

int usb_facts_each_interface(const char *syspath, usb_interface_fn each, void *userdata)
{
	const char *name = strrchr(syspath, '/');
	const char *chain;
	const struct dirent *e;
	char bus[16], prefix[CHAIN_MAX + 32];
	DIR *dir;
	int r = 0;

	if (!name || !split_name(name + 1, bus, sizeof(bus), &chain)) {
		return -ENODEV;
	}
	dir = opendir(syspath);
	if (!dir) {
		return errno == ENOENT ? -ENODEV : -errno;
	}
	snprintf(prefix, sizeof(prefix), "%s-%s:", bus, chain);
	while (r == 0 && (e = readdir(dir))) {
		unsigned int configuration, number;
		char rest;

		if (strncmp(e->d_name, prefix, strlen(prefix)) == 0 &&
			sscanf(e->d_name + strlen(prefix), "%3u.%3u%c", &configuration, &number,
				&rest) == 2) {
			r = each(userdata, e->d_name, configuration, number);
		}
	}
	closedir(dir);
	return r;
}

/* Bounded text that a chain is built in. */
struct chain {
	char text[CHAIN_MAX];
};

struct peer_search {
	const char *hub_path; /* syspath of the hub */
	const char *hub_name;
	const char *port; /* "4" */
	struct chain *out;
};

/* Reads where the port's peer leads: "…/1-5-port2" is chain 5.2, "…/usb1-port5" is 5. */
static int read_peer(
	void *userdata, const char *interface, unsigned int configuration, unsigned int number)
{
	const struct peer_search *s = userdata;
	char path[PATH_MAX], target[PATH_MAX], bus[16];
	const char *chain;
	char *name, *port;
	ssize_t n;

	if (snprintf(path, sizeof(path), "%s/%s/%s-port%s/peer", s->hub_path, interface,
		    s->hub_name, s->port) >= (int)sizeof(path)) {
		return -ENAMETOOLONG;
	}
	n = readlink(path, target, sizeof(target) - 1);
	if (n < 0) {
		return 0;
	}
	target[n] = '\0';
	name = strrchr(target, '/');
	port = name ? strstr(name, "-port") : NULL;
	if (!port || strspn(port + 5, "0123456789") != strlen(port + 5)) {
		return 0;
	}
	*port = '\0';
	port += strlen("-port");
	if (!split_name(name + 1, bus, sizeof(bus), &chain)) {
		return 0;
	}
	n = strncmp(name + 1, "usb", 3) == 0
		    ? snprintf(s->out->text, sizeof(s->out->text), "%s", port)
		    : snprintf(s->out->text, sizeof(s->out->text), "%s.%s", chain, port);
	return n < (ssize_t)sizeof(s->out->text) ? 1 : -ENAMETOOLONG;
}

/* The chain as the USB 2 half counts it, for the device at syspath with this chain on a SuperSpeed
 * bus. 1; 0 if no port on the way has a peer; -errno. */
static int find_peer_chain(const char *syspath, const char *chain, struct chain *out)
{
	_cleanup_free_ char *hub = strdup(syspath), *ports = strdup(chain);
	const char *below = chain + strlen(chain);

	if (!hub || !ports) {
		return -ENOMEM;
	}
	/* From the device's own port upwards: the last dot of ports is before the port looked at.
	 */
	for (;;) {
		char *dot = strrchr(ports, '.'), *end = strrchr(hub, '/'), *hub_name;
		struct peer_search s = {.out = out};
		size_t used;
		int r;

		if (!end) {
			return -ENODEV;
		}
		*end = '\0';
		hub_name = strrchr(hub, '/');
		if (!hub_name) {
			return -ENODEV;
		}
		s.hub_path = hub;
		s.hub_name = hub_name + 1;
		s.port = dot ? dot + 1 : ports;
		r = usb_facts_each_interface(hub, read_peer, &s);
		if (r < 0) {
			return r;
		}
		used = strlen(out->text);
		if (r > 0) {
			return snprintf(out->text + used, sizeof(out->text) - used, "%s", below) <
					       (int)(sizeof(out->text) - used)
				       ? 1
				       : -ENAMETOOLONG;
		}
		if (!dot) {
			return 0;
		}
		*dot = '\0';
		below = chain + strlen(ports);
	}
}

/* The PCI device above the root hub, or the platform device directly above it. Borrowed. */
static int find_controller(sd_device *root, const char **out)
{
	sd_device *parent;
	int r = sd_device_get_parent_with_subsystem_devtype(root, "pci", NULL, &parent);

	if (r < 0) {
		r = sd_device_get_parent(root, &parent);
	}
	if (r < 0) {
		return -ENODEV;
	}
	return sd_device_get_sysname(parent, out);
}

/* NULL if out of memory. */
static _printf_(1, 2) char *make_text(const char *fmt, ...)
{
	char *text;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&text, fmt, ap);
	va_end(ap);
	return n < 0 ? NULL : text;
}

/* The root hub above the device. */
static int open_root(const struct usb_facts *f, const char *bus, sd_device **out)
{
	_cleanup_free_ char *path = strdup(f->syspath), *part = make_text("/usb%s/", bus);
	char *found;

	if (!path || !part) {
		return -ENOMEM;
	}
	found = strstr(path, part);
	if (found) {
		found[strlen(part) - 1] = '\0';
	}
	return sd_device_new_from_syspath(out, path);
}

/* super: on the SuperSpeed bus. peer: the chain as the USB 2 half counts it, "" if there is none or
 * it does not matter. */
static int fill(struct usb_facts *f, const char *bus, const char *controller, bool super,
	const char *chain, const char *peer)
{
	const char *side = super ? "ss" : "";
	const char *dot = strrchr(chain, '.');

	f->key = *peer ? make_text("usb:%s-%s", controller, peer)
		       : make_text("usb:%s-%s%s", controller, side, chain);
	f->own_key = make_text("usb:%s-%s%s", controller, super ? "ss" : "hs", chain);
	if (strcmp(chain, "0") == 0) {
		f->parent_key = strdup("");
	} else {
		/* A hub's key is what its own half says. */
		f->parent_key = dot ? make_text("usb:%s-%s%.*s", controller, side,
					      (int)(dot - chain), chain)
				    : make_text("usb:%s-%s0", controller, side);
	}
	f->bus = make_text("usb%s", bus);
	f->controller = strdup(controller);
	return f->key && f->own_key && f->parent_key && f->bus && f->controller ? 0 : -ENOMEM;
}

int usb_facts_place(struct usb_facts *f, sd_device *d)
{
	_cleanup_(sd_device_unrefp) sd_device *root = NULL;
	struct chain peer = {0};
	const char *controller, *chain;
	uint64_t speed;
	char bus[16];
	bool super;
	int r;

	if (!split_name(f->sysname, bus, sizeof(bus), &chain)) {
		return -ENODEV;
	}
	r = open_root(f, bus, &root);
	if (r >= 0) {
		r = find_controller(root, &controller);
	}
	if (r < 0) {
		return r;
	}
	/* "1.5" is no number of these; no root hub is that slow. */
	super = parse_u64(usb_facts_attr(root, "speed"), 0, UINT32_MAX, &speed) == 0 &&
		speed >= SUPER_SPEED;
	/* A hub is where its own half says: the other half is another device, of the same place. */
	if (super && !f->hub && strcmp(chain, "0") != 0) {
		r = find_peer_chain(f->syspath, chain, &peer);
		if (r < 0) {
			return r;
		}
	}
	return fill(f, bus, controller, super, chain, peer.text);
}
