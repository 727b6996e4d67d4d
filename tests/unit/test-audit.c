/* SPDX-License-Identifier: MIT */
#include "tests/unit/test.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "broker/audit.h"

struct place {
	char dir[64];
	char log[96];
	char old[96];
};

static int make_place(void **state)
{
	struct place *p = calloc(1, sizeof(*p));

	assert_non_null(p);
	snprintf(p->dir, sizeof(p->dir), "/tmp/test-audit-XXXXXX");
	assert_non_null(mkdtemp(p->dir));
	snprintf(p->log, sizeof(p->log), "%s/log", p->dir);
	snprintf(p->old, sizeof(p->old), "%s/log.1", p->dir);
	*state = p;
	return 0;
}

static int drop_place(void **state)
{
	struct place *p = *state;

	unlink(p->log);
	unlink(p->old);
	rmdir(p->dir);
	free(p);
	return 0;
}

static struct audit *begin(const struct place *p)
{
	struct audit *a = NULL;

	assert_int_equal(audit_create(p->dir, NULL, NULL, &a), 0);
	return a;
}

static void note(struct audit *a, enum audit_action action, const char *device, const char *text)
{
	audit_note(a, &(struct audit_event){.action = action,
			      .uid = 1000,
			      .device = device,
			      .vm = "win",
			      .text = text});
}

static unsigned int count(const struct audit *a, enum audit_action action)
{
	const struct audit_record *r;
	unsigned int n = 0;

	for (uint64_t after = 0; (r = audit_next(a, after)); after = r->seq) {
		assert_true(r->seq > after);
		n += r->action == action;
	}
	return n;
}

static void records_outlive_the_broker(void **state)
{
	struct place *p = *state;
	struct audit *a = begin(p);
	const struct audit_record *r;
	struct stat st;

	note(a, AUDIT_ATTACH, "disk:one", "Asked for.");
	note(a, AUDIT_REFUSED, "disk:two", "No.");
	note(a, AUDIT_END, "disk:one", "Gone.");
	audit_destroy(a);
	assert_int_equal(stat(p->log, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	a = begin(p);
	r = audit_next(a, 0);
	assert_non_null(r);
	assert_int_equal(r->seq, 1);
	assert_int_equal(r->uid, 1000);
	assert_string_equal(r->device, "disk:one");
	assert_string_equal(r->text, "Asked for.");
	r = audit_next(a, 1);
	assert_int_equal(r->action, AUDIT_REFUSED);
	note(a, AUDIT_DETACH, "disk:three", "");
	r = audit_next(a, 3);
	assert_int_equal(r->seq, 4);
	assert_null(audit_next(a, 4));
	audit_destroy(a);
}

/* Whatever somebody puts into a name stays within its field and its line. */
static void hostile_texts_stay_in_their_place(void **state)
{
	struct place *p = *state;
	struct audit *a = begin(p);
	const struct audit_record *r;
	char long_text[5000];

	memset(long_text, 'x', sizeof(long_text) - 1);
	long_text[sizeof(long_text) - 1] = '\0';
	note(a, AUDIT_ATTACH, "a\tb\nc\x1b[31m\xff\xe2\x80\xae", long_text);
	note(a, AUDIT_ATTACH, NULL, "next\r\n99\t1\t0\tattach\tforged\t\t\t\t");
	audit_destroy(a);
	a = begin(p);
	r = audit_next(a, 0);
	for (const char *c = r->device; *c; c++) {
		assert_true((unsigned char)*c >= 0x20 && (unsigned char)*c < 0x7f);
	}
	assert_true(strlen(r->text) <= 400);
	r = audit_next(a, 1);
	assert_int_equal(r->seq, 2);
	assert_string_equal(r->device, "");
	assert_null(strchr(r->text, '\t'));
	assert_null(audit_next(a, 2));
	audit_destroy(a);
}

static void refusals_push_out_nothing_else(void **state)
{
	struct place *p = *state;
	struct audit *a = begin(p);

	note(a, AUDIT_ATTACH, "disk:one", "Asked for.");
	for (int i = 0; i < 5000; i++) {
		note(a, i % 2 ? AUDIT_REFUSED : AUDIT_QUOTA, "disk:two", "No.");
	}
	assert_int_equal(count(a, AUDIT_ATTACH), 1);
	assert_int_equal(count(a, AUDIT_REFUSED) + count(a, AUDIT_QUOTA), 1024);
	assert_string_equal(audit_next(a, 0)->device, "disk:one");
	audit_destroy(a);
}

static void the_files_are_bounded(void **state)
{
	struct place *p = *state;
	struct audit *a = begin(p);
	char text[380];
	struct stat now, old;

	memset(text, 'y', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	for (int i = 0; i < 8000; i++) {
		note(a, AUDIT_END, "disk:one", text);
	}
	assert_int_equal(stat(p->log, &now), 0);
	assert_int_equal(stat(p->old, &old), 0);
	assert_true(now.st_size <= 1 << 20 && old.st_size <= 1 << 20);
	assert_true(now.st_size + old.st_size > 1 << 20);
	audit_destroy(a);
	a = begin(p);
	assert_int_equal(count(a, AUDIT_END), 1024);
	assert_non_null(audit_next(a, 7999));
	audit_destroy(a);
}

static void append(const char *path, const char *bytes, size_t n)
{
	int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, n), n);
	close(fd);
}

/* Lines that are none, among them the last one of a power cut, are skipped and not continued. */
static void torn_files_are_read_as_far_as_they_go(void **state)
{
	static const char *const bad[] = {"\n", "x\n", "3\t4\n", "0\t1\t2\tattach\ta\tb\tc\td\te\n",
		"9\t1\t2\tnothing\ta\tb\tc\td\te\n", "9\t1\t99999999999\tattach\ta\tb\tc\td\te\n",
		"9\t1\t2\tattach\ta\tb\tc\td\te\tf\n", "-9\t1\t2\tattach\ta\tb\tc\td\te\n"};
	struct place *p = *state;
	struct audit *a = begin(p);
	char zeros[5000] = {0};

	note(a, AUDIT_ATTACH, "disk:one", "Asked for.");
	audit_destroy(a);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		append(p->log, bad[i], strlen(bad[i]));
	}
	append(p->log, zeros, sizeof(zeros));
	append(p->log, "\n2\t77\t0\tdetach\tdisk:two", 23);
	a = begin(p);
	assert_string_equal(audit_next(a, 0)->device, "disk:one");
	assert_null(audit_next(a, 1));
	note(a, AUDIT_DETACH, "disk:three", "");
	audit_destroy(a);
	a = begin(p);
	assert_string_equal(audit_next(a, 1)->device, "disk:three");
	assert_null(audit_next(a, 2));
	audit_destroy(a);
}

static void without_a_place_memory_serves(void **state)
{
	struct audit *a = NULL;

	assert_int_equal(audit_create("/nonexistent/devbroker", NULL, NULL, &a), 0);
	note(a, AUDIT_ATTACH, "disk:one", "Asked for.");
	assert_string_equal(audit_next(a, 0)->device, "disk:one");
	audit_destroy(a);
	audit_note(NULL, &(struct audit_event){.action = AUDIT_END});
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, make_place, drop_place)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(records_outlive_the_broker),
		TEST(hostile_texts_stay_in_their_place),
		TEST(refusals_push_out_nothing_else),
		TEST(the_files_are_bounded),
		TEST(torn_files_are_read_as_far_as_they_go),
		cmocka_unit_test(without_a_place_memory_serves),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
