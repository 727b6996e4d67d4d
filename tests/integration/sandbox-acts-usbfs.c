/* SPDX-License-Identifier: MIT
 * Acts of a worker that serves a device of the host, on its usbfs node. There is none here: a
 * regular file stands for it, which answers ENOTTY to what reaches it. That is success.
 */
#include "tests/integration/sandbox-acts.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/usbdevice_fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/cleanup.h"

static int reach(unsigned long request)
{
	char argument[256] = {0};

	return ioctl(ACT_FD_IMAGE, request, argument) < 0 && errno == ENOTTY ? 0 : EPROTO;
}

static int act_set_configuration(const struct act_env *env)
{
	return reach(USBDEVFS_SETCONFIGURATION);
}

static int act_driver(const struct act_env *env)
{
	return reach(USBDEVFS_IOCTL);
}

static int act_port(const struct act_env *env)
{
	return reach(USBDEVFS_CLAIM_PORT);
}

static int act_signal(const struct act_env *env)
{
	return reach(USBDEVFS_DISCSIGNAL);
}

static int act_suspend(const struct act_env *env)
{
	return reach(USBDEVFS_FORBID_SUSPEND);
}

/* Everything that libusb asks of it. */
static int act_serve(const struct act_env *env)
{
	static const unsigned long requests[] = {
		USBDEVFS_GET_CAPABILITIES,
		USBDEVFS_GET_SPEED,
		USBDEVFS_CONNECTINFO,
		USBDEVFS_GETDRIVER,
		USBDEVFS_CLAIMINTERFACE,
		USBDEVFS_RELEASEINTERFACE,
		USBDEVFS_DISCONNECT_CLAIM,
		USBDEVFS_SETINTERFACE,
		USBDEVFS_CLEAR_HALT,
		USBDEVFS_RESET,
		USBDEVFS_CONTROL,
		USBDEVFS_ALLOC_STREAMS,
		USBDEVFS_FREE_STREAMS,
		USBDEVFS_SUBMITURB,
		USBDEVFS_DISCARDURB,
		USBDEVFS_REAPURBNDELAY,
	};
	char descriptors[18];

	for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
		int r = reach(requests[i]);

		if (r != 0) {
			return r;
		}
	}
	return lseek(ACT_FD_IMAGE, 0, SEEK_SET) == 0 &&
			       read(ACT_FD_IMAGE, descriptors, sizeof(descriptors)) ==
				       sizeof(descriptors)
		       ? 0
		       : errno;
}

/* libusb looks for its node's path and finds none; it must not die of it. */
static int act_look(const struct act_env *env)
{
	char path[64];

	if (readlink("/proc/self/fd/4", path, sizeof(path)) >= 0 || errno != ENOENT) {
		return EEXIST;
	}
	return open("/dev/bus/usb/001/001", O_RDWR | O_CLOEXEC) < 0 && errno == ENOENT ? 0 : EEXIST;
}

const struct act acts_on_usbfs[] = {
	{"set a configuration", act_set_configuration, ACT_CONTROL | ACT_USB_ONLY},
	{"bind or unbind a driver", act_driver, ACT_CONTROL | ACT_USB_ONLY},
	{"claim a port", act_port, ACT_CONTROL | ACT_USB_ONLY},
	{"signals from the device", act_signal, ACT_CONTROL | ACT_USB_ONLY},
	{"forbid suspend", act_suspend, ACT_CONTROL | ACT_USB_ONLY},
	{"use of a device", act_serve, ACT_CONTROL | ACT_MUST_WORK | ACT_USB_ONLY},
	{"look for its path", act_look, ACT_MUST_WORK | ACT_USB_ONLY},
};
const size_t n_acts_on_usbfs = sizeof(acts_on_usbfs) / sizeof(acts_on_usbfs[0]);
