/* SPDX-License-Identifier: MIT
 * Every command of devbroker with its arguments, options and help; and the help itself.
 */
#include <stdio.h>
#include <string.h>

#include "broker/cli/cli.h"
#include "build-config.h"

#define HELP_WIDTH 34

/* One entry more or less would lay all of it out anew. */
/* clang-format off */
static const struct cli_command commands[] = {
	{.name = "status",
		.args = "",
		.help = "how devbrokerd is, and what this host weakens",
		.run = cmd_status},
	{.name = "list", .args = "", .help = "every device, where it is and why", .run = cmd_list},
	{.name = "show",
		.args = "DEVICE",
		.n_args = 1,
		.help = "everything that is known of a device",
		.run = cmd_device_show},
	{.name = "attach",
		.args = "DEVICE|IMAGE|URI VM",
		.n_args = 2,
		.help = "lend a device to a VM, now or when the VM comes",
		.options = {{"wait", NULL, "return when the guest has configured it"},
			{"timeout", "SECONDS", "wait at most so long, default 30"},
			{"remember", NULL, "do so again whenever it is plugged in"},
			{"keep-drivers-off", NULL, "the host's drivers don't come back afterwards"},
			{"last-input", NULL, "even if it is the host's last keyboard or pointer"},
			{"read-only", NULL, "the guest can't write what it stores"},
			{"interfaces", "N,N...", "the guest sees only these, as in 0,2"},
			{"allow-firmware", NULL, "the guest may replace its firmware"},
			{"cdrom", NULL, "of an image: the guest sees a CD-ROM drive with it"},
			{"allow-remote", NULL, "of a URI: the NBD server may be on another host"}},
		.run = cmd_attach},
	{.name = "detach",
		.args = "DEVICE",
		.n_args = 1,
		.help = "take a device out of its VM; returns when all is on the disk",
		.options = {{"no-wait", NULL, "return at once"},
			{"timeout", "SECONDS", "wait at most so long, default 90"}},
		.run = cmd_detach},
	{.name = "remembered",
		.args = "",
		.help = "what attach --remember left",
		.run = cmd_remembered},
	{.name = "forget",
		.args = "DEVICE",
		.n_args = 1,
		.help = "don't remember any more where a device goes",
		.run = cmd_forget},
	{.name = "explain",
		.args = "DEVICE",
		.n_args = 1,
		.help = "where rules want a device, and how they came to it",
		.run = cmd_explain},
	{.name = "watch",
		.args = "",
		.help = "what is there, then every change as it comes, until Ctrl-C",
		.run = cmd_watch},
	{.name = "log",
		.args = "",
		.help = "who did what, where, why and when",
		.options = {{"device", "DEVICE", "only of this one, with its full name"},
			{"vm", "VM", "only of this one"},
			{"since", "TIME",
				"as in 10m, 2h, 3d (ago) or 2026-01-31 or \"2026-01-31 12:00\""},
			{"follow", NULL, "go on until Ctrl-C"}},
		.run = cmd_log},
	{.group = "vm",
		.name = "list",
		.args = "",
		.help = "every VM, how it is and what it has",
		.run = cmd_vm_list},
	{.group = "vm",
		.name = "show",
		.args = "VM",
		.n_args = 1,
		.help = "one VM with its quotas and devices",
		.run = cmd_vm_show},
	{.group = "vm",
		.name = "add",
		.args = "NAME",
		.n_args = 1,
		.help = "make a running or future VM known",
		.options = {{"qmp", "PATH", "its QMP socket, for devbroker alone"},
			{"slots", "N", "instead: sockets that its usb-redir devices connect to"},
			{"slot-group", "GROUP", "whose members may connect to them"},
			{"bus", "BUS", "USB controller to plug into, default xhci.0"},
			{"gpu-memory", "SIZE", "give it a GPU, with that much for images"},
			{"gpu-virgl", "MODE", "no, yes or hardware: 3D, too"},
			{"gpu-share", "SHARE", "of GPU time: best-effort, fair:N% or fixed:N%"},
			{"gpu-frame-rate", "N", "frames per second of each display, at most"},
			{"gpu-contexts", "N", "3D contexts, at most"},
			{"gpu-resources", "N", "images, at most"},
			{"owner", "USER,…", "who may attach to it what rules offer to it"},
			{"devices-max", "N", "devices that it may have at once"},
			{"bytes-in-flight-max", "SIZE", "per device, as in 8M"},
			{"transfers-in-flight-max", "N", "per device"}},
		.run = cmd_vm_add},
	{.group = "vm",
		.name = "remove",
		.args = "VM",
		.n_args = 1,
		.help = "forget a VM that has no devices",
		.run = cmd_vm_remove},
	{.group = "disk",
		.name = "list",
		.args = "",
		.help = "every disk image that is known",
		.run = cmd_disk_list},
	{.group = "disk",
		.name = "add",
		.args = "IMAGE|URI",
		.n_args = 1,
		.help = "make a disk image or NBD export known, as a USB stick",
		.options = {{"name", "NAME", "default: the file's name"},
			{"read-only", NULL, "the guest sees a write-protected stick"},
			{"cdrom", NULL, "the guest sees a CD-ROM drive with it"},
			{"allow-remote", NULL, "the NBD server may be on another host"},
			{"speed", "high|super", "USB speed, default super"},
			{"serial", "SERIAL", "default: made from the name"}},
		.run = cmd_disk_add,
		.path = true},
	{.group = "disk",
		.name = "remove",
		.args = "DISK",
		.n_args = 1,
		.help = "forget a disk image that no VM has",
		.run = cmd_disk_remove},
	{.group = "gpu",
		.name = "list",
		.args = "",
		.help = "the GPU of every VM that has one",
		.run = cmd_gpu_list},
	{.group = "gpu",
		.name = "nodes",
		.args = "",
		.help = "the render nodes of this host, and which is for guests",
		.run = cmd_gpu_nodes,
		.offline = true},
	{.group = "gpu",
		.name = "show",
		.args = "VM",
		.n_args = 1,
		.help = "the GPU of one VM",
		.run = cmd_gpu_show},
	{.group = "gpu",
		.name = "screenshot",
		.args = "VM",
		.n_args = 1,
		.help = "what a VM shows, as a PNG file",
		.options = {{"output", "FILE.png", "where to; - is standard output"},
			{"scanout", "N", "which of its displays, default 0"}},
		.letters = "o",
		.run = cmd_gpu_screenshot},
	{.group = "gpu",
		.name = "set-display",
		.args = "VM WxH",
		.n_args = 2,
		.help = "the mode that a guest is told of when it asks the next time, or default",
		.options = {{"scanout", "N", "which of its displays, default 0"}},
		.run = cmd_gpu_set_display},
	{.group = "gpu",
		.name = "allow",
		.args = "VM",
		.n_args = 1,
		.help = "give a VM 3D again, that was taken away because it hung its renderers",
		.run = cmd_gpu_allow},
	{.group = "policy",
		.name = "check",
		.args = "[DIR]",
		.n_args = 1,
		.n_optional = 1,
		.help = "read the rules of a configuration's directory and name the first error",
		.run = cmd_policy_check,
		.path = true,
		.offline = true},
	{.group = "policy",
		.name = "test",
		.args = "DIR",
		.n_args = 1,
		.help = "what these rules would do with a device, and why",
		.options =
			{{"device", "FILE",
				 "its facts, as devbroker show --json prints them; - reads them"},
				{"vms", "VM:STATE,…", "states of VMs, for vm-state="},
				{"was", "FILE",
					"facts of what was at its place just before, for "
					"Follow="},
				{"since-boot", "SECONDS", "default: as its facts say"}},
		.run = cmd_policy_test,
		.path = true,
		.offline = true},
	{.group = "policy",
		.name = "reload",
		.args = "",
		.help = "have devbrokerd read its rules anew",
		.run = cmd_policy_reload},
	{.name = "export",
		.args = "DEVICE",
		.n_args = 1,
		.help = "lend a device to a VMM that connects, as usbredirect does",
		.options = {{"listen", "ADDR", "127.0.0.1:PORT, or a socket's path"},
			{"keep", NULL, "wait for the next client when one has gone"},
			{"keep-drivers-off", NULL, "as in attach"},
			{"last-input", NULL, "as in attach"}, {"read-only", NULL, "as in attach"},
			{"interfaces", "N,N...", "as in attach"},
			{"allow-firmware", NULL, "as in attach"}},
		.run = cmd_export},
	{.name = "capture",
		.args = "DEVICE",
		.n_args = 1,
		.help = "what a lent device and its guest say, until Ctrl-C",
		.options = {{"output", "FILE.pcapng", "for Wireshark; - is standard output"},
			{"headers-only", NULL, "no data"}},
		.letters = "o",
		.run = cmd_capture},
	{.name = "stats",
		.args = "",
		.help = "what devices and VMs did, and what it cost",
		.run = cmd_stats},
	{.name = "top",
		.args = "",
		.help = "the same live; q quits",
		.options = {{"once", NULL, "once, as to a file"},
			{"delay", "SECONDS", "between two looks, default 1"},
			{"order", "ORDER", "name, usb or gpu: the busiest first"}},
		.run = cmd_top},
	{.name = "metrics",
		.args = "",
		.help = "the same for Prometheus",
		.options = {{"output", "FILE", "replaced as a whole, for the node exporter"}},
		.letters = "o",
		.run = cmd_metrics},
	{.group = "quota",
		.name = "show",
		.args = "[VM]",
		.n_args = 1,
		.n_optional = 1,
		.help = "what VMs may use, and what they use",
		.run = cmd_quota_show},
	{.group = "quota",
		.name = "set",
		.args = "VM QUOTA=VALUE",
		.n_args = 2,
		.help = "change a limit while everything runs, as in usb.bandwidth=40M",
		.run = cmd_quota_set},
	{.name = "help",
		.args = "[COMMAND [SUBCOMMAND]]",
		.n_args = 2,
		.n_optional = 2,
		.help = "this, or about one command",
		.run = cmd_help,
		.offline = true},
};
/* clang-format on */

