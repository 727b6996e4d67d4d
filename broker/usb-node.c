/* SPDX-License-Identifier: MIT */
#include "broker/usb-node.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/fd.h"
#include "broker/usb-facts.h"

/* Documentation/admin-guide/devices.txt: usbfs nodes, 128 per bus. */
#define USB_DEVICE_MAJOR 189
#define NODES_PER_BUS    128

/* Whether the open node is that of this device. */
static int verify_node(int fd, const struct usb_facts *f)
{
	const dev_t wanted = makedev(
		USB_DEVICE_MAJOR, (unsigned int)(f->busnum - 1) * NODES_PER_BUS + f->devnum - 1);
	_cleanup_free_ uint8_t *now = malloc(f->descriptors_size + 1);
	uint64_t instance;
	struct stat st;
	ssize_t n;

	if (!now) {
		return -ENOMEM;
	}
	if (fstat(fd, &st) < 0) {
		return -errno;
	}
	if (!S_ISCHR(st.st_mode) || st.st_rdev != wanted) {
		return -ENODEV;
	}
	n = pread(fd, now, f->descriptors_size + 1, 0);
	if (n < 0) {
		return -errno;
	}
	/* A configuration that claims to be longer than it is has a hole of that length at its end
	 * in what usbfs reads (devio.c, usbdev_read), and none in sysfs. */
	if ((size_t)n < f->descriptors_size ||
		((size_t)n > f->descriptors_size && f->n_configurations != 1) ||
		memcmp(now, f->descriptors, f->descriptors_size) != 0) {
		return -ESTALE;
	}
	/* Twins have the same descriptors, and the second may have come since. */
	if (usb_facts_instance(f->syspath, &instance) < 0 || instance != f->instance) {
		return -ESTALE;
	}
	return 0;
}

int usb_node_open(const struct usb_facts *f)
{
	_cleanup_close_ int fd =
		open(f->devnode, O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | O_NOFOLLOW);
	int r = fd < 0 ? -errno : verify_node(fd, f);

	return r < 0 ? r : steal_fd(&fd);
}
