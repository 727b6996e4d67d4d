/* SPDX-License-Identifier: MIT
 * The whole terminal, while something is shown on it live; it is as before afterwards.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <termios.h>

#include "base/cleanup.h"

/* What screen_wait heard: a key (its character), or one of these. */
enum screen_event {
	SCREEN_TIME = 0, /* it is time for the next look */
	SCREEN_END = 256,
	SCREEN_REDRAW, /* its size is another one, or something else was shown on it */
	SCREEN_UP,
	SCREEN_DOWN,
	SCREEN_PAGE_UP,
	SCREEN_PAGE_DOWN,
	SCREEN_HOME,
};

struct screen {
	struct termios before;
	bool raw;  /* before holds what to go back to */
	bool keys; /* stdin is the terminal: keys are heard */
	int signals;
	char typed[32]; /* n_typed of them were read and not told yet */
	size_t n_typed;
};

/* Whether stdout is a terminal that obeys. */
bool screen_possible(void);

/* Takes stdout's terminal: without what was on it, without a cursor, keys come at once and unseen.
 * Signals that end or stop a program are heard by screen_wait from then on, until the program ends.
 * 0 or -errno. */
int screen_open(struct screen *s) _must_check_;
void screen_close(struct screen *s);

/* Its size now; 80 by 24 where it doesn't say. */
void screen_size(size_t *columns_out, size_t *rows_out);

/* Shows text (lines with "\n", of which none may be wider than the terminal nor their number larger
 * than its rows) in the place of what was there. */
void screen_show(const char *text);

/* Waits for a key, a signal, or until now_ms() is until_ms. Ctrl-Z stops the program in here, and
 * gives the terminal back meanwhile. Returns a character or an event. */
int screen_wait(struct screen *s, int64_t until_ms);
