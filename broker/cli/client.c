/* SPDX-License-Identifier: MIT
 * The connection to devbrokerd, and errors as people and programs read them.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/fd.h"
#include "broker/cli/cli.h"
#include "build-config.h"

static void print_error(const struct cli *c, int exit_code, const char *code, const char *message,
	const char *remedy)
{
	/* A message may hold what somebody typed: JSON takes nothing but UTF-8. */
	_cleanup_free_ char *shown = text_harmless(message), *hint = text_harmless(remedy);
	FILE *out = c->errors ? c->errors : stderr;

	if (c->o.json) {
		json_t *doc = json_pack("{s:s, s:s, s:s, s:s, s:i}", "schema", "devbroker.error/1",
			"code", code, "message", shown ? shown : "", "remedy", hint ? hint : "",
			"exit_code", exit_code);

		json_dumpf(doc, out, JSON_COMPACT);
		fputc('\n', out);
		json_decref(doc);
		return;
	}
	text_line(out, c->colour_err ? TEXT_BAD : TEXT_PLAIN, "devbroker: %s",
		shown ? shown : "out of memory");
	if (hint && hint[0]) {
		text_line(out, TEXT_PLAIN, "  hint: %s", hint);
	}
}

int cli_fail(const struct cli *c, int exit_code, const char *code, const char *remedy,
	const char *fmt, ...)
{
	char message[768];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(message, sizeof(message), fmt, ap);
	va_end(ap);
	print_error(c, exit_code, code, message, remedy);
	return exit_code;
}

int cli_fail_call(const struct cli *c, int r, const sd_bus_error *error)
{
	int refusal = error && error->name ? refusal_from_dbus_name(error->name) : REFUSAL_NONE;
	const char *message = error && error->message ? error->message : strerror(-r);
	const char *newline = strchr(message, '\n');
	_cleanup_free_ char *sentence = NULL;

	/* The contract's errors are two lines: sentence and remedy. */
	sentence = newline ? strndup(message, (size_t)(newline - message)) : strdup(message);
	if (!sentence) {
		return CLI_EXIT_FAILED;
	}
	if (error && error->name &&
		strcmp(error->name, SD_BUS_ERROR_INTERACTIVE_AUTHORIZATION_REQUIRED) == 0) {
		refusal = REFUSAL_DENIED;
	}
	if (refusal == REFUSAL_NONE) {
		if (error && error->name &&
			(strcmp(error->name, SD_BUS_ERROR_SERVICE_UNKNOWN) == 0 ||
				strcmp(error->name, SD_BUS_ERROR_NAME_HAS_NO_OWNER) == 0)) {
			return cli_fail(c, CLI_EXIT_UNREACHABLE, "unreachable",
				"See whether it runs: systemctl status devbrokerd",
				"devbrokerd is not on the system bus");
		}
		if (r == -ECONNRESET || r == -ENOTCONN || r == -EPIPE) {
			return cli_fail(c, CLI_EXIT_UNREACHABLE, "unreachable",
				"See whether it runs: systemctl status devbrokerd",
				"devbrokerd closed the connection");
		}
		return cli_fail(c, CLI_EXIT_FAILED, "failed", newline ? newline + 1 : "",
			"devbrokerd: %s", sentence);
	}
	return cli_fail(c, refusal_exit_code(refusal), refusal_code(refusal),
		newline ? newline + 1 : refusal_remedy(refusal), "%s", sentence);
}

