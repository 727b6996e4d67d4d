/* SPDX-License-Identifier: MIT
 * Prints a line for each of the kernel's events about USB devices as it comes: the time
 * (CLOCK_REALTIME, microseconds), the action and the device's path. For tests/bench hotplug, in the
 * host in a VM.
 */
#include <inttypes.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"

#define KERNEL_EVENTS 1 /* the group that the kernel itself sends to */

/* "add@/devices/…", and then lines KEY=value, each with a zero behind it. */
static int is_device(const char *event, size_t size)
{
	for (const char *p = event; p < event + size; p += strlen(p) + 1) {
		if (strcmp(p, "DEVTYPE=usb_device") == 0) {
			return 1;
		}
	}
	return 0;
}

int main(void)
{
	struct sockaddr_nl all = {.nl_family = AF_NETLINK, .nl_groups = KERNEL_EVENTS};
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);
	char event[8192];

	if (fd < 0 || bind(fd, (const struct sockaddr *)&all, sizeof(all)) < 0) {
		perror("uevent-times");
		return 1;
	}
	printf("ready\n");
	fflush(stdout);
	for (;;) {
		ssize_t n = recv(fd, event, sizeof(event) - 1, 0);
		uint64_t now = clock_ns(CLOCK_REALTIME) / 1000;
		char *at;

		if (n <= 0) {
			return 1;
		}
		event[n] = '\0';
		at = strchr(event, '@');
		if (at && is_device(event, (size_t)n)) {
			*at = ' ';
			printf("%" PRIu64 " %s\n", now, event);
			fflush(stdout);
		}
	}
}
