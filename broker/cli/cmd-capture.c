/* SPDX-License-Identifier: MIT
 *
 * Command capture: what a lent device and its guest say, into a file that Wireshark reads. The
 * worker writes into a pipe that it gave us the other end of, and never waits for us; what we are
 * too slow for is lost there, and it says how much. Its records are checked like anything of a
 * worker's.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "broker/cli/cli.h"
#include "broker/cli/pcapng.h"

#define BUFFER_BYTES (2 * (sizeof(struct capture_record) + CAPTURE_PACKET_MAX))
/* After Ctrl-C: how long nothing may come until that was all, and how often. */
#define QUIET_MS   100
#define LAST_READS 64

struct reader {
	int pipe;
	int signals;
	struct pcapng out;
	uint8_t *buffer;
	size_t used;
	uint64_t submissions, completions;
	const char *ended; /* NULL: it goes on */
	int error;         /* -errno of the file; -EBADMSG: of the worker */
};

/* Takes what is whole. */
static void take_records(struct reader *r)
{
	size_t at = 0;

	while (r->error == 0) {
		struct capture_record record = {0};
		const uint8_t *packet = r->buffer + at + sizeof(record);
		int e = capture_record_decode(r->buffer + at, r->used - at, &record);

		if (e == -EAGAIN) {
			break;
		}
		if (e == 0) {
			e = pcapng_add(&r->out, &record, packet);
		}
		if (e == 0 && record.size > sizeof(record)) {
			uint8_t type = packet[offsetof(struct capture_usb, type)];

			r->submissions += type == 'S';
			r->completions += type == 'C';
		}
		r->error = e;
		at += record.size;
	}
	if (r->error == 0) {
		memmove(r->buffer, r->buffer + at, r->used - at);
		r->used -= at;
	}
}

/* False: nothing is there. */
static bool read_some(struct reader *r)
{
	ssize_t n = read(r->pipe, r->buffer + r->used, BUFFER_BYTES - r->used);

	if (n < 0) {
		if (errno != EAGAIN && errno != EINTR) {
			r->error = -errno;
		}
		return false;
	}
	if (n == 0) {
		r->ended = "device";
		return false;
	}
	r->used += (size_t)n;
	take_records(r);
	return r->error == 0;
}

/* What the worker has said until now, and what it says of what it lost. */
static void read_rest(struct reader *r)
{
	struct pollfd p = {.fd = r->pipe, .events = POLLIN};

	for (int i = 0; i < LAST_READS && poll(&p, 1, QUIET_MS) > 0 && read_some(r); i++) {
	}
	r->ended = "interrupted";
}

static void run(struct reader *r)
{
	struct pollfd fds[] = {
		{.fd = r->pipe, .events = POLLIN},
		{.fd = r->signals, .events = POLLIN},
	};

	while (!r->ended && r->error == 0) {
		if (poll(fds, ARRAY_SIZE(fds), -1) < 0) {
			continue;
		}
		if (fds[1].revents) {
			read_rest(r);
		} else if (read_some(r) && fflush(r->out.file) != 0) {
			/* Wireshark may be at the other end: it sees what comes at once. */
			r->error = -errno;
		}
	}
}

static int watch_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	/* A reader of ours that goes is an error of the file. */
	signal(SIGPIPE, SIG_IGN);
	return signalfd(-1, &set, SFD_CLOEXEC);
}

static FILE *open_file(const char *path)
{
	/* It may hold what somebody types. */
	int fd = strcmp(path, "-") == 0
			 ? fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3)
			 : open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0600);
	FILE *f = fd < 0 ? NULL : fdopen(fd, "w");

	if (!f) {
		safe_close(fd);
	}
	return f;
}

static int ask(struct cli *c, const char *device, int *fd_out)
{
	_cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
	sd_bus_error error = SD_BUS_ERROR_NULL;
	bool headers = cli_value(c, "headers-only");
	int fd = -1;
	int r = sd_bus_message_new_method_call(
		c->bus, &m, c->destination, CLI_PATH_BROKER, CLI_IFACE_BROKER, "Capture");

	if (r >= 0) {
		r = headers ? sd_bus_message_append(m, "sa{sv}", device, 1, "headers-only", "b", 1)
			    : sd_bus_message_append(m, "sa{sv}", device, 0);
	}
	if (r >= 0) {
		r = sd_bus_call(c->bus, m, 0, &error, &reply);
	}
	if (r >= 0) {
		r = sd_bus_message_read(reply, "h", &fd);
	}
	if (r >= 0) {
		*fd_out = fcntl(fd, F_DUPFD_CLOEXEC, 3);
		r = *fd_out < 0 ? -errno : 0;
	}
	r = r < 0 ? cli_fail_call(c, r, &error) : 0;
	sd_bus_error_free(&error);
	return r;
}

static int report(struct cli *c, const struct reader *r, const char *file)
{
	if (c->o.json) {
		return cli_print_json(json_pack("{s:s, s:I, s:I, s:I, s:I, s:s}", "file", file,
					      "packets", (json_int_t)r->out.packets, "submissions",
					      (json_int_t)r->submissions, "completions",
					      (json_int_t)r->completions, "dropped",
					      (json_int_t)r->out.dropped, "ended", r->ended),
			"devbroker.capture/1");
	}
	fprintf(strcmp(file, "-") == 0 ? stderr : stdout,
		"%s: %llu packets (%llu transfers ended), %llu lost%s\n", file,
		(unsigned long long)r->out.packets, (unsigned long long)r->completions,
		(unsigned long long)r->out.dropped,
		strcmp(r->ended, "device") == 0 ? "; the device left its VM" : "");
	return 0;
}

static int capture(struct cli *c, struct reader *r, FILE *f, const char *file)
{
	int e = pcapng_begin(&r->out, f, c->o.args[0]);

	if (e == 0 && fflush(f) != 0) {
		e = -errno;
	}
	r->buffer = e == 0 ? malloc(BUFFER_BYTES) : NULL;
	if (e == 0 && !r->buffer) {
		e = -ENOMEM;
	}
	if (e == 0) {
		run(r);
		e = r->error;
	}
	if (r->out.file && (e == 0 || e == -EBADMSG)) {
		int end = pcapng_end(&r->out);

		e = e < 0 ? e : end;
	}
	free(r->buffer);
	if (e == -EBADMSG) {
		return cli_fail(c, CLI_EXIT_FAILED, "failed", "What came before is in the file.",
			"its worker said something that is no capture");
	}
	return e < 0 ? cli_fail(c, CLI_EXIT_FAILED, "failed", "", "can't write %s: %s", file,
			       strerror(-e))
		     : report(c, r, file);
}

int cmd_capture(struct cli *c)
{
	const char *file = cli_value(c, "output");
	struct reader r = {.pipe = -1, .signals = -1};
	FILE *f;
	int e;

	if (!file || (c->o.json && strcmp(file, "-") == 0)) {
		return cli_fail(c, CLI_EXIT_USAGE, "usage",
			"Use - for standard output, as for wireshark -k -i -; not with --json.",
			"capture needs -o FILE.pcapng");
	}
	e = ask(c, c->o.args[0], &r.pipe);
	if (e != 0) {
		return e;
	}
	r.signals = watch_signals();
	f = open_file(file);
	if (f) {
		e = capture(c, &r, f, file);
		fclose(f);
	} else {
		e = cli_fail(c, CLI_EXIT_FAILED, "failed", "", "can't write %s: %s", file,
			strerror(errno));
	}
	safe_close(r.signals);
	safe_close(r.pipe);
	return e;
}