/* Reasons of leases (devbroker(1)) that have a refusal's exit code. */
static const struct {
	const char *reason;
	enum refusal refusal;
} lease_exits[] = {
	{"vm-gone", REFUSAL_VM_GONE},
	{"vm-busy", REFUSAL_VM_BUSY},
	{"vmm-refused", REFUSAL_VM_REFUSED},
	{"qmp-failed", REFUSAL_VM_REFUSED},
	{"peer-violation", REFUSAL_VM_REFUSED},
	{"worker-died", REFUSAL_WORKER},
	{"worker-hung", REFUSAL_WORKER},
	{"worker-failed", REFUSAL_WORKER},
	{"image-invalid", REFUSAL_IMAGE_INVALID},
	{"image-busy", REFUSAL_IMAGE_BUSY},
	{"io-error", REFUSAL_IMAGE_INVALID},
	{"device-busy", REFUSAL_BUSY},
	{"device-gone", REFUSAL_NOT_FOUND},
	{"device-lost", REFUSAL_WORKER},
	{"denied", REFUSAL_DENIED},
	{"policy", REFUSAL_DENIED},
	{"quota", REFUSAL_QUOTA},
	{"user-detach", REFUSAL_NOT_ATTACHED},
	{"guest-ejected", REFUSAL_NOT_ATTACHED},
	{"vmm-unplugged", REFUSAL_NOT_ATTACHED},
	{"shutdown", REFUSAL_NOT_ATTACHED},
};

int cli_fail_lease(const struct cli *c, const json_t *device)
{
	const char *reason = cli_text(device, "reason"), *detail = cli_text(device, "detail");
	const char *name = cli_text(device, "name");

	for (size_t i = 0; i < ARRAY_SIZE(lease_exits); i++) {
		if (strcmp(lease_exits[i].reason, reason) == 0) {
			enum refusal r = lease_exits[i].refusal;

			return cli_fail(c, refusal_exit_code(r), reason, refusal_remedy(r),
				"%s: %s", name, detail[0] ? detail : reason);
		}
	}
	return cli_fail(c, CLI_EXIT_FAILED, "failed", "See devbroker list.", "%s: %s", name,
		detail[0] ? detail : "it ended");
}

static int fail_connect(const struct cli *c, int error)
{
	if (error == ENOENT || error == ECONNREFUSED) {
		return cli_fail(c, CLI_EXIT_UNREACHABLE, "unreachable",
			"Start it: systemctl start devbrokerd; or name its run directory with "
			"--run-dir.",
			"devbrokerd does not run: nobody answers on %s", c->o.socket);
	}
	if (error == EACCES || error == EPERM) {
		return cli_fail(c, CLI_EXIT_UNREACHABLE, "unreachable",
			"Run it as root or as a member of the group devbroker, or with --system.",
			"you may not connect to %s", c->o.socket);
	}
	return cli_fail(c, CLI_EXIT_UNREACHABLE, "unreachable", "Check --socket and --run-dir.",
		"can't connect to %s: %s", c->o.socket, strerror(error));
}

static int connect_system(struct cli *c)
{
	int r = sd_bus_open_system(&c->bus);

	c->destination = CLI_IFACE_BROKER;
	return r < 0 ? cli_fail(c, CLI_EXIT_UNREACHABLE, "unreachable",
			       "See whether dbus-daemon or dbus-broker runs.",
			       "can't connect to the system bus: %s", strerror(-r))
		     : 0;
}

int cli_connect(struct cli *c)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	_cleanup_close_ int fd = -1;
	int r;

	if (c->o.system) {
		return connect_system(c);
	}
	if (strlen(c->o.socket) >= sizeof(addr.sun_path)) {
		return fail_connect(c, ENAMETOOLONG);
	}
	memcpy(addr.sun_path, c->o.socket, strlen(c->o.socket) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0) {
		r = errno;
		/* The private socket is for administrators; the system bus is everybody's. */
		return r == EACCES && strcmp(c->o.socket, DEVBROKER_RUN_DIR "/bus") == 0
			       ? connect_system(c)
			       : fail_connect(c, r);
	}
	r = fd_set_nonblock(fd, true);
	if (r >= 0) {
		r = sd_bus_new(&c->bus);
	}
	if (r >= 0) {
		r = sd_bus_set_fd(c->bus, fd, fd);
	}
	if (r >= 0) {
		_unused_ int taken = steal_fd(&fd);
		r = sd_bus_negotiate_fds(c->bus, true);
	}
	if (r >= 0) {
		r = sd_bus_start(c->bus);
	}
	return r < 0 ? cli_fail_call(c, r, NULL) : 0;
}
