/* SPDX-License-Identifier: MIT */
#include "broker/cli/screen.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/fd.h"

/* The other screen, without a cursor; lines that are as wide as it don't wrap. */
#define ENTER  "\033[?1049h\033[?25l\033[?7l"
#define LEAVE  "\033[?7h\033[?25h\033[?1049l"
#define CTRL_C 3

static const struct {
	const char *sequence;
	enum screen_event event;
} keys[] = {
	{"\033[A", SCREEN_UP},
	{"\033[B", SCREEN_DOWN},
	{"\033[5~", SCREEN_PAGE_UP},
	{"\033[6~", SCREEN_PAGE_DOWN},
	{"\033[H", SCREEN_HOME},
	{"\033[1~", SCREEN_HOME},
};

bool screen_possible(void)
{
	const char *term = getenv("TERM");

	return isatty(STDOUT_FILENO) && term && term[0] && strcmp(term, "dumb") != 0;
}

static void enter(struct screen *s)
{
	struct termios t;

	s->keys = isatty(STDIN_FILENO);
	s->raw = false;
	/* In the background this stops us, before anything is drawn. */
	if (s->keys && tcgetattr(STDIN_FILENO, &s->before) == 0) {
		t = s->before;
		t.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
		t.c_cc[VMIN] = 1;
		t.c_cc[VTIME] = 0;
		s->raw = tcsetattr(STDIN_FILENO, TCSANOW, &t) == 0;
	}
	fputs(ENTER, stdout);
	fflush(stdout);
}

static void leave(struct screen *s)
{
	fputs(LEAVE, stdout);
	fflush(stdout);
	if (s->raw) {
		tcsetattr(STDIN_FILENO, TCSADRAIN, &s->before);
		s->raw = false;
	}
}

int screen_open(struct screen *s)
{
	static const int heard[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGWINCH};
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(heard); i++) {
		sigaddset(&set, heard[i]);
	}
	sigprocmask(SIG_BLOCK, &set, NULL);
	s->n_typed = 0;
	s->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (s->signals < 0) {
		return -errno;
	}
	enter(s);
	return 0;
}

void screen_close(struct screen *s)
{
	leave(s);
	s->signals = safe_close(s->signals);
}

void screen_size(size_t *columns_out, size_t *rows_out)
{
	struct winsize w = {0};

	_unused_ int r = ioctl(STDOUT_FILENO, TIOCGWINSZ, &w);
	*columns_out = w.ws_col ? w.ws_col : 80;
	*rows_out = w.ws_row ? w.ws_row : 24;
}

void screen_show(const char *text)
{
	const char *line = text, *end;

	fputs("\033[H", stdout);
	/* Each is cleared before it is written, and with the last one what is below: behind its end
	 * the cursor may still be on its last character. */
	for (; *line; line = end + (*end == '\n')) {
		end = strchrnul(line, '\n');
		printf("%s%s%.*s", line == text ? "" : "\r\n",
			end[0] && end[1] ? "\033[K" : "\033[J", (int)(end - line), line);
	}
	fflush(stdout);
}

static void forget_typed(struct screen *s, size_t n)
{
	s->n_typed -= n;
	memmove(s->typed, s->typed + n, s->n_typed);
}

/* How long what begins with an escape is: it ends with its first letter or sign (ECMA-48, 5.4). */
static size_t sequence_length(const struct screen *s)
{
	size_t n = 1;

	if (s->n_typed > 1 && s->typed[1] == '[') {
		for (n = 2; n < s->n_typed && s->typed[n] < '@'; n++) {
		}
		n++;
	}
	return MIN(n, s->n_typed);
}

/* Of several that came at once the first; of one that is none of ours nothing. */
static int next_key(struct screen *s)
{
	unsigned char c = (unsigned char)s->typed[0];

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		size_t n = strlen(keys[i].sequence);

		if (s->n_typed >= n && memcmp(s->typed, keys[i].sequence, n) == 0) {
			forget_typed(s, n);
			return keys[i].event;
		}
	}
	forget_typed(s, c == '\033' ? sequence_length(s) : 1);
	return c == CTRL_C ? SCREEN_END : c == '\033' ? SCREEN_REDRAW : c;
}

static int take_keys(struct screen *s)
{
	ssize_t n = read(STDIN_FILENO, s->typed, sizeof(s->typed));

	if (n <= 0) {
		return n < 0 && errno == EINTR ? SCREEN_REDRAW : SCREEN_END;
	}
	s->n_typed = (size_t)n;
	return next_key(s);
}

static int take_signal(struct screen *s)
{
	struct signalfd_siginfo info;

	if (read(s->signals, &info, sizeof(info)) != (ssize_t)sizeof(info)) {
		return SCREEN_REDRAW;
	}
	if (info.ssi_signo == SIGTSTP) {
		leave(s);
		raise(SIGSTOP);
		enter(s);
		return SCREEN_REDRAW;
	}
	return info.ssi_signo == SIGWINCH ? SCREEN_REDRAW : SCREEN_END;
}

int screen_wait(struct screen *s, int64_t until_ms)
{
	int64_t left;

	if (s->n_typed > 0) {
		return next_key(s);
	}
	while ((left = until_ms - now_ms()) > 0) {
		struct pollfd fds[] = {
			{s->signals, POLLIN, 0}, {s->keys ? STDIN_FILENO : -1, POLLIN, 0}};

		if (poll(fds, ARRAY_SIZE(fds), (int)MIN(left, INT32_MAX)) <= 0) {
			continue;
		}
		return fds[0].revents ? take_signal(s) : take_keys(s);
	}
	return SCREEN_TIME;
}
