/* SPDX-License-Identifier: MIT
 * What was remembered: found again, written whole or not at all, forgotten.
 */
#include "broker/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "broker/usb-facts.h"
#include "tests/unit/kill-each.h"
#include "tests/unit/test.h"

/* Facts have their texts to themselves, and are not changed here. */
#define T(text) ((char *)(uintptr_t)(text))

static char dir[64];

static struct usb_facts device(const char *key, uint16_t product, const char *serial)
{
	struct usb_facts f = {.key = T(key),
		.vendor = 0x0781,
		.product = product,
		.serial = T(serial),
		.product_name = T("Cruzer; Blade \x1b #1 ")};

	return f;
}

static void load(struct memory *m)
{
	struct refusal_text text = {0};

	if (memory_load(dir, m, &text) != 0) {
		fail_msg("%s", text.sentence);
	}
}

static void remembered_and_found(void **state)
{
	struct usb_facts stick = device("usb:c-1", 1, "S1"), elsewhere = device("usb:c-9", 1, "S1");
	struct usb_facts twin = device("usb:c-1", 1, "S2"), nameless = device("usb:c-3", 2, "");
	struct refusal_text text = {0};
	struct memory m;

	assert_int_equal(memory_load(dir, &m, &text), 0);
	assert_null(memory_find(&m, &stick));
	assert_int_equal(memory_add(&m, &stick, "win11", &text), 0);
	assert_int_equal(memory_add(&m, &nameless, "kiosk", &text), 0);
	memory_finish(&m);

	assert_int_equal(memory_load(dir, &m, &text), 0);
	assert_int_equal(m.n_entries, 2);
	assert_string_equal(memory_find(&m, &stick)->vm, "win11");
	/* By its serial number, wherever it is; another one is another one. */
	assert_string_equal(memory_find(&m, &elsewhere)->vm, "win11");
	assert_null(memory_find(&m, &twin));
	/* Without one, only there. */
	assert_string_equal(memory_find(&m, &nameless)->vm, "kiosk");
	nameless.key = T("usb:c-4");
	assert_null(memory_find(&m, &nameless));
	/* In the place of what was remembered before. */
	assert_int_equal(memory_add(&m, &elsewhere, "other", &text), 0);
	assert_int_equal(m.n_entries, 2);
	assert_string_equal(memory_find(&m, &stick)->vm, "other");
	assert_int_equal(memory_remove(&m, "usb:c-1"), -ENOENT);
	assert_int_equal(memory_remove(&m, "usb:c-9"), 0);
	memory_finish(&m);
	load(&m);
	assert_int_equal(m.n_entries, 1);
	memory_finish(&m);
}

static void disk_full(void **state)
{
	struct usb_facts stick = device("usb:c-1", 1, "S1");
	struct refusal_text text = {0};
	struct memory m;
	const struct rlimit none = {0, 0};
	int status;
	pid_t pid;

	pid = fork();
	if (pid == 0) {
		int r;

		signal(SIGXFSZ, SIG_IGN);
		setrlimit(RLIMIT_FSIZE, &none);
		load(&m);
		r = memory_add(&m, &stick, "win11", &text);
		/* It is not remembered, neither here nor there. */
		_exit(r == -EFBIG && !memory_find(&m, &stick) ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	load(&m);
	assert_null(memory_find(&m, &stick));
	memory_finish(&m);
}

/* What stands in the file, "" if there is none. */
static void read_file(char *out, size_t size)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/remembered", dir);
	f = fopen(path, "re");
	out[f ? fread(out, 1, size - 1, f) : 0] = '\0';
	if (f) {
		fclose(f);
	}
}

static void write_file(const char *text)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/remembered", dir);
	f = fopen(path, "we");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void remember_anew(void *userdata)
{
	struct usb_facts stick = device("usb:c-1", 1, "S1");
	struct refusal_text text = {0};

	if (memory_add(userdata, &stick, "new", &text) != 0) {
		_exit(1);
	}
}

static void forget(void *userdata)
{
	if (memory_remove(userdata, "usb:c-1") != 0) {
		_exit(1);
	}
}

/* Killed at each system call of its writing: the old or the new file is there, never half of one,
 * and the next one can write again. */
static void killed_while(void (*act)(void *userdata))
{
	struct usb_facts stick = device("usb:c-1", 1, "S1"), other = device("usb:c-2", 1, "S2");
	char old[1024], new[1024], now[1024];
	unsigned int n, n_old = 0, n_new = 0;
	struct refusal_text text = {0};
	struct memory m;

	write_file("");
	load(&m);
	assert_int_equal(memory_add(&m, &other, "other", &text), 0);
	assert_int_equal(memory_add(&m, &stick, "old", &text), 0);
	read_file(old, sizeof(old));
	assert_false(kill_at(100000, act, &m));
	read_file(new, sizeof(new));
	assert_string_not_equal(old, new);
	for (n = 1;; n++) {
		write_file(old);
		if (!kill_at(n, act, &m)) {
			break;
		}
		read_file(now, sizeof(now));
		if (strcmp(now, old) == 0) {
			n_old++;
		} else {
			assert_string_equal(now, new);
			n_new++;
		}
	}
	/* Open, write, fsync, close, rename and fsync at least. */
	assert_true(n > 12 && n_old > 8 && n_new > 2);
	memory_finish(&m);
	load(&m);
	assert_int_equal(memory_add(&m, &stick, "again", &text), 0);
	assert_string_equal(memory_find(&m, &other)->vm, "other");
	memory_finish(&m);
	write_file("");
}

static void killed_while_remembering(void **state)
{
	killed_while(remember_anew);
}

static void killed_while_forgetting(void **state)
{
	killed_while(forget);
}

static void broken_file(void **state)
{
	static const char *const texts[] = {"[device x]\nid=1\nvm=a\n", "[device usb:a]\nid=1\n",
		"[device usb:a]\nvm=a\n", "[device usb:a]\nid=1\nvm=../a\n", "x=1\n", "[device"};
	char path[128];

	snprintf(path, sizeof(path), "%s/remembered", dir);
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		struct refusal_text text = {0};
		struct memory m;
		FILE *f = fopen(path, "we");

		assert_non_null(f);
		fputs(texts[i], f);
		fclose(f);
		assert_int_equal(memory_load(dir, &m, &text), REFUSAL_CONFIG);
		assert_non_null(strstr(text.sentence, "remembered:"));
	}
	unlink(path);
}

static int setup(void **state)
{
	umask(022);
	snprintf(dir, sizeof(dir), "/tmp/test-memory-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -r '%s'", dir);
	return system(command); // NOLINT(cert-env33-c): our own directory
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(remembered_and_found),
		cmocka_unit_test(disk_full),
		cmocka_unit_test(killed_while_remembering),
		cmocka_unit_test(killed_while_forgetting),
		cmocka_unit_test(broken_file),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
