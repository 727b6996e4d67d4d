/* SPDX-License-Identifier: MIT
 *
 * We listen to udev, not to the kernel: when udev has passed an event on, its rules have run and
 * what they set can be read. Through libudev, because sd-device's monitor hides an overflow.
 * Without udev, the kernel's own events have to do.
 */
#include "broker/usb-monitor.h"

#include <errno.h>
#include <libudev.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/log.h"

/* The kernel keeps so many bytes of events for us; one counts for 1 to 2 KiB. */
#define RECEIVE_BUFFER  (16 << 20)
#define EVENTS_PER_TURN 128
#define UDEV_SOCKET     "/run/udev/control"

struct usb_monitor {
	const struct usb_monitor_ops *ops;
	void *userdata;
	struct udev *udev;
	struct udev_monitor *monitor;
	sd_event_source *readable;
	bool has_udev;
};

/* An event of an interface is one of its device. */
static void pass_on(struct usb_monitor *m, struct udev_device *d)
{
	const char *syspath = udev_device_get_syspath(d), *type = udev_device_get_devtype(d);
	_cleanup_free_ char *device = syspath ? strdup(syspath) : NULL;
	char *slash = device ? strrchr(device, '/') : NULL;

	if (!slash || !type) {
		return;
	}
	if (strcmp(type, "usb_interface") == 0) {
		*slash = '\0';
	} else if (strcmp(type, "usb_device") != 0) {
		return;
	}
	m->ops->event(m->userdata, device);
}

static int on_readable(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct usb_monitor *m = userdata;

	for (unsigned int i = 0; i < EVENTS_PER_TURN; i++) {
		struct udev_device *d;
		int error;

		errno = 0;
		d = udev_monitor_receive_device(m->monitor);
		if (d) {
			pass_on(m, d);
			udev_device_unref(d);
			continue;
		}
		error = errno;
		if (error == EAGAIN || error == EINTR) {
			return 0;
		}
		/* ENOBUFS is the overflow. With anything else (no memory, a message that makes no
		 * sense) it is not known what the message was about, which is the same. */
		m->ops->lost(m->userdata);
		if (error != ENOBUFS) {
			return 0;
		}
	}
	return 0;
}

static int start(struct usb_monitor *m, sd_event *event)
{
	int r;

	m->udev = udev_new();
	if (!m->udev) {
		return -ENOMEM;
	}
	errno = 0;
	m->monitor = udev_monitor_new_from_netlink(m->udev, m->has_udev ? "udev" : "kernel");
	if (!m->monitor) {
		return errno ? -errno : -ENOMEM;
	}
	/* The kernel filters: nobody else's events wake us. */
	r = udev_monitor_filter_add_match_subsystem_devtype(m->monitor, "usb", NULL);
	if (r >= 0 && udev_monitor_set_receive_buffer_size(m->monitor, RECEIVE_BUFFER) < 0) {
		/* Takes CAP_NET_ADMIN; an overflow is noticed anyway. */
		log_debug("usb: the event queue keeps its usual size");
	}
	r = r < 0 ? r : udev_monitor_enable_receiving(m->monitor);
	return r < 0 ? r
		     : sd_event_add_io(event, &m->readable, udev_monitor_get_fd(m->monitor),
			       EPOLLIN, on_readable, m);
}

int usb_monitor_create(sd_event *event, const struct usb_monitor_ops *ops, void *userdata,
	struct usb_monitor **out)
{
	struct usb_monitor *m = calloc(1, sizeof(*m));
	int r;

	if (!m) {
		return -ENOMEM;
	}
	m->ops = ops;
	m->userdata = userdata;
	m->has_udev = access(UDEV_SOCKET, F_OK) == 0;
	r = start(m, event);
	if (r < 0) {
		usb_monitor_destroy(m);
		return r;
	}
	*out = m;
	return 0;
}

void usb_monitor_destroy(struct usb_monitor *m)
{
	if (!m) {
		return;
	}
	sd_event_source_disable_unref(m->readable);
	udev_monitor_unref(m->monitor);
	udev_unref(m->udev);
	free(m);
}

bool usb_monitor_has_udev(const struct usb_monitor *m)
{
	return m->has_udev;
}
