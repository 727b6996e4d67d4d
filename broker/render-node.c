/* SPDX-License-Identifier: MIT */
#include "broker/render-node.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <systemd/sd-device.h>
#include <unistd.h>
#include <xf86drm.h>

#include "base/fd.h"

#define DRM_MAJOR    226
#define RENDER_FIRST 128 /* minors of render nodes; below them are those that set modes */

static void ask_udev(struct render_node *n)
{
	_cleanup_(sd_device_unrefp) sd_device *device = NULL;
	const char *value = NULL;
	sd_device *parent;

	if (sd_device_new_from_devname(&device, n->path) < 0) {
		return;
	}
	n->tagged = sd_device_get_property_value(device, "DEVBROKER_GPU", &value) >= 0 &&
		    strcmp(value, "1") == 0;
	if (sd_device_get_parent(device, &parent) >= 0 &&
		sd_device_get_driver(parent, &value) >= 0) {
		snprintf(n->driver, sizeof(n->driver), "%s", value);
	}
}

static void describe_bus(const drmDevice *d, struct render_node *n)
{
	if (d->bustype == DRM_BUS_PCI) {
		const drmPciBusInfo *at = d->businfo.pci;
		const drmPciDeviceInfo *is = d->deviceinfo.pci;

		snprintf(n->bus, sizeof(n->bus), "pci %04x:%02x:%02x.%u %04x:%04x", at->domain,
			at->bus, at->dev, at->func, is->vendor_id, is->device_id);
	} else if (d->bustype == DRM_BUS_PLATFORM) {
		snprintf(n->bus, sizeof(n->bus), "platform %.48s", d->businfo.platform->fullname);
	}
}

int render_nodes_list(struct render_node out[static RENDER_NODES_MAX])
{
	drmDevicePtr devices[RENDER_NODES_MAX];
	int n = drmGetDevices2(0, devices, RENDER_NODES_MAX), found = 0;

	if (n < 0) {
		/* Without /dev/dri there is no GPU at all. */
		return n == -ENOENT ? 0 : n;
	}
	n = n < RENDER_NODES_MAX ? n : RENDER_NODES_MAX;
	for (int i = 0; i < n; i++) {
		struct render_node *node = &out[found];

		if (!(devices[i]->available_nodes & (1 << DRM_NODE_RENDER))) {
			continue;
		}
		*node = (struct render_node){0};
		snprintf(node->path, sizeof(node->path), "%s", devices[i]->nodes[DRM_NODE_RENDER]);
		describe_bus(devices[i], node);
		ask_udev(node);
		found++;
	}
	drmFreeDevices(devices, n);
	return found;
}

int render_node_tagged(char out[static 64])
{
	struct render_node nodes[RENDER_NODES_MAX];
	int n = render_nodes_list(nodes);

	for (int i = 0; i < n; i++) {
		if (nodes[i].tagged) {
			memcpy(out, nodes[i].path, sizeof(nodes[i].path));
			return 0;
		}
	}
	return n < 0 ? n : -ENOENT;
}

int render_node_open(const char *path, int *fd_out, char shown_out[static 64])
{
	_cleanup_close_ int place = -1, fd = -1;
	char same[32];
	struct stat st;
	int r = 0;

	if (path) {
		snprintf(shown_out, 64, "%s", path);
	} else {
		r = render_node_tagged(shown_out);
		path = shown_out;
	}
	if (r < 0) {
		return r;
	}
	/* Looked at before it is opened: to open some devices does something. */
	place = open(path, O_PATH | O_CLOEXEC);
	if (place < 0 || fstat(place, &st) < 0) {
		return errno == ENOENT ? -ENODEV : -errno;
	}
	if (!S_ISCHR(st.st_mode) || major(st.st_rdev) != DRM_MAJOR ||
		minor(st.st_rdev) < RENDER_FIRST) {
		return -ENOTTY;
	}
	/* That one, whatever has its name by now. */
	snprintf(same, sizeof(same), "/proc/self/fd/%d", place);
	fd = open(same, O_RDWR | O_CLOEXEC | O_NOCTTY);
	if (fd < 0) {
		return -errno;
	}
	*fd_out = steal_fd(&fd);
	return 0;
}

int render_node_choose(const char *path, bool demanded, int *fd_out, char shown_out[static 64],
	char *why_out, size_t why_size)
{
	int r = render_node_open(path, fd_out, shown_out);

	if (r == 0 || (r == -ENOENT && !path && !demanded)) {
		return 0;
	}
	if (r == -ENOENT && !path) {
		snprintf(why_out, why_size,
			"virgl=hardware, and no render node is tagged in udev or named");
		return -ENODEV;
	}
	snprintf(why_out, why_size, "render node %s: %s", shown_out,
		r == -ENOTTY ? "it is none" : strerror(-r));
	return r;
}
