/* SPDX-License-Identifier: MIT
 *
 * Two rings: what was refused, which users can make happen as often as their quota lets them, can't
 * push out what happened. Both are filled in the order of seq, so that a record is found by
 * bisection.
 *
 * The file is appended to, a line with a single write each, and begun anew when it has FILE_MAX
 * bytes; the one before it stays as log.1. A broker that is killed leaves whole lines; after a
 * power cut the last ones may be missing, and a line that was torn is skipped. Fields are separated
 * by tabs, which no text has, because control characters are escaped.
 */
#include "broker/audit.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SD_JOURNAL_SUPPRESS_LOCATION
#include <systemd/sd-journal.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/utf8.h"

#define RING_SIZE  1024
#define FILE_MAX   (1 << 20)
#define LINE_MAX_  2048
#define TEXT_MAX   400
#define WORD_MAX   128
#define MESSAGE_ID "2f0a5f2d1d3f4a7fb3e5f2b0d0c64a1e"

struct ring {
	struct audit_record records[RING_SIZE];
	uint64_t n; /* ever put in; the last RING_SIZE are there */
};

struct audit {
	struct ring happened;
	struct ring refused;
	uint64_t seq; /* of the last one */
	int dir_fd;   /* -1: nothing is written */
	int fd;       /* "log", -1: the same */
	uint64_t size;
	void (*noted)(void *userdata, uint64_t seq);
	void *userdata;
};

static const char *const action_names[] = {
	[AUDIT_ATTACH] = "attach",
	[AUDIT_DETACH] = "detach",
	[AUDIT_END] = "end",
	[AUDIT_DECIDED] = "decided",
	[AUDIT_REFUSED] = "refused",
	[AUDIT_QUOTA] = "quota",
	[AUDIT_POLICY] = "policy",
	[AUDIT_CHANGE] = "change",
};
static_assert(ARRAY_SIZE(action_names) == AUDIT_ACTION_COUNT_, "one per action");

const char *audit_action_name(enum audit_action action)
{
	return action_names[action];
}

static void record_finish(struct audit_record *r)
{
	free(r->device);
	free(r->vm);
	free(r->rule);
	free(r->reason);
	free(r->text);
	*r = (struct audit_record){0};
}

/* Takes r. */
static void keep(struct audit *a, const struct audit_record *r)
{
	bool refusal = r->action == AUDIT_REFUSED || r->action == AUDIT_QUOTA;
	struct ring *ring = refusal ? &a->refused : &a->happened;
	struct audit_record *slot = &ring->records[ring->n++ % RING_SIZE];

	record_finish(slot);
	*slot = *r;
	a->seq = r->seq;
}

static char *copy(const char *text, size_t max)
{
	return utf8_escape(text ? text : "", max);
}

static bool record_complete(const struct audit_record *r)
{
	return r->device && r->vm && r->rule && r->reason && r->text;
}

/* One line of the file. False if it is none. */
static bool parse_line(char *line, uint64_t after, struct audit_record *out)
{
	char *fields[9] = {0};
	uint64_t uid;
	size_t n = 0;

	for (char *p = line; n < ARRAY_SIZE(fields) && p; n++) {
		fields[n] = strsep(&p, "\t");
		if (n + 1 == ARRAY_SIZE(fields) && p) {
			return false;
		}
	}
	if (n < ARRAY_SIZE(fields) ||
		parse_u64(fields[0], after + 1, UINT64_MAX - 1, &out->seq) < 0 ||
		parse_u64(fields[1], 0, UINT64_MAX, &out->time) < 0 ||
		parse_u64(fields[2], 0, UINT32_MAX, &uid) < 0) {
		return false;
	}
	for (n = 0; n < AUDIT_ACTION_COUNT_ && strcmp(action_names[n], fields[3]) != 0; n++) {
	}
	if (n == AUDIT_ACTION_COUNT_) {
		return false;
	}
	out->uid = (uid_t)uid;
	out->action = (enum audit_action)n;
	out->device = copy(fields[4], WORD_MAX);
	out->vm = copy(fields[5], WORD_MAX);
	out->rule = copy(fields[6], WORD_MAX);
	out->reason = copy(fields[7], WORD_MAX);
	out->text = copy(fields[8], TEXT_MAX);
	return true;
}

static void load(struct audit *a, const char *name)
{
	int fd = openat(a->dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	FILE *f = fd >= 0 ? fdopen(fd, "r") : NULL;
	char line[LINE_MAX_];
	bool whole = true;

	if (!f) {
		safe_close(fd);
		return;
	}
	while (fgets(line, sizeof(line), f)) {
		size_t n = strlen(line);
		bool ends = n > 0 && line[n - 1] == '\n', begins = whole;
		struct audit_record r = {0};

		whole = ends;
		if (!ends || !begins) {
			continue;
		}
		line[n - 1] = '\0';
		if (parse_line(line, a->seq, &r) && record_complete(&r)) {
			keep(a, &r);
		} else {
			record_finish(&r);
		}
	}
	fclose(f);
}

static int open_file(struct audit *a)
{
	struct stat st;
	int fd = openat(a->dir_fd, "log",
		O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);

	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		int r = fd < 0 || errno ? -errno : -EINVAL;

		safe_close(fd);
		return r;
	}
	a->fd = fd;
	a->size = (uint64_t)st.st_size;
	return 0;
}

static void give_up(struct audit *a, int r)
{
	log_warn("log: can't be written, and is kept in memory only: %s", strerror(-r));
	a->fd = safe_close(a->fd);
	a->dir_fd = safe_close(a->dir_fd);
}

