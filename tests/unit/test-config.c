/* SPDX-License-Identifier: MIT
 *
 * Good directories give values; every bad file gives one exact sentence.
 */
#include "broker/config.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/sandbox.h"
#include "tests/unit/test.h"

#define LINE_190                                            \
	"0123456789012345678901234567890123456789012345678" \
	"0123456789012345678901234567890123456789012345678" \
	"0123456789012345678901234567890123456789012345678" \
	"0123456789012345678901234567890123456789012"

struct place {
	char dir[64];
};

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
	return remove(path);
}

static void clear(const struct place *p)
{
	nftw(p->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void make_dirs(const struct place *p)
{
	char path[128];

	assert_int_equal(mkdir(p->dir, 0755), 0);
	snprintf(path, sizeof(path), "%s/vms.d", p->dir);
	assert_int_equal(mkdir(path, 0755), 0);
	snprintf(path, sizeof(path), "%s/disks.d", p->dir);
	assert_int_equal(mkdir(path, 0755), 0);
}

static void path_of(const struct place *p, const char *name, char path[256])
{
	snprintf(path, 256, "%s/%s", p->dir, name);
}

static void put(const struct place *p, const char *name, const char *data, size_t size)
{
	char path[256];
	int fd;

	path_of(p, name, path);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, size), (ssize_t)size);
	close(fd);
}

static void put_text(const struct place *p, const char *name, const char *text)
{
	put(p, name, text, strlen(text));
}

static int set_up(void **state)
{
	struct place *p = calloc(1, sizeof(*p));

	umask(022);
	strcpy(p->dir, "/tmp/devbroker-config-XXXXXX");
	if (!mkdtemp(p->dir)) {
		return -1;
	}
	rmdir(p->dir);
	make_dirs(p);
	*state = p;
	return 0;
}

static int tear_down(void **state)
{
	clear(*state);
	free(*state);
	return 0;
}

static void expect(const struct place *p, const char *sentence)
{
	struct refusal_text text = {"", ""};
	struct config c;
	int r = config_load(p->dir, &c, &text);

	if (r != REFUSAL_CONFIG || strcmp(text.sentence, sentence) != 0) {
		fail_msg("returned %d\n  got:  %s\n  want: %s", r, text.sentence, sentence);
	}
	assert_true(strlen(text.remedy) > 0);
}

static void nothing_there_means_defaults(void **state)
{
	struct refusal_text text = {"", ""};
	struct config c;

	assert_int_equal(config_load("/tmp/devbroker-no-such-directory", &c, &text), 0);
	assert_string_equal(c.sandbox, "full");
	assert_int_equal(c.sandbox_stages, SANDBOX_ALL);
	assert_int_equal(c.log_level, LOG_LEVEL_INFO);
	assert_false(c.worker_uids_set);
	assert_int_equal(c.quota.devices, 16);
	assert_int_equal(c.quota.bytes_in_flight, 8 << 20);
	assert_int_equal(c.quota.transfers_in_flight, 64);
	assert_true(list_empty(&c.vms) && list_empty(&c.disks));
	config_finish(&c);
}