const struct cli_command *const cli_commands = commands;
const size_t cli_n_commands = ARRAY_SIZE(commands);

static void help_line(const char *left, const char *right)
{
	printf("  %-*s %s\n", HELP_WIDTH, left, right);
}

static void help_command(const struct cli_command *cmd)
{
	char left[128];

	snprintf(left, sizeof(left), "%s%s%s%s%s", cmd->group ? cmd->group : "",
		cmd->group ? " " : "", cmd->name, cmd->args[0] ? " " : "", cmd->args);
	help_line(left, cmd->help);
	for (size_t i = 0; i < CLI_OPTIONS_MAX && cmd->options[i].name; i++) {
		const struct cli_option *o = &cmd->options[i];
		const char letter[] = {'-', options_letter(cmd, i), ',', ' ', '\0'};

		snprintf(left, sizeof(left), "    %s--%s%s%s", letter[1] ? letter : "", o->name,
			o->value ? " " : "", o->value ? o->value : "");
		help_line(left, o->help);
	}
}

static void help_globals(void)
{
	printf("\n");
	help_line("--json", "for programs; the schemas are in devbroker(1)");
	help_line("--no-color", "no colours, as with NO_COLOR in the environment");
	help_line("--run-dir DIR", "of devbrokerd, default " DEVBROKER_RUN_DIR);
	help_line("--socket PATH", "default RUN-DIR/bus");
	help_line("--system", "over the system bus: the way for ordinary users");
	help_line("-h, --help", "");
	help_line("-V, --version", "");
	printf("\nDEVICE and VM may be shortened as long as they are unambiguous.\n");
}

static bool matches(const struct cli_command *cmd, const char *first, const char *second)
{
	const char *word = cmd->group ? cmd->group : cmd->name;

	return strcmp(word, first) == 0 &&
	       (!second || (cmd->group && strcmp(cmd->name, second) == 0));
}

int cli_help(const struct cli *c, const char *first, const char *second)
{
	bool any = !first;

	for (size_t i = 0; first && i < cli_n_commands; i++) {
		any |= matches(&commands[i], first, second);
	}
	if (!any) {
		return cli_fail(c, CLI_EXIT_USAGE, "usage",
			"See devbroker --help, or devbroker(1).", "there is no command %s%s%s",
			first, second ? " " : "", second ? second : "");
	}
	printf("Usage: devbroker [--json] [--run-dir DIR | --socket PATH] COMMAND ...\n\n");
	for (size_t i = 0; i < cli_n_commands; i++) {
		if (!first || matches(&commands[i], first, second)) {
			help_command(&commands[i]);
		}
	}
	if (!first) {
		help_globals();
	}
	return 0;
}

int cmd_help(struct cli *c)
{
	return cli_help(c, c->o.args[0], c->o.args[1]);
}
