/* SPDX-License-Identifier: MIT
 * Commands that change what is known: vm add, vm remove, disk add, disk remove.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/fd.h"
#include "broker/cli/cli.h"
#include "broker/cli/nbd.h"

static int new_call(struct cli *c, const char *member, sd_bus_message **out)
{
	return sd_bus_message_new_method_call(
		c->bus, out, c->destination, CLI_PATH_BROKER, CLI_IFACE_BROKER, member);
}

/* Sends m, and reads the path of the object that was made, if path_out is wanted (to be freed).
 * m is given up. Returns 0 or the exit code. */
static int call(struct cli *c, sd_bus_message *m, char **path_out)
{
	sd_bus_error error = SD_BUS_ERROR_NULL;
	sd_bus_message *reply = NULL;
	const char *path;
	int r = sd_bus_call(c->bus, m, 0, &error, &reply);

	if (r >= 0 && path_out) {
		r = sd_bus_message_read(reply, "o", &path);
		if (r >= 0) {
			*path_out = strdup(path);
			r = *path_out ? 0 : -ENOMEM;
		}
	}
	r = r < 0 ? cli_fail_call(c, r, &error) : 0;
	sd_bus_error_free(&error);
	sd_bus_message_unref(reply);
	sd_bus_message_unref(m);
	return r;
}

static int append_text(sd_bus_message *m, const char *key, const char *value)
{
	return value ? sd_bus_message_append(m, "{sv}", key, "s", value) : 0;
}

static int append_uids(sd_bus_message *m, const char *key, const uint32_t *uids, size_t n)
{
	int r = sd_bus_message_open_container(m, 'e', "sv");

	if (r >= 0) {
		r = sd_bus_message_append(m, "s", key);
	}
	if (r >= 0) {
		r = sd_bus_message_open_container(m, 'v', "au");
	}
	if (r >= 0) {
		r = sd_bus_message_append_array(m, 'u', uids, n * sizeof(*uids));
	}
	if (r >= 0) {
		r = sd_bus_message_close_container(m);
	}
	return r < 0 ? r : sd_bus_message_close_container(m);
}

/* Options that are numbers, with their D-Bus types. */
static const struct {
	const char *name;
	char type;
} limits[] = {
	{"slots", 'u'},
	{"devices-max", 'u'},
	{"bytes-in-flight-max", 't'},
	{"transfers-in-flight-max", 'u'},
	{"gpu-memory", 't'},
	{"gpu-frame-rate", 'u'},
	{"gpu-contexts", 'u'},
	{"gpu-resources", 'u'},
};

/* 0; -errno; -ERANGE with *bad_out if that option is no number, or one that can't be sent. */
static int append_limits(const struct cli *c, sd_bus_message *m, const char **bad_out)
{
	int r = 0;

	for (size_t i = 0; r >= 0 && i < ARRAY_SIZE(limits); i++) {
		const char *value = cli_value(c, limits[i].name);
		bool small = limits[i].type == 'u';
		uint64_t n;

		if (!value) {
			continue;
		}
		if (parse_bytes(value, 0, small ? UINT32_MAX : UINT64_MAX, &n) < 0) {
			*bad_out = limits[i].name;
			return -ERANGE;
		}
		r = small ? sd_bus_message_append(m, "{sv}", limits[i].name, "u", (uint32_t)n)
			  : sd_bus_message_append(m, "{sv}", limits[i].name, "t", n);
	}
	return r;
}

static int print_object(struct cli *c, json_t *object, const char *key, const char *schema)
{
	if (c->o.json) {
		return cli_print_json(json_pack("{s:o}", key, object), schema);
	}
	text_line(stdout, TEXT_PLAIN, "%s%s added", strcmp(key, "vm") == 0 ? "vm " : "",
		cli_text(object, "name"));
	json_decref(object);
	return 0;
}

/* Sockets are the broker's to open: the path must mean the same there. */
static char *absolute(const char *path)
{
	char cwd[PATH_MAX];
	char *out = NULL;

	if (path[0] == '/') {
		return strdup(path);
	}
	if (!getcwd(cwd, sizeof(cwd)) || asprintf(&out, "%s/%s", cwd, path) < 0) {
		return NULL;
	}
	return out;
}

/* --owner USER,…: numbers for the broker, which looks up no names while it runs. 0; -errno; -ERANGE
 * with *bad_out. */