static void good_files_give_their_values(void **state)
{
	struct place *p = *state;
	struct refusal_text text = {"", ""};
	struct config_disk *d;
	struct config_vm *vm;
	struct config c;

	put_text(p, "devbroker.conf",
		"\xef\xbb\xbf[broker]\r\n  sandbox = reduced:landlock ; old kernel\r\n"
		"worker-uids=100000:64\nlog-level=debug\n# caf\xc3\xa9\n[quota]\n"
		"bytes-in-flight=2M\ndevices=3");
	put_text(p, "vms.d/b.conf", "[vm]\nqmp=/run/b.qmp\n\tbus=ehci.0\n[quota]\ndevices=1\n");
	put_text(p, "vms.d/a.conf",
		"[vm]\nqmp=/run/"
		"a.qmp\n[gpu]\nmemory=64M\nvirgl=hardware\ndmabuf=yes\nshare=fixed:25%\n"
		"frame-rate=60\ncontexts=none\nresources=9\nhang-timeout=3\n");
	put_text(p, "vms.d/.a.conf.swp", "garbage");
	put_text(p, "vms.d/.hidden.conf", "garbage");
	put_text(p, "vms.d/old.conf~", "garbage");
	put_text(p, "disks.d/stick.conf",
		"[disk]\nimage=/srv/my stick.img\nread-only=yes\ncdrom=yes\nspeed=high\nvm=a\n"
		"serial=0123456789AB\n");
	if (config_load(p->dir, &c, &text) != 0) {
		fail_msg("%s", text.sentence);
	}
	assert_string_equal(c.sandbox, "reduced:landlock");
	assert_int_equal(c.sandbox_stages, SANDBOX_ALL & ~SANDBOX_LANDLOCK);
	assert_true(c.worker_uids_set);
	assert_int_equal(c.worker_uid_base, 100000);
	assert_int_equal(c.worker_uid_count, 64);
	assert_int_equal(c.log_level, LOG_LEVEL_DEBUG);

	vm = list_first(&c.vms, struct config_vm, link);
	assert_string_equal(vm->name, "a");
	assert_string_equal(vm->qmp, "/run/a.qmp");
	assert_string_equal(vm->bus, "xhci.0");
	assert_int_equal(vm->quota.devices, 3);
	assert_int_equal(vm->quota.bytes_in_flight, 2 << 20);
	assert_int_equal(vm->gpu_virgl, GPU_VIRGL_HARDWARE);
	assert_true(vm->gpu_dmabuf);
	assert_int_equal(vm->gpu_limits.share, GPU_SHARE_FIXED);
	assert_int_equal(vm->gpu_limits.percent, 25);
	assert_int_equal(vm->gpu_limits.frame_rate, 60);
	assert_int_equal(vm->gpu_limits.contexts, 0);
	assert_int_equal(vm->gpu_limits.resources, 9);
	assert_int_equal(vm->gpu_hang_seconds, 3);
	vm = list_entry(vm->link.next, struct config_vm, link);
	assert_string_equal(vm->name, "b");
	assert_string_equal(vm->bus, "ehci.0");
	assert_int_equal(vm->quota.devices, 1);
	assert_false(vm->gpu_dmabuf);
	assert_ptr_equal(vm->link.next, &c.vms);

	d = list_first(&c.disks, struct config_disk, link);
	assert_string_equal(d->name, "stick");
	assert_string_equal(d->image, "/srv/my stick.img");
	assert_string_equal(d->speed, "high");
	assert_string_equal(d->serial, "0123456789AB");
	assert_string_equal(d->vm, "a");
	assert_true(d->read_only);
	assert_true(d->cdrom);
	assert_string_equal(d->where_image, "disks.d/stick.conf:2");
	assert_string_equal(d->where_vm, "disks.d/stick.conf:6");
	config_finish(&c);
}

#define VM "vms.d/win11.conf"
#define NO_WAY \
	"a VM needs a way to be reached: qmp= of [vm], or slots=, stream= or listen= of [usb]"
#define TWO_WAYS                                                                                  \
	"qmp= of [vm] and the ways of [usb] don't go together: a VM is reached either by QMP or " \
	"by "                                                                                     \
	"streams"
#define DISK     "disks.d/stick.conf"
#define BROKER   "devbroker.conf"
#define STAGES   "namespaces, root, privileges, landlock, seccomp"
#define VM_KEYS  "known keys: qmp, bus, owner"
#define VM_START "[vm]\nqmp=/run/q\n"

