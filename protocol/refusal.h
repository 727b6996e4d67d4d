/* SPDX-License-Identifier: MIT
 * Every way in which a request is refused: code, D-Bus error name, sentence, remedy, exit code.
 */
#pragma once

#include <stddef.h>

#include "base/cleanup.h"

/* A positive return value of a function is one of these; negative is -errno, 0 is done. */
enum refusal {
	REFUSAL_NONE = 0,
	REFUSAL_INVALID,       /* an argument is malformed */
	REFUSAL_NOT_FOUND,     /* no such device, VM or disk */
	REFUSAL_AMBIGUOUS,     /* a name that means several things */
	REFUSAL_EXISTS,        /* the name is taken */
	REFUSAL_BUSY,          /* the thing is in use in a way that forbids the request */
	REFUSAL_DENIED,        /* the caller may not */
	REFUSAL_QUOTA,         /* a limit is reached */
	REFUSAL_IMAGE_INVALID, /* not a regular file or block device, empty, not readable, … */
	REFUSAL_IMAGE_BUSY,    /* another process holds the image */
	REFUSAL_NOT_ATTACHED,  /* detach of what no VM has */
	REFUSAL_VM_GONE,       /* the VM is not running */
	REFUSAL_VM_BUSY,       /* its QMP socket is taken by another client */
	REFUSAL_VM_REFUSED,    /* the VMM said no */
	REFUSAL_WORKER,        /* the worker could not be started, or died */
	REFUSAL_TIMEOUT,       /* not done in the time allowed */
	REFUSAL_NOT_SUPPORTED, /* this build or host cannot */
	REFUSAL_CONFIG,        /* the configuration has an error */
	REFUSAL_COUNT_,
};

/* Short code as used in JSON and signals ("not-found"). "unknown" if out of range. */
const char *refusal_code(int refusal);
/* "org.devbroker.Error.NotFound". */
const char *refusal_dbus_name(int refusal);
/* Default sentence and remedy; requests usually give a more exact sentence. */
const char *refusal_sentence(int refusal);
const char *refusal_remedy(int refusal);
/* Exit code of the programs for it (documented in devbroker(1)); 1 if out of range. */
int refusal_exit_code(int refusal);

/* The refusal of a D-Bus error name; REFUSAL_NONE if it is not one of ours. */
int refusal_from_dbus_name(const char *name);

/* What a failing call tells its caller: filled by who decides, printed or sent by who asked.
 * sentence says what and where, remedy says what to do; both are one line, already escaped. */
struct refusal_text {
	char sentence[512];
	char remedy[256];
};

/* Formats t->sentence; sets t->remedy to the default of refusal. t may be NULL. Returns refusal. */
int refuse(struct refusal_text *t, enum refusal refusal, const char *fmt, ...) _printf_(3, 4);
/* As refuse, with a remedy of its own. */
int refuse_with(struct refusal_text *t, enum refusal refusal, const char *remedy, const char *fmt,
	...) _printf_(4, 5);
