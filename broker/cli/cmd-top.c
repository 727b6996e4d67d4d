/* SPDX-License-Identifier: MIT
 * top: what VMs and devices do, now. Without a terminal, or with --once, it is said once.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/fd.h"
#include "broker/cli/cli.h"
#include "broker/cli/rates.h"
#include "broker/cli/table.h"

#define DELAY_MAX_S 3600
#define MB          1e6

static void cell(struct table *t, const char *fmt, ...) _printf_(2, 3);

static void cell(struct table *t, const char *fmt, ...)
{
	char text[48];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	table_cell(t, text);
}

static void gpu_cells(struct table *t, const json_t *gpu, const json_t *before)
{
	double fps = rates_gpu(gpu, before, "frames"), wait;

	if (!gpu) {
		for (int i = 0; i < 8; i++) {
			table_cell(t, "");
		}
		return;
	}
	cell(t, "%.0f %%", (double)cli_number(gpu, "time_permille") / 10);
	table_cell(t, cli_text(gpu, "time_from"));
	table_cell(t, cli_text(gpu, "share"));
	wait = rates_gpu(gpu, before, "waited_usec");
	if (wait >= 0) {
		cell(t, "%.0f %%", wait / 1e4);
	} else {
		table_cell(t, "");
	}
	table_cell_bytes(t, cli_number(gpu, "memory_bytes"));
	if (fps >= 0) {
		cell(t, "%.1f", fps);
	} else {
		table_cell(t, "");
	}
	cell(t, "%" PRIu64, cli_number(gpu, "contexts"));
	cell(t, "%" PRIu64, cli_number(gpu, "refused"));
}

static struct table *vms_table(const struct cli_all *all, const struct cli_all *before)
{
	static const char *const columns[] = {"VM", "STATE", "DEVICES", "USB MB/s", "TRANSFERS/s",
		"GPU TIME", "FROM", "SHARE", "WAITED", "GPU MEMORY", "FPS", "CONTEXTS", "REFUSED"};
	struct table *t = table_create(columns, ARRAY_SIZE(columns));
	const json_t *vm, *s;
	size_t i;

	json_array_foreach(all->vms, i, vm)
	{
		const char *name = cli_text(vm, "name");

		if (!t) {
			break;
		}
		s = json_object_get(vm, "statistics");
		table_cell(t, name);
		table_cell_style(t, cli_text(vm, "state"), cli_state_style(cli_text(vm, "state")));
		cell(t, "%zu", json_array_size(json_object_get(vm, "devices")));
		cell(t, "%.1f", (double)cli_number(s, "bytes-per-second") / MB);
		cell(t, "%" PRIu64, cli_number(s, "transfers-per-second"));
		gpu_cells(
			t, rates_find(all->gpus, "vm", name), rates_find(before->gpus, "vm", name));
	}
	return t;
}

static struct table *devices_table(const struct cli_all *all, const struct cli_all *before)
{
	static const char *const columns[] = {"DEVICE", "VM", "IN MB/s", "OUT MB/s", "TRANSFERS/s",
		"P50", "P99", "IN FLIGHT", "ERRORS", "REFUSED"};
	struct table *t = table_create(columns, ARRAY_SIZE(columns));
	const json_t *d, *s, *latency, *was;
	size_t i;

	json_array_foreach(all->devices, i, d)
	{
		latency = json_object_get(d, "latency");
		if (!t || json_array_size(latency) == 0) {
			continue;
		}
		s = json_object_get(d, "statistics");
		was = json_object_get(
			rates_find(before->devices, "name", cli_text(d, "name")), "latency");
		table_cell(t, cli_text(d, "name"));
		table_cell(t, cli_text(d, "vm"));
		cell(t, "%.1f", (double)cli_number(s, "bytes-in-per-second") / MB);
		cell(t, "%.1f", (double)cli_number(s, "bytes-out-per-second") / MB);
		cell(t, "%" PRIu64, cli_number(s, "transfers-per-second"));
		for (unsigned int p = 500; p <= 990; p += 490) {
			uint64_t us = rates_latency(latency, was, p);

			if (us > 0) {
				cell(t, "<%" PRIu64 " us", us);
			} else {
				table_cell(t, "");
			}
		}
		cell(t, "%" PRIu64, cli_number(s, "in-flight"));
		cell(t, "%" PRIu64, cli_number(s, "errors"));
		cell(t, "%" PRIu64, cli_number(s, "refused"));
	}
	return t;
}

static void print(FILE *f, const struct cli *c, const struct cli_all *all,
	const struct cli_all *before, size_t width)
{
	_cleanup_(table_destroyp) struct table *vms = vms_table(all, before);
	_cleanup_(table_destroyp) struct table *devices = devices_table(all, before);

	if (vms && devices) {
		table_print(vms, f, width, c->colour_out);
		fputc('\n', f);
		table_print(devices, f, width, c->colour_out);
	}
}

/* As many lines of text as there is room for, each cleared behind its end. */
static void draw(const struct cli *c, const struct cli_all *all, const struct cli_all *before)
{
	struct winsize w = {.ws_row = 24, .ws_col = 80};
	_cleanup_free_ char *text = NULL;
	size_t size = 0;
	FILE *f = open_memstream(&text, &size);
	int row = 1;
	char clock[16];
	time_t now = time(NULL);
	struct tm tm;

	if (!f) {
		return;
	}
	_unused_ int r = ioctl(STDOUT_FILENO, TIOCGWINSZ, &w);
	print(f, c, all, before, w.ws_col);
	fclose(f);
	localtime_r(&now, &tm);
	strftime(clock, sizeof(clock), "%H:%M:%S", &tm);
	fputs("\033[H", stdout);
	printf("devbroker top  %s  %zu VMs  q quits\033[K", clock, json_array_size(all->vms));
	for (char *line = text; line && *line && row + 1 < w.ws_row; row++) {
		char *end = strchr(line, '\n');

		printf("\r\n%.*s\033[K", end ? (int)(end - line) : (int)strlen(line), line);
		line = end ? end + 1 : NULL;
	}
	fputs("\033[J", stdout);
	fflush(stdout);
}