static const struct {
	const char *file;
	const char *data;
	const char *sentence;
} bad_files[] = {
	{VM, "[vm]\n\n# one\nqpm=/run/q\n",
		VM ":4: unknown key \"qpm\" in [vm] (did you mean qmp?); " VM_KEYS},
	{VM, "[vm]\nfrobnicate=1\n", VM ":2: unknown key \"frobnicate\" in [vm]; " VM_KEYS},
	{VM, VM_START "buss=xhci.0",
		VM ":3: unknown key \"buss\" in [vm] (did you mean bus?); " VM_KEYS},
	{VM, VM_START "\x7f=1", VM ":3: control character 0x7f is not allowed"},
	{VM, VM_START "qmp=/run/r\n", VM ":3: key \"qmp\" is given twice; first in line 2"},
	{VM, "[vm]\nqmp=/run/q\n[quota]\n[vm]\nqmp=/r\n",
		VM ":5: key \"qmp\" is given twice; first in line 2"},
	{VM, "[vm]\nbus=xhci.0\n", VM ": " NO_WAY},
	{VM, "", VM ": " NO_WAY},
	{VM, "[vm]\nqmp=/run/q\n[usb]\nslots=1\n", VM ": " TWO_WAYS},
	{VM, "[vm]\nqmp=/run/q\n[usb]\nlisten=unix:/run/u\n", VM ": " TWO_WAYS},
	{VM, "[usb]\nslots=0\n", VM ":2: slots=0 is not a number from 1 to 16"},
	{VM, "[usb]\nslots=17\n", VM ":2: slots=17 is not a number from 1 to 16"},
	{VM, "[usb]\nsocket-group=a b\n", VM ":2: socket-group=a b is no name of a group"},
	{VM, "[usb]\nstream=tcp:host:1\n",
		VM ":2: stream=tcp:host:1 is neither unix:PATH nor tcp:ADDRESS:PORT (as in "
		   "tcp:127.0.0.1:4000; no names of hosts)"},
	{VM, "[usb]\nlisten=tcp:0.0.0.0:4000\n",
		VM ":2: listen=tcp:0.0.0.0:4000 is not on this host alone: usbredir has neither "
		   "authentication nor encryption; use a tunnel, or write allow-remote=yes into "
		   "[usb] of devbroker.conf"},
	{VM, "[VM]\nqmp=/run/q\n",
		VM ":1: unknown section [VM]; known sections: [gpu], [usb], [vm], [quota]"},
	{VM, "[broker]\n",
		VM ":1: unknown section [broker]; known sections: [gpu], [usb], [vm], [quota]"},
	{VM, "[vm\nqmp=/run/q\n", VM ":1: the section has no closing bracket"},
	{VM, "[vm] qmp=/run/q\n", VM ":1: something follows the section's closing bracket"},
	{VM, "qmp=/run/q\n", VM ":1: a section must come before the first key"},
	{VM, VM_START "  lonely words\n", VM ":3: this is neither [section] nor key=value"},
	{VM, VM_START "bus=\n", VM ":3: key \"bus\" has no value"},
	{VM, VM_START "bus= ; default\n", VM ":3: key \"bus\" has no value"},
	{VM, "[vm]\nqmp=run/q\n", VM ":2: qmp=run/q is not an absolute path"},
	{VM, "[vm]\nqmp=\"/run/q\"\n", VM ":2: qmp=\"/run/q\": write the path without quotes"},
	{VM,
		"[vm]\nqmp=/0123456789012345678901234567890123456789012345678901234567890123456789"
		"0123456789012345678901234567890123456\n",
		VM ":2: the path of qmp= has 108 bytes; at most 107 are allowed"},
	{VM, VM_START "bus=xhci 0\n",
		VM ":3: bus=xhci 0 is no name of a bus in QEMU (as in xhci.0)"},
	{VM, VM_START "bus=x\xc3\xa9\n",
		VM ":3: bus=x\\xc3\\xa9 is no name of a bus in QEMU (as in xhci.0)"},
	{VM, VM_START "bus=\xc0\x80\n", VM ":3: byte 0xc0 here is not UTF-8 text"},
	{VM, VM_START "bus=\xed\xa0\x80\n", VM ":3: byte 0xed here is not UTF-8 text"},
	{VM, VM_START "bus=\xf4\x90\x80\x80\n", VM ":3: byte 0xf4 here is not UTF-8 text"},
	{VM, VM_START "bus=\xe2\x82", VM ":3: byte 0xe2 here is not UTF-8 text"},
	{VM, VM_START "bus=\x1b[0m\n", VM ":3: control character 0x1b is not allowed"},
	{VM, VM_START "bus=" LINE_190 "1234\n",
		VM ":3: the line has 198 bytes; at most 197 are allowed"},
	{VM, VM_START "[quota]\ndevices=-1\n", VM ":4: devices=-1 is not a number from 0 to 64"},
	{VM, VM_START "[quota]\ndevices=65\n", VM ":4: devices=65 is not a number from 0 to 64"},
	{VM, VM_START "[quota]\ntransfers-in-flight=0\n",
		VM ":4: transfers-in-flight=0 is not a number from 1 to 1024"},
	{VM, VM_START "[quota]\nbytes-in-flight=1023K\n",
		VM ":4: bytes-in-flight=1023K is not a size from 1M to 32M"},
	{VM, VM_START "[quota]\nbytes-in-flight=99999999999999999999T\n",
		VM ":4: bytes-in-flight=99999999999999999999T is not a size from 1M to 32M"},
	{VM, VM_START "[gpu]\nshare=fixed:0%\n",
		VM ":4: share=fixed:0% is none of best-effort, fair:N%, fixed:N% (N from 1 to "
		   "100)"},
	{VM, VM_START "[gpu]\nhang-timeout=0\n",
		VM ":4: hang-timeout=0 is not a number from 1 to 600"},
	{VM, VM_START "[gpu]\nframe-rate=0\n",
		VM ":4: frame-rate=0 is neither none nor a number from 1 to 1000"},
	{VM, VM_START "[gpu]\ncontexts=257\n",
		VM ":4: contexts=257 is neither none nor a number from 1 to 256"},
	{VM, VM_START "[gpu]\nresources=many\n",
		VM ":4: resources=many is neither none nor a number from 1 to 65536"},
	{VM, VM_START "[gpu]\ndmabuf=auto\n", VM ":4: dmabuf=auto is neither yes nor no"},
	{BROKER, "[gpu]\nsoftware-cpus=0\n",
		BROKER ":2: software-cpus=0 is not a number from 1 to 1024"},
	{"vms.d/-x.conf", VM_START,
		"vms.d/-x.conf: the file's name is no name: use letters, digits, '.', '_' and '-', "
		"a letter or digit first"},
	{"vms.d/a\nb.conf", VM_START,
		"vms.d/a\\x0ab.conf: the file's name is no name: use letters, digits, '.', '_' and "
		"'-', a letter or digit first"},
	{"vms.d/0123456789012345678901234567890123456789012345678901234567890123.conf", VM_START,
		"vms.d/0123456789012345678901234567890123456789012345678901234567890123.conf: the "
		"name has 64 bytes; at most 63 are allowed"},
	{DISK, "[disk]\nvm=a\n", DISK ": image= in [disk] is missing"},
	{DISK, "[disk]\nimage=stick.img\n", DISK ":2: image=stick.img is not an absolute path"},
	{DISK, "[disk]\nimage=/i\ncdrom=2\n", DISK ":3: cdrom=2 is neither yes nor no"},
	{DISK, "[disk]\nimage=/i\nread-only=maybe\n",
		DISK ":3: read-only=maybe is neither yes nor no"},
	{DISK, "[disk]\nimage=/i\nreadonly=yes\n",
		DISK
		":3: unknown key \"readonly\" in [disk] (did you mean read-only?); known keys: "
		"image, read-only, cdrom, speed, serial, vm"},
	{DISK, "[disk]\nimage=/i\nspeed=full\n", DISK ":3: speed=full is neither high nor super"},
	{DISK, "[disk]\nimage=/i\nserial=a b\n",
		DISK ":3: serial=a b: at most 60 letters, digits, '.', '_' and '-', a letter or "
		     "digit first"},
	{DISK, "[disk]\nimage=/i\nvm=../a\n", DISK ":3: vm=../a is no name of a VM"},
	{BROKER, "[broker]\nsandbox=off\n",
		BROKER ":2: sandbox=off is neither full nor reduced:STAGE,… of " STAGES},
	{BROKER, "[broker]\nsandbox=reduced:fds\n",
		BROKER ":2: sandbox=reduced:fds is neither full nor reduced:STAGE,… of " STAGES},
	{BROKER, "[broker]\nworker-uids=0:10\n",
		BROKER ":2: worker-uids=0:10 is neither none nor BASE:COUNT (as in "
		       "1879048192:1024)"},
	{BROKER, "[broker]\nworker-uids=65000:1000\n",
		BROKER ":2: worker-uids=65000:1000 holds the uid of nobody (65534)"},
	{BROKER, "[broker]\nworker-uids=4294967290:6\n",
		BROKER ":2: worker-uids=4294967290:6 is neither none nor BASE:COUNT (as in "
		       "1879048192:1024)"},
	{BROKER, "[broker]\nlog-level=loud\n",
		BROKER ":2: log-level=loud is none of error, warn, info, debug"},
};