/* What a power cut tore is ended, so that the next line is one. */
static void end_torn_line(struct audit *a)
{
	int fd = openat(a->dir_fd, "log", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	char last = '\n';

	if (a->size > 0 && fd >= 0 && pread(fd, &last, 1, (off_t)a->size - 1) == 1 &&
		last != '\n' && write(a->fd, "\n", 1) == 1) {
		a->size++;
	}
	safe_close(fd);
}

static void begin_file(struct audit *a)
{
	int r;

	a->fd = safe_close(a->fd);
	r = renameat(a->dir_fd, "log", a->dir_fd, "log.1") < 0 ? -errno : open_file(a);
	if (r < 0) {
		give_up(a, r);
	}
}

static void write_down(struct audit *a, const struct audit_record *r)
{
	char line[LINE_MAX_];
	int n;

	if (a->fd < 0) {
		return;
	}
	n = snprintf(line, sizeof(line), "%" PRIu64 "\t%" PRIu64 "\t%u\t%s\t%s\t%s\t%s\t%s\t%s\n",
		r->seq, r->time, (unsigned int)r->uid, action_names[r->action], r->device, r->vm,
		r->rule, r->reason, r->text);
	static_assert(LINE_MAX_ > 4 * WORD_MAX + TEXT_MAX + 128, "a record fits");
	if (n < 0 || (size_t)n >= sizeof(line)) {
		return;
	}
	if (a->size + (size_t)n > FILE_MAX) {
		begin_file(a);
	}
	if (a->fd >= 0 && write(a->fd, line, (size_t)n) == n) {
		a->size += (size_t)n;
	} else if (a->fd >= 0) {
		give_up(a, errno ? -errno : -ENOSPC);
	}
}

/* A host without a journal is none of our errors. */
static void tell_journal(const struct audit_record *r)
{
	char uid[24] = "";

	if (r->uid != AUDIT_NOBODY) {
		snprintf(uid, sizeof(uid), "%u", (unsigned int)r->uid);
	}
	_unused_ int sent = sd_journal_send("MESSAGE=%s: %s%s%s%s%s%s", action_names[r->action],
		r->device, r->device[0] ? " " : "", r->vm[0] ? "vm " : "", r->vm,
		r->device[0] || r->vm[0] ? ": " : "", r->text, "MESSAGE_ID=" MESSAGE_ID,
		"PRIORITY=%d", r->action == AUDIT_REFUSED || r->action == AUDIT_QUOTA ? 5 : 6,
		"SYSLOG_IDENTIFIER=devbrokerd", "DEVBROKER_ACTION=%s", action_names[r->action],
		"DEVBROKER_UID=%s", uid, "DEVBROKER_DEVICE=%s", r->device, "DEVBROKER_VM=%s", r->vm,
		"DEVBROKER_RULE=%s", r->rule, "DEVBROKER_REASON=%s", r->reason, NULL);
}

void audit_note(struct audit *a, const struct audit_event *e)
{
	struct audit_record r;

	if (!a) {
		return;
	}
	r = (struct audit_record){
		.seq = a->seq + 1,
		.time = wall_usec(),
		.uid = e->uid,
		.action = e->action,
		.device = copy(e->device, WORD_MAX),
		.vm = copy(e->vm, WORD_MAX),
		.rule = copy(e->rule, WORD_MAX),
		.reason = copy(e->reason, WORD_MAX),
		.text = copy(e->text, TEXT_MAX),
	};
	if (!record_complete(&r)) {
		record_finish(&r);
		log_error("log: out of memory");
		return;
	}
	write_down(a, &r);
	tell_journal(&r);
	keep(a, &r);
	if (a->noted) {
		a->noted(a->userdata, r.seq);
	}
}

/* The oldest in ring above after, or NULL. */
static const struct audit_record *ring_next(const struct ring *ring, uint64_t after)
{
	uint64_t low = ring->n > RING_SIZE ? ring->n - RING_SIZE : 0, high = ring->n;

	while (low < high) {
		uint64_t middle = low + (high - low) / 2;

		if (ring->records[middle % RING_SIZE].seq > after) {
			high = middle;
		} else {
			low = middle + 1;
		}
	}
	return low < ring->n ? &ring->records[low % RING_SIZE] : NULL;
}

const struct audit_record *audit_next(const struct audit *a, uint64_t after)
{
	const struct audit_record *h = ring_next(&a->happened, after);
	const struct audit_record *r = ring_next(&a->refused, after);

	return !h || (r && r->seq < h->seq) ? r : h;
}

int audit_create(const char *state_dir, void (*noted)(void *userdata, uint64_t seq), void *userdata,
	struct audit **out)
{
	struct audit *a = calloc(1, sizeof(*a));
	int r;

	if (!a) {
		return -ENOMEM;
	}
	a->fd = -1;
	a->noted = noted;
	a->userdata = userdata;
	a->dir_fd = open(state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (a->dir_fd < 0) {
		give_up(a, -errno);
	} else {
		load(a, "log.1");
		load(a, "log");
		r = open_file(a);
		if (r < 0) {
			give_up(a, r);
		} else {
			end_torn_line(a);
		}
	}
	*out = a;
	return 0;
}

void audit_destroy(struct audit *a)
{
	if (!a) {
		return;
	}
	for (size_t i = 0; i < RING_SIZE; i++) {
		record_finish(&a->happened.records[i]);
		record_finish(&a->refused.records[i]);
	}
	safe_close(a->fd);
	safe_close(a->dir_fd);
	free(a);
}