static int append_owners(const struct cli *c, sd_bus_message *m, const char **bad_out)
{
	_cleanup_free_ char *list = strdup(cli_value(c, "owner") ? cli_value(c, "owner") : "");
	uint32_t uids[64];
	size_t n = 0;
	char *save = NULL;

	if (!list) {
		return -ENOMEM;
	}
	for (char *word = strtok_r(list, ", ", &save); word; word = strtok_r(NULL, ", ", &save)) {
		const struct passwd *user;
		uint64_t uid;

		if (parse_u64(word, 0, UINT32_MAX - 1, &uid) < 0) {
			user = getpwnam(word);
			uid = user ? user->pw_uid : UINT64_MAX;
		}
		if (uid == UINT64_MAX || n == ARRAY_SIZE(uids)) {
			*bad_out = "owner";
			return -ERANGE;
		}
		uids[n++] = (uint32_t)uid;
	}
	if (n == 0) {
		return 0;
	}
	return append_uids(m, "owners", uids, n);
}

/* The options of AddVM behind its name. Errors as append_limits. */
static int append_vm_options(
	const struct cli *c, sd_bus_message *m, const char *qmp, const char **bad_out)
{
	int r = sd_bus_message_open_container(m, 'a', "{sv}");

	if (r >= 0) {
		r = append_text(m, "qmp", qmp);
	}
	if (r >= 0) {
		r = append_text(m, "bus", cli_value(c, "bus"));
	}
	if (r >= 0) {
		r = append_text(m, "slot-group", cli_value(c, "slot-group"));
	}
	if (r >= 0) {
		r = append_text(m, "gpu-virgl", cli_value(c, "gpu-virgl"));
	}
	if (r >= 0) {
		r = append_text(m, "gpu-share", cli_value(c, "gpu-share"));
	}
	if (r >= 0) {
		r = append_owners(c, m, bad_out);
	}
	if (r >= 0) {
		r = append_limits(c, m, bad_out);
	}
	return r < 0 ? r : sd_bus_message_close_container(m);
}

int cmd_vm_add(struct cli *c)
{
	const char *qmp = cli_value(c, "qmp"), *bad = NULL;
	_cleanup_free_ char *path = NULL, *object = NULL;
	sd_bus_message *m = NULL;
	json_t *vm;
	int r;

	if (!qmp == !cli_value(c, "slots")) {
		return cli_fail(c, CLI_EXIT_USAGE, "usage",
			"Start the VM with -qmp unix:PATH,server=on,wait=off and give that PATH; "
			"or give a number of slots for its usb-redir devices.",
			"vm add needs either --qmp PATH or --slots N");
	}
	path = qmp ? absolute(qmp) : NULL;
	if (path && !text_is_utf8(path)) {
		return cli_fail(c, CLI_EXIT_USAGE, "usage", "Give it a path that is UTF-8.",
			"the path of the QMP socket is not UTF-8: %s", path);
	}
	r = path || !qmp ? new_call(c, "AddVM", &m) : -ENOMEM;
	if (r >= 0) {
		r = sd_bus_message_append(m, "s", c->o.args[0]);
	}
	if (r >= 0) {
		r = append_vm_options(c, m, path, &bad);
	}
	if (r < 0) {
		sd_bus_message_unref(m);
		if (bad && strcmp(bad, "owner") == 0) {
			return cli_fail(c, CLI_EXIT_USAGE, "usage", "A number needs no user.",
				"--owner takes names of users or their numbers, at most 64");
		}
		return bad ? cli_fail(c, CLI_EXIT_USAGE, "usage", "",
				     "--%s takes a number, or a size as in 8M", bad)
			   : cli_fail_call(c, r, NULL);
	}
	r = call(c, m, &object);
	if (r == 0) {
		r = cli_properties(c, object, CLI_IFACE_VM, &vm, NULL);
	}
	return r == 0 ? print_object(c, vm, "vm", "devbroker.vm-add/1") : r;
}

static int remove_thing(struct cli *c, const char *member, const char *schema)
{
	sd_bus_message *m = NULL;
	int r = new_call(c, member, &m);

	if (r >= 0) {
		r = sd_bus_message_append(m, "s", c->o.args[0]);
	}
	r = r < 0 ? cli_fail_call(c, r, NULL) : call(c, m, NULL);
	if (r != 0) {
		return r;
	}
	if (c->o.json) {
		return cli_print_json(json_pack("{s:s}", "removed", c->o.args[0]), schema);
	}
	text_line(stdout, TEXT_PLAIN, "%s removed", c->o.args[0]);
	return 0;
}

int cmd_vm_remove(struct cli *c)
{
	return remove_thing(c, "RemoveVM", "devbroker.vm-remove/1");
}

int cmd_disk_remove(struct cli *c)
{
	return remove_thing(c, "RemoveDisk", "devbroker.disk-remove/1");
}