static void each_bad_file_has_its_sentence(void **state)
{
	struct place *p = *state;

	for (size_t i = 0; i < ARRAY_SIZE(bad_files); i++) {
		clear(p);
		make_dirs(p);
		put_text(p, bad_files[i].file, bad_files[i].data);
		expect(p, bad_files[i].sentence);
	}
}

static void the_first_error_counts(void **state)
{
	struct place *p = *state;

	put_text(p, "vms.d/b.conf", "[vm]\nqmp=/run/q\n");
	put_text(p, "vms.d/c.conf", "[vm]\nx=1\n");
	put_text(p, "vms.d/d.conf", "[vm]\ny=1\n");
	expect(p, "vms.d/c.conf:2: unknown key \"x\" in [vm]; known keys: qmp, bus, owner");
}

static void nul_and_size_are_refused(void **state)
{
	static const char nul[] = "[vm]\nqmp=/run/q\0/x\n";
	struct place *p = *state;
	char *big = malloc(65537);

	put(p, VM, nul, sizeof(nul) - 1);
	expect(p, VM ":2: control character 0x00 is not allowed");

	clear(p);
	make_dirs(p);
	memset(big, '\n', 65537);
	memcpy(big, VM_START, strlen(VM_START));
	put(p, VM, big, 65537);
	expect(p, VM ": it is larger than 64 KiB");

	clear(p);
	make_dirs(p);
	put(p, VM, big, 65536);
	{
		struct refusal_text text;
		struct config c;

		assert_int_equal(config_load(p->dir, &c, &text), 0);
		config_finish(&c);
	}
	free(big);
}

