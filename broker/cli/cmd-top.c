/* SPDX-License-Identifier: MIT
 * top: what VMs and devices do, now. Without a terminal, or with --once, it is said once.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/checked.h"
#include "base/clock.h"
#include "broker/cli/cli.h"
#include "broker/cli/screen.h"
#include "broker/cli/table.h"
#include "broker/cli/top.h"

#define DELAY_MAX_S 3600
/* With fewer rows there is no room for the line with the keys. */
#define ROWS_WITH_KEYS 5

static const struct {
	const char *name;
	int key;
} orders[] = {
	[TOP_BY_NAME] = {"name", 'n'},
	[TOP_BY_USB] = {"usb", 'u'},
	[TOP_BY_GPU] = {"gpu", 'g'},
};
static_assert(ARRAY_SIZE(orders) == TOP_ORDER_COUNT_, "one per order");

/* What is shown of it all. */
struct view {
	enum top_order order;
	size_t first; /* line of the tables */
	size_t n;     /* of their lines */
	size_t room;  /* for lines of them */
	bool keys;
};

/* One line without its end, in width columns. */
static void print_line(FILE *out, char *text, size_t width)
{
	text[text_fit(text, width)] = '\0';
	fprintf(out, "%s\n", text);
}

static void print_head(FILE *out, const struct cli_all *all, size_t width)
{
	_cleanup_free_ char *text = NULL;
	size_t size = 0;
	FILE *f = open_memstream(&text, &size);
	time_t now = time(NULL);
	char clock[16];
	struct tm tm;

	if (!f) {
		return;
	}
	localtime_r(&now, &tm);
	strftime(clock, sizeof(clock), "%H:%M:%S", &tm);
	fprintf(f, "devbroker top  %s  ", clock);
	top_print_sum(f, all);
	if (fclose(f) == 0) {
		print_line(out, text, width);
	}
}

static void print_keys(FILE *out, const struct view *v, size_t width)
{
	size_t last = MIN(v->first + v->room, v->n);
	char text[160], lines[48] = "";

	if (v->n > v->room) {
		snprintf(lines, sizeof(lines), "  ↑↓ lines %zu-%zu of %zu", v->first + 1, last,
			v->n);
	}
	if (v->keys) {
		snprintf(text, sizeof(text), "q quits%s  order (now %s): n name, u usb, g gpu",
			lines, orders[v->order].name);
	} else {
		snprintf(text, sizeof(text), "Ctrl-C quits%s", lines);
	}
	print_line(out, text, width);
}

static size_t count_lines(const char *text)
{
	size_t n = 0;

	for (; (text = strchr(text, '\n')); text++) {
		n++;
	}
	return n;
}

static const char *skip_lines(const char *text, size_t n)
{
	for (; n > 0; n--) {
		text = strchr(text, '\n') + 1;
	}
	return text;
}

/* The titles of the table in which begin is a row; NULL: it is none. */
static const char *titles_above(const char *tables, const char *begin)
{
	const char *titles = tables;

	for (const char *line = tables; line < begin; line = skip_lines(line, 1)) {
		titles = *line == '\n' ? line + 1 : titles;
	}
	return *begin == '\n' || titles == begin ? NULL : titles;
}

/* The lines from begin on that there is room for. What is scrolled away below its titles leaves
 * them there, over the first row. */
static void print_lines(FILE *out, const char *tables, const char *begin, const struct view *v)
{
	const char *end = skip_lines(begin, MIN(v->room, v->n));
	const char *titles = v->room > 1 && v->n > 1 ? titles_above(tables, begin) : NULL;

	if (titles) {
		fwrite(titles, 1, (size_t)(skip_lines(titles, 1) - titles), out);
		begin = skip_lines(begin, 1);
	}
	fwrite(begin, 1, (size_t)(end - begin), out);
}

/* The tables' lines that are to be seen, and what is around them. */
static char *compose(const struct cli *c, const struct cli_all *all, const struct cli_all *before,
	struct view *v)
{
	_cleanup_free_ char *tables = NULL;
	char *text = NULL;
	size_t size = 0, width, rows;
	FILE *f = open_memstream(&tables, &size);

	if (!f) {
		return NULL;
	}
	screen_size(&width, &rows);
	top_print(f, c, all, before, width, v->order);
	if (fclose(f) != 0 || !(f = open_memstream(&text, &size))) {
		return NULL;
	}
	v->n = count_lines(tables);
	v->room = rows - MIN(rows, rows < ROWS_WITH_KEYS ? 1U : 2U);
	v->first = MIN(v->first, v->n - MIN(v->n, v->room));
	print_head(f, all, width);
	print_lines(f, tables, skip_lines(tables, v->first), v);
	for (size_t i = v->n; i < v->room; i++) {
		fputc('\n', f);
	}
	if (rows >= ROWS_WITH_KEYS) {
		print_keys(f, v, width);
	}
	if (fclose(f) != 0) {
		free(text);
		return NULL;
	}
	return text;
}