struct screen {
	struct termios before;
	bool raw;
	int signals;
};

static int screen_open(struct screen *s)
{
	struct termios t;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGWINCH);
	sigprocmask(SIG_BLOCK, &set, NULL);
	s->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (s->signals < 0) {
		return -errno;
	}
	if (tcgetattr(STDIN_FILENO, &s->before) == 0) {
		t = s->before;
		t.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
		s->raw = tcsetattr(STDIN_FILENO, TCSANOW, &t) == 0;
	}
	/* The other screen, without a cursor. */
	fputs("\033[?1049h\033[?25l", stdout);
	return 0;
}

static void screen_close(struct screen *s)
{
	fputs("\033[?25h\033[?1049l", stdout);
	fflush(stdout);
	if (s->raw) {
		tcsetattr(STDIN_FILENO, TCSANOW, &s->before);
	}
	safe_close(s->signals);
}

/* What was typed or sent. True: it is over. */
static bool take_input(const struct screen *s, const struct pollfd *fds, bool *resized)
{
	struct signalfd_siginfo info;
	char key = 0;

	if (fds[0].revents) {
		ssize_t n = read(STDIN_FILENO, &key, 1);

		if (n <= 0 || key == 'q' || key == 'Q' || key == 3) {
			return true;
		}
	}
	while (read(s->signals, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		if (info.ssi_signo != SIGWINCH) {
			return true;
		}
		*resized = true;
	}
	return false;
}

/* Until it is time for the next look. True: it is over. */
static bool wait_or_quit(struct cli *c, const struct screen *s, int ms, const struct cli_all *all,
	const struct cli_all *before)
{
	int64_t until = now_ms() + ms, left;

	while ((left = until - now_ms()) > 0) {
		struct pollfd fds[] = {{STDIN_FILENO, POLLIN, 0}, {s->signals, POLLIN, 0}};
		bool resized = false;

		if (poll(fds, ARRAY_SIZE(fds), (int)left) > 0) {
			if (take_input(s, fds, &resized)) {
				return true;
			}
			if (resized) {
				draw(c, all, before);
			}
		}
	}
	return false;
}

static int live(struct cli *c, int ms)
{
	struct cli_all all = {0}, before = {0};
	struct screen s = {.signals = -1};
	int r = screen_open(&s);

	if (r < 0) {
		return cli_fail(c, CLI_EXIT_FAILED, "failed", "", "%s", strerror(-r));
	}
	do {
		cli_all_finish(&before);
		before = all;
		all = (struct cli_all){0};
		r = cli_everything(c, &all);
		if (r == 0) {
			draw(c, &all, &before);
		}
	} while (r == 0 && !wait_or_quit(c, &s, ms, &all, &before));
	screen_close(&s);
	cli_all_finish(&all);
	cli_all_finish(&before);
	return r;
}

static int once(struct cli *c, int ms)
{
	const struct timespec delay = {ms / 1000, ms % 1000 * 1000000L};
	struct cli_all before, all = {0};
	int r = cli_everything(c, &before);

	if (r != 0) {
		return r;
	}
	nanosleep(&delay, NULL);
	r = cli_everything(c, &all);
	if (r == 0) {
		print(stdout, c, &all, &before, terminal_width());
	}
	cli_all_finish(&all);
	cli_all_finish(&before);
	return r;
}

int cmd_top(struct cli *c)
{
	const char *text = cli_value(c, "delay");
	uint64_t seconds = 1;

	if (c->o.json) {
		return cli_fail(c, CLI_EXIT_USAGE, "usage",
			"devbroker stats --json is for programs.", "top is for people");
	}
	if (text && parse_u64(text, 1, DELAY_MAX_S, &seconds) < 0) {
		return cli_fail(
			c, CLI_EXIT_USAGE, "usage", "", "--delay takes 1 to %d", DELAY_MAX_S);
	}
	return cli_value(c, "once") || !isatty(STDOUT_FILENO) ? once(c, (int)seconds * 1000)
							      : live(c, (int)seconds * 1000);
}