/* The image's file name without its suffix, made into a name that the broker takes. */
static void name_from_path(const char *path, char *out, size_t size)
{
	const char *base = strrchr(path, '/');
	size_t n = 0;

	base = base ? base + 1 : path;
	for (const char *p = base; *p && n + 1 < size; p++) {
		bool letter = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
			      (*p >= '0' && *p <= '9');

		if (*p == '.' && !strchr(p + 1, '.') && n > 0) {
			break;
		}
		if (letter || (n > 0 && strchr("._-", *p))) {
			out[n++] = *p;
		} else if (n > 0) {
			out[n++] = '-';
		}
	}
	out[n] = '\0';
}

/* The caller's rights decide: the broker gets the open file. 0 with the fd, or the exit code. */
static int open_image(const struct cli *c, const char *path, bool read_only, int *fd_out)
{
	const int exit_code = refusal_exit_code(REFUSAL_IMAGE_INVALID);
	struct stat st;
	int fd;

	if (stat(path, &st) < 0) {
		return cli_fail(c, exit_code, "image-invalid", "Check the path of the image.",
			"%s: %s", path, strerror(errno));
	}
	if (S_ISDIR(st.st_mode)) {
		return cli_fail(c, exit_code, "image-invalid",
			"Give a disk image: a regular file or a block device.", "%s is a directory",
			path);
	}
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
		return cli_fail(c, exit_code, "image-invalid",
			"Give a disk image: a regular file or a block device.",
			"%s is neither a regular file nor a block device", path);
	}
	fd = open(path, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0) {
		return cli_fail(c, exit_code, "image-invalid",
			read_only ? "Check its permissions."
				  : "Check its permissions, or add --read-only.",
			"can't open %s for %s: %s", path, read_only ? "reading" : "writing",
			strerror(errno));
	}
	*fd_out = fd;
	return 0;
}

/* What it was called; may be NULL: out of memory. */
static char *shown_path(const char *image, bool uri)
{
	_cleanup_free_ char *path = uri ? strdup(image) : absolute(image);

	/* Only shown; D-Bus takes nothing but UTF-8. */
	return path ? text_harmless(path) : NULL;
}

/* The image's fd, or a connection to its server, and a name if none was given. */
static int open_disk(
	struct cli *c, bool read_only, struct cli_nbd *nbd, char *made, size_t size, int *fd_out)
{
	const char *image = c->o.args[0];
	int r;

	if (!cli_nbd_is_uri(image)) {
		name_from_path(image, made, size);
		return open_image(c, image, read_only, fd_out);
	}
	r = cli_nbd_parse(c, image, nbd);
	if (r != 0) {
		return r;
	}
	name_from_path(nbd->export[0] ? nbd->export : nbd->where, made, size);
	return cli_nbd_connect(c, nbd, cli_value(c, "allow-remote"), fd_out);
}

int cli_add_disk(struct cli *c, char **object_out)
{
	_cleanup_close_ int fd = -1;
	_cleanup_free_ char *shown = NULL;
	bool cdrom = cli_value(c, "cdrom"), read_only = cdrom || cli_value(c, "read-only");
	bool uri = cli_nbd_is_uri(c->o.args[0]);
	const char *name = cli_value(c, "name");
	struct cli_nbd nbd = {0};
	sd_bus_message *m = NULL;
	char made[64];
	int r = open_disk(c, read_only, &nbd, made, sizeof(made), &fd);

	if (r != 0) {
		return r;
	}
	name = name ? name : made;
	r = new_call(c, "AddDisk", &m);
	if (r >= 0) {
		r = sd_bus_message_append(m, "sh", name, fd);
	}
	if (r >= 0) {
		r = sd_bus_message_open_container(m, 'a', "{sv}");
	}
	if (r >= 0) {
		r = sd_bus_message_append(m, "{sv}", "read-only", "b", read_only);
	}
	if (r >= 0) {
		r = sd_bus_message_append(m, "{sv}", "cdrom", "b", cdrom);
	}
	if (r >= 0) {
		r = append_text(m, "speed", cli_value(c, "speed"));
	}
	if (r >= 0) {
		r = append_text(m, "serial", cli_value(c, "serial"));
	}
	if (r >= 0) {
		shown = shown_path(c->o.args[0], uri);
		r = append_text(m, "path", shown);
	}
	if (r >= 0 && uri) {
		r = sd_bus_message_append(m, "{sv}", "export", "s", nbd.export);
	}
	if (r >= 0) {
		r = sd_bus_message_close_container(m);
	}
	if (r < 0) {
		sd_bus_message_unref(m);
		return cli_fail_call(c, r, NULL);
	}
	return call(c, m, object_out);
}

int cmd_disk_add(struct cli *c)
{
	_cleanup_free_ char *object = NULL;
	json_t *device;
	int r = cli_add_disk(c, &object);

	if (r == 0) {
		r = cli_properties(c, object, CLI_IFACE_DEVICE, &device, NULL);
	}
	return r == 0 ? print_object(c, device, "device", "devbroker.disk-add/1") : r;
}