static void draw(const struct cli *c, const struct cli_all *all, const struct cli_all *before,
	struct view *v)
{
	_cleanup_free_ char *text = compose(c, all, before, v);

	if (text) {
		screen_show(text);
	}
}

/* By so many lines; compose() sees to it that there are as many. */
static void scroll(struct view *v, bool down, size_t lines)
{
	v->first = down ? v->first + lines : v->first - MIN(v->first, lines);
}

/* So that the row that is hidden by its titles then has been seen. */
static size_t page(const struct view *v)
{
	return MAX(v->room, 2U) - 1;
}

/* What a key or an event changes. False: it is over. */
static bool obey(struct view *v, int event)
{
	switch (event) {
	case SCREEN_END:
	case 'q':
	case 'Q':
		return false;
	case SCREEN_UP:
	case 'k':
		scroll(v, false, 1);
		return true;
	case SCREEN_DOWN:
	case 'j':
		scroll(v, true, 1);
		return true;
	case SCREEN_PAGE_UP:
		scroll(v, false, page(v));
		return true;
	case SCREEN_PAGE_DOWN:
	case ' ':
		scroll(v, true, page(v));
		return true;
	case SCREEN_HOME:
		v->first = 0;
		return true;
	default:
		for (size_t i = 0; i < ARRAY_SIZE(orders); i++) {
			v->order = event == orders[i].key ? (enum top_order)i : v->order;
		}
		return true;
	}
}

/* Until the broker doesn't answer (its exit code) or somebody ends it (0). */
static int look(struct cli *c, struct screen *s, int ms, struct view *v)
{
	struct cli_all all = {0}, before = {0};
	bool more = true;
	int r = 0;

	v->keys = s->keys;
	while (more) {
		int64_t until = now_ms() + ms;
		int event;

		cli_all_finish(&before);
		before = all;
		all = (struct cli_all){0};
		r = cli_everything(c, &all);
		if (r != 0) {
			break;
		}
		do {
			draw(c, &all, &before, v);
			event = screen_wait(s, until);
			more = obey(v, event);
		} while (more && event != SCREEN_TIME);
	}
	cli_all_finish(&all);
	cli_all_finish(&before);
	return r;
}

static int live(struct cli *c, int ms, enum top_order order)
{
	_cleanup_free_ char *said = NULL;
	struct screen s = {.signals = -1};
	struct view v = {.order = order};
	size_t size = 0;
	FILE *errors = open_memstream(&said, &size);
	int r = errors ? screen_open(&s) : -errno;

	if (r < 0) {
		if (errors) {
			fclose(errors);
		}
		return cli_fail(c, CLI_EXIT_FAILED, "failed", "", "%s", strerror(-r));
	}
	/* On the other screen nobody would read it. */
	c->errors = errors;
	r = look(c, &s, ms, &v);
	c->errors = NULL;
	screen_close(&s);
	if (fclose(errors) == 0) {
		fputs(said, stderr);
	}
	return r;
}

static int once(struct cli *c, int ms, enum top_order order)
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
		top_print(stdout, c, &all, &before, terminal_width(), order);
	}
	cli_all_finish(&all);
	cli_all_finish(&before);
	return r;
}

int cmd_top(struct cli *c)
{
	const char *text = cli_value(c, "delay"), *order_name = cli_value(c, "order");
	uint64_t seconds = 1;
	size_t order = TOP_BY_NAME;

	if (c->o.json) {
		return cli_fail(c, CLI_EXIT_USAGE, "usage",
			"devbroker stats --json is for programs.", "top is for people");
	}
	if (text && parse_u64(text, 1, DELAY_MAX_S, &seconds) < 0) {
		return cli_fail(
			c, CLI_EXIT_USAGE, "usage", "", "--delay takes 1 to %d", DELAY_MAX_S);
	}
	while (order_name && order < ARRAY_SIZE(orders) &&
		strcmp(orders[order].name, order_name) != 0) {
		order++;
	}
	if (order == ARRAY_SIZE(orders)) {
		return cli_fail(c, CLI_EXIT_USAGE, "usage", "", "--order takes name, usb or gpu");
	}
	return cli_value(c, "once") || !screen_possible()
		       ? once(c, (int)seconds * 1000, (enum top_order)order)
		       : live(c, (int)seconds * 1000, (enum top_order)order);
}
