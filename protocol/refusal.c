/* SPDX-License-Identifier: MIT */
#include "protocol/refusal.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define ERROR_PREFIX "org.devbroker.Error."

struct entry {
	const char *code;
	const char *dbus;
	const char *sentence;
	const char *remedy;
	int exit_code;
};

/* Exit codes 0-3 belong to the programs: done, failed, usage, broker not reachable. */
static const struct entry table[] = {
	[REFUSAL_NONE] = {"none", ERROR_PREFIX "None", "Nothing was refused.", "", 0},
	[REFUSAL_INVALID] = {"invalid", ERROR_PREFIX "Invalid", "An argument is malformed.",
		"See the manual page for the form that is expected.", 4},
	[REFUSAL_NOT_FOUND] = {"not-found", ERROR_PREFIX "NotFound", "There is no such thing.",
		"See what there is with: devbroker list; devbroker vm list", 5},
	[REFUSAL_AMBIGUOUS] = {"ambiguous", ERROR_PREFIX "Ambiguous",
		"That name means several things.", "Give the full name of one of the candidates.",
		6},
	[REFUSAL_EXISTS] = {"exists", ERROR_PREFIX "Exists", "That name is taken.",
		"Choose another name, or remove the old one first.", 7},
	[REFUSAL_BUSY] = {"busy", ERROR_PREFIX "Busy", "It is in use.",
		"Detach it first: devbroker detach DEVICE", 8},
	[REFUSAL_DENIED] = {"denied", ERROR_PREFIX "Denied", "You may not do this.",
		"Run it as root or as a member of the group devbroker.", 9},
	[REFUSAL_QUOTA] = {"quota", ERROR_PREFIX "Quota", "A limit is reached.",
		"Release something, or raise the limit in the [quota] section.", 10},
	[REFUSAL_IMAGE_INVALID] = {"image-invalid", ERROR_PREFIX "ImageInvalid",
		"That is not a usable disk image.",
		"Give a regular file or a block device that you can read and write, or add "
		"--read-only.",
		11},
	[REFUSAL_IMAGE_BUSY] = {"image-busy", ERROR_PREFIX "ImageBusy", "The image is in use.",
		"Stop the program that holds it, or use a copy of the image.", 12},
	[REFUSAL_NOT_ATTACHED] = {"not-attached", ERROR_PREFIX "NotAttached",
		"No VM has that device.", "See what is attached with: devbroker list", 13},
	[REFUSAL_VM_GONE] = {"vm-gone", ERROR_PREFIX "VmGone", "The VM is not running.",
		"Start the VM; the device follows by itself.", 14},
	[REFUSAL_VM_BUSY] = {"vm-busy", ERROR_PREFIX "VmBusy",
		"The VM's QMP socket is in use by another program.",
		"Give devbroker a QMP socket of its own: -qmp unix:PATH,server=on,wait=off", 15},
	[REFUSAL_VM_REFUSED] = {"vm-refused", ERROR_PREFIX "VmRefused", "The VMM refused.",
		"Check the bus= of the VM and that its controller has a free port.", 16},
	[REFUSAL_WORKER] = {"worker-failed", ERROR_PREFIX "WorkerFailed",
		"The worker of that device failed.",
		"Look at the log: journalctl -u devbrokerd; see devbroker status.", 17},
	[REFUSAL_TIMEOUT] = {"timeout", ERROR_PREFIX "Timeout", "It took too long.",
		"See how far it came with: devbroker list", 18},
	[REFUSAL_NOT_SUPPORTED] = {"not-supported", ERROR_PREFIX "NotSupported",
		"This is not supported here.", "See devbroker status for what this host lacks.",
		19},
	[REFUSAL_CONFIG] = {"config", ERROR_PREFIX "Config", "The configuration has an error.",
		"Correct the line that is named and start devbrokerd again.", 20},
};

static_assert(ARRAY_SIZE(table) == REFUSAL_COUNT_, "one entry per refusal");

static const struct entry *entry_of(int refusal)
{
	return refusal >= 0 && refusal < REFUSAL_COUNT_ ? &table[refusal] : NULL;
}

const char *refusal_code(int refusal)
{
	const struct entry *e = entry_of(refusal);

	return e ? e->code : "unknown";
}

const char *refusal_dbus_name(int refusal)
{
	const struct entry *e = entry_of(refusal);

	return e ? e->dbus : ERROR_PREFIX "Failed";
}

const char *refusal_sentence(int refusal)
{
	const struct entry *e = entry_of(refusal);

	return e ? e->sentence : "It failed.";
}

const char *refusal_remedy(int refusal)
{
	const struct entry *e = entry_of(refusal);

	return e ? e->remedy : "";
}

int refusal_exit_code(int refusal)
{
	const struct entry *e = entry_of(refusal);

	return e ? e->exit_code : 1;
}

int refusal_from_dbus_name(const char *name)
{
	for (int i = 1; i < REFUSAL_COUNT_; i++) {
		if (strcmp(table[i].dbus, name) == 0) {
			return i;
		}
	}
	return REFUSAL_NONE;
}

static _printf_(3, 0) void fill(
	struct refusal_text *t, const char *remedy, const char *fmt, va_list ap)
{
	if (!t) {
		return;
	}
	vsnprintf(t->sentence, sizeof(t->sentence), fmt, ap);
	snprintf(t->remedy, sizeof(t->remedy), "%s", remedy);
}

int refuse(struct refusal_text *t, enum refusal refusal, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fill(t, refusal_remedy(refusal), fmt, ap);
	va_end(ap);
	return refusal;
}

int refuse_with(
	struct refusal_text *t, enum refusal refusal, const char *remedy, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fill(t, remedy, fmt, ap);
	va_end(ap);
	return refusal;
}