static void what_others_can_write_is_refused(void **state)
{
	struct place *p = *state;
	char path[256];

	put_text(p, VM, VM_START);
	path_of(p, VM, path);
	assert_int_equal(chmod(path, 0646), 0);
	expect(p, VM ": others may write to it (mode 0646); chmod go-w is needed");
	if (geteuid() == 0) {
		assert_int_equal(chmod(path, 0664), 0);
		assert_int_equal(chown(path, 0, 12345), 0);
		expect(p, VM ": others may write to it (mode 0664); chmod go-w is needed");
		assert_int_equal(chmod(path, 0644), 0);
		assert_int_equal(chown(path, 12345, 0), 0);
		expect(p, VM ": it belongs to uid 12345; configuration must belong to root or to "
			     "the user who runs devbrokerd");
	}
	unlink(path);

	path_of(p, "vms.d", path);
	assert_int_equal(chmod(path, 0777), 0);
	expect(p, "vms.d: others may write to it (mode 0777); chmod go-w is needed");
	assert_int_equal(chmod(path, 0755), 0);
}

static void only_regular_files_are_read(void **state)
{
	struct place *p = *state;
	char path[256];

	path_of(p, VM, path);
	assert_int_equal(mkfifo(path, 0644), 0);
	expect(p, VM ": it is not a regular file");
	unlink(path);
	assert_int_equal(mkdir(path, 0755), 0);
	expect(p, VM ": it is not a regular file");
	rmdir(path);
	assert_int_equal(symlink("/nowhere", path), 0);
	expect(p, VM ": it is a link to nothing, or went away");
}

static void counts_are_capped(void **state)
{
	struct place *p = *state;
	char name[64];

	for (int i = 0; i < 257; i++) {
		snprintf(name, sizeof(name), "vms.d/vm%d.conf", i);
		put_text(p, name, VM_START);
	}
	expect(p, "vms.d: there are 257 files; at most 256 are allowed");
}

static void names(void **state)
{
	assert_true(config_name_ok("win11"));
	assert_true(config_name_ok("0a.b_c-d"));
	assert_false(config_name_ok(""));
	assert_false(config_name_ok(".a"));
	assert_false(config_name_ok("-a"));
	assert_false(config_name_ok("a/b"));
	assert_false(config_name_ok("a b"));
	assert_false(config_name_ok("caf\xc3\xa9"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_there_means_defaults),
		cmocka_unit_test_setup_teardown(good_files_give_their_values, set_up, tear_down),
		cmocka_unit_test_setup_teardown(each_bad_file_has_its_sentence, set_up, tear_down),
		cmocka_unit_test_setup_teardown(the_first_error_counts, set_up, tear_down),
		cmocka_unit_test_setup_teardown(nul_and_size_are_refused, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			what_others_can_write_is_refused, set_up, tear_down),
		cmocka_unit_test_setup_teardown(only_regular_files_are_read, set_up, tear_down),
		cmocka_unit_test_setup_teardown(counts_are_capped, set_up, tear_down),
		cmocka_unit_test(names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
