/* SPDX-License-Identifier: MIT
 * Every command of devbroker with its arguments, options and help.
 */
#include "broker/cli/cli.h"

const struct cli_command cli_commands[] = {
	{NULL, "status", "", 0, "how devbrokerd is, and what this host weakens", {{0}}, cmd_status},
	{NULL, "list", "", 0, "every device, where it is and why", {{0}}, cmd_list},
	{NULL, "attach", "DEVICE VM", 2, "lend a device to a VM, now or when the VM comes",
		{{"wait", NULL, "return when the guest has configured it"},
			{"timeout", "SECONDS", "how long --wait waits, default 30"}},
		cmd_attach},
	{NULL, "detach", "DEVICE", 1,
		"take a device out of its VM; returns when all is on the disk",
		{{"no-wait", NULL, "return at once"},
			{"timeout", "SECONDS", "how long to wait, default 90"}},
		cmd_detach},
	{NULL, "watch", "", 0, "print every change as it comes, until Ctrl-C", {{0}}, cmd_watch},
	{"vm", "list", "", 0, "every VM, how it is and what it has", {{0}}, cmd_vm_list},
	{"vm", "show", "VM", 1, "one VM with its quotas and devices", {{0}}, cmd_vm_show},
	{"vm", "add", "NAME", 1, "make a running or future VM known",
		{{"qmp", "PATH", "its QMP socket, for devbroker alone"},
			{"bus", "BUS", "USB controller to plug into, default xhci.0"},
			{"devices-max", "N", "devices that it may have at once"},
			{"bytes-in-flight-max", "SIZE", "per device, as in 8M"},
			{"transfers-in-flight-max", "N", "per device"}},
		cmd_vm_add},
	{"vm", "remove", "VM", 1, "forget a VM that has no devices", {{0}}, cmd_vm_remove},
	{"disk", "list", "", 0, "every disk image that is known", {{0}}, cmd_disk_list},
	{"disk", "add", "IMAGE", 1, "make a disk image known, as a USB stick",
		{{"name", "NAME", "default: the file's name"},
			{"read-only", NULL, "the guest sees a write-protected stick"},
			{"speed", "high|super", "USB speed, default super"},
			{"serial", "SERIAL", "default: made from the name"}},
		cmd_disk_add},
	{"disk", "remove", "DISK", 1, "forget a disk image that no VM has", {{0}}, cmd_disk_remove},
};

const size_t cli_n_commands = ARRAY_SIZE(cli_commands);
