/* SPDX-License-Identifier: MIT
 * A sysfs, a udev database and udev's messages that are this process's own: namespaces with a
 * tmpfs at /sys and /run, so that the real libsystemd and libudev read and hear them.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"

/* Before any thread is started. false if this host lets nobody do that: skip. */
bool fake_sysfs_enter(void);
/* Nothing is plugged in, udev runs. For the start of each test. */
void fake_sysfs_reset(void);
/* Whether udev seems to run. */
void fake_udev(bool runs);

/* All paths are below /sys/devices. Failures end the test. */
void fake_file(const char *path, const char *name, const void *content, size_t size);
void fake_text(const char *path, const char *name, const char *fmt, ...) _printf_(3, 4);
void fake_link(const char *path, const char *name, const char *target);
void fake_remove(const char *path);

/* A USB host controller: a PCI device, or a platform device. */
void fake_controller(const char *path, const char *subsystem);

struct fake_device {
	const char *path;                            /* "pci0000:00/0000:00:14.0/usb1/1-2" */
	const char *ids;                             /* "046d:c52b:1201" */
	const char *class;                           /* "000000" */
	const char *speed;                           /* NULL: "480" */
	const char *serial, *manufacturer, *product; /* NULL: none */
};

/* Plugs it in: its directory, not udev's knowledge of it. Returns its device number. */
unsigned int fake_plug(const struct fake_device *d);
/* Adds an interface to it: "1-2:1.0", class "080650". driver may be NULL. */
void fake_interface(const char *path, const char *name, const char *class, const char *driver);
/* A port of a hub and the port that is its peer; paths of the hubs' syspaths below /sys/devices. */
void fake_peers(const char *hub, unsigned int port, const char *peer_hub, unsigned int peer_port);
/* udev has seen to the device at path; lines are its database's ("E:ID_BUS=usb\n", may be ""). */
void fake_initialized(const char *path, const char *lines);

/* Says to everybody who listens to udev that action happened. 0 or -errno. */
int fake_event(const char *action, const char *path, const char *devtype);
