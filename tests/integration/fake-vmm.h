/* SPDX-License-Identifier: MIT
 * A QMP server that plays a script, well-behaved or not, in a process of its own.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define FAKE_VMM_GREETING                                                                  \
	"{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}, " \
	"\"package\": \"\"}, \"capabilities\": [\"oob\"]}}\r\n"
#define FAKE_VMM_OK      "{\"return\": {}}\r\n"
#define FAKE_VMM_RUNNING "{\"return\": {\"status\": \"running\", \"running\": true}}\r\n"
#define FAKE_VMM_ERROR(desc) \
	"{\"error\": {\"class\": \"GenericError\", \"desc\": \"" desc "\"}}\r\n"

enum fake_vmm_act {
	FAKE_VMM_SAY,      /* writes text */
	FAKE_VMM_TRICKLE,  /* writes text, a byte a write */
	FAKE_VMM_EXPECT,   /* reads a line; it must contain text; an fd that comes along is kept */
	FAKE_VMM_PAUSE,    /* waits for half a second */
	FAKE_VMM_STREAM,   /* writes text to the kept fd; there must be one */
	FAKE_VMM_SILENT,   /* reads and ignores what comes until the peer closes */
	FAKE_VMM_BIG_LINE, /* writes 10 MiB without a newline */
	FAKE_VMM_FLOOD_EVENTS, /* writes events until the peer closes */
	FAKE_VMM_CLOSE,        /* closes the connection, with the kept fd */
};

struct fake_vmm_step {
	enum fake_vmm_act act;
	const char *text;
};

/* How the script ended (the process's exit code). */
enum fake_vmm_end {
	FAKE_VMM_PLAYED = 0,     /* to its end; then the peer closed */
	FAKE_VMM_CLOSED = 1,     /* the peer closed before the end */
	FAKE_VMM_UNEXPECTED = 2, /* a line without the expected text, or no fd; it is on stderr */
	FAKE_VMM_FAILED = 3,     /* by itself */
};

struct fake_vmm {
	pid_t pid;
	int fd; /* client's end of the connection; -1 with a path */
};

/* Plays steps on one end of a socketpair; out->fd, the other end, is the caller's. steps are
 * borrowed until then. 0 or -errno. */
int fake_vmm_start(const struct fake_vmm_step *steps, size_t n, struct fake_vmm *out);
/* Listens at path and plays steps, from the first, to one client after another, until it is
 * stopped. Listens already when it returns. */
int fake_vmm_listen(
	const char *path, const struct fake_vmm_step *steps, size_t n, struct fake_vmm *out);
/* Closes out->fd if it is open and waits for the end of the script. */
enum fake_vmm_end fake_vmm_wait(struct fake_vmm *v);
/* Kills and reaps it. */
void fake_vmm_stop(struct fake_vmm *v);
