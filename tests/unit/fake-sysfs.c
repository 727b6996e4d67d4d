/* SPDX-License-Identifier: MIT */
#include "tests/unit/fake-sysfs.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <linux/netlink.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include "base/fd.h"
#include "tests/unit/test.h"

#define DEVICES "/sys/devices"

static unsigned int last_devnum;

static bool write_file(const char *path, const char *text)
{
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);

	return fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
}

/* A user of its own, as which everything below is allowed. */
static bool become_root(uid_t uid, gid_t gid)
{
	char map[64];

	snprintf(map, sizeof(map), "0 %u 1\n", uid);
	if (!write_file("/proc/self/uid_map", map)) {
		return false;
	}
	snprintf(map, sizeof(map), "0 %u 1\n", gid);
	return write_file("/proc/self/setgroups", "deny") && write_file("/proc/self/gid_map", map);
}

bool fake_sysfs_enter(void)
{
	uid_t uid = geteuid();
	gid_t gid = getegid();
	int flags = CLONE_NEWNS | CLONE_NEWNET | (uid == 0 ? 0 : CLONE_NEWUSER);

	if (unshare(flags) < 0 || (uid != 0 && !become_root(uid, gid)) ||
		mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
		mount("fake", "/sys", "tmpfs", 0, NULL) < 0 ||
		mount("fake", "/run", "tmpfs", 0, NULL) < 0) {
		perror("a sysfs of our own");
		return false;
	}
	/* libsystemd would rather have a real one. */
	return setenv("SYSTEMD_DEVICE_VERIFY_SYSFS", "0", 1) == 0;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	return ftw->level > 0 ? remove(path) : 0;
}

static void make_dirs(const char *path)
{
	char part[PATH_MAX];

	snprintf(part, sizeof(part), "%s", path);
	for (char *slash = strchr(part + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		assert_true(mkdir(part, 0755) == 0 || errno == EEXIST);
		*slash = '/';
	}
	assert_true(mkdir(part, 0755) == 0 || errno == EEXIST);
}

void fake_sysfs_reset(void)
{
	assert_int_equal(nftw("/sys", remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
	assert_int_equal(nftw("/run", remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
	make_dirs(DEVICES);
	make_dirs("/sys/bus/usb/devices");
	make_dirs("/sys/class");
	make_dirs("/run/udev/data");
	fake_udev(true);
}

void fake_udev(bool runs)
{
	if (runs) {
		close(open("/run/udev/control", O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	} else {
		unlink("/run/udev/control");
	}
}

void fake_file(const char *path, const char *name, const void *content, size_t size)
{
	char file[PATH_MAX];
	_cleanup_close_ int fd = -1;

	snprintf(file, sizeof(file), DEVICES "/%s", path);
	make_dirs(file);
	snprintf(file, sizeof(file), DEVICES "/%s/%s", path, name);
	fd = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, content, size), size);
}

void fake_text(const char *path, const char *name, const char *fmt, ...)
{
	_cleanup_free_ char *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	assert_true(vasprintf(&text, fmt, ap) >= 0);
	va_end(ap);
	fake_file(path, name, text, strlen(text));
}

void fake_link(const char *path, const char *name, const char *target)
{
	char file[PATH_MAX];

	snprintf(file, sizeof(file), DEVICES "/%s", path);
	make_dirs(file);
	snprintf(file, sizeof(file), DEVICES "/%s/%s", path, name);
	unlink(file);
	assert_int_equal(symlink(target, file), 0);
}

void fake_remove(const char *path)
{
	char file[PATH_MAX];

	snprintf(file, sizeof(file), DEVICES "/%s", path);
	assert_int_equal(nftw(file, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
	assert_int_equal(rmdir(file), 0);
	snprintf(file, sizeof(file), "/sys/bus/usb/devices/%s", strrchr(path, '/') + 1);
	unlink(file);
}

void fake_controller(const char *path, const char *subsystem)
{
	char target[64];

	snprintf(target, sizeof(target), "/sys/bus/%s", subsystem);
	fake_text(path, "uevent", "DRIVER=xhci_hcd\n");
	fake_link(path, "subsystem", target);
}

static void fake_attr(const char *path, const char *name, const char *text)
{
	if (text) {
		fake_text(path, name, "%s\n", text);
	}
}

unsigned int fake_plug(const struct fake_device *d)
{
	const char *name = strrchr(d->path, '/') + 1, *speed = d->speed ? d->speed : "480";
	unsigned int vendor, product, release, base, sub, protocol, devnum = ++last_devnum;
	unsigned int bus = (unsigned int)atoi(strncmp(name, "usb", 3) == 0 ? name + 3 : name);
	char link[PATH_MAX], target[PATH_MAX];

	assert_int_equal(sscanf(d->ids, "%x:%x:%x", &vendor, &product, &release), 3);
	assert_int_equal(sscanf(d->class, "%2x%2x%2x", &base, &sub, &protocol), 3);
	fake_text(d->path, "idVendor", "%04x\n", vendor);
	fake_text(d->path, "idProduct", "%04x\n", product);
	fake_text(d->path, "bcdDevice", "%04x\n", release);
	fake_text(d->path, "bDeviceClass", "%02x\n", base);
	fake_text(d->path, "bDeviceSubClass", "%02x\n", sub);
	fake_text(d->path, "bDeviceProtocol", "%02x\n", protocol);
	fake_text(d->path, "busnum", "%u\n", bus);
	fake_text(d->path, "devnum", "%u\n", devnum);
	fake_text(d->path, "bNumConfigurations", "1\n");
	fake_text(d->path, "speed", "%s\n", speed);
	fake_text(d->path, "removable", "removable\n");
	fake_text(d->path, "authorized", "1\n");
	fake_attr(d->path, "serial", d->serial);
	fake_attr(d->path, "manufacturer", d->manufacturer);
	fake_attr(d->path, "product", d->product);
	fake_file(d->path, "descriptors", "\x12\x01\x00\x02\x00\x00\x00\x40", 8);
	fake_link(d->path, "subsystem", "/sys/bus/usb");
	fake_text(d->path, "uevent",
		"MAJOR=189\nMINOR=%u\nDEVNAME=bus/usb/%03u/%03u\nDEVTYPE=usb_device\nDRIVER=usb\n",
		devnum, bus, devnum);
	snprintf(link, sizeof(link), "/sys/bus/usb/devices/%s", name);
	snprintf(target, sizeof(target), DEVICES "/%s", d->path);
	assert_int_equal(symlink(target, link), 0);
	return devnum;
}

void fake_interface(const char *path, const char *name, const char *class, const char *driver)
{
	char full[PATH_MAX], target[64];
	unsigned int base, sub, protocol;

	snprintf(full, sizeof(full), "%s/%s", path, name);
	assert_int_equal(sscanf(class, "%2x%2x%2x", &base, &sub, &protocol), 3);
	fake_text(full, "bInterfaceNumber", "%02x\n", atoi(strrchr(name, '.') + 1));
	fake_text(full, "bAlternateSetting", "%2d\n", 0);
	fake_text(full, "bInterfaceClass", "%02x\n", base);
	fake_text(full, "bInterfaceSubClass", "%02x\n", sub);
	fake_text(full, "bInterfaceProtocol", "%02x\n", protocol);
	fake_text(full, "authorized", "1\n");
	fake_text(full, "uevent", "DEVTYPE=usb_interface\n");
	fake_link(full, "subsystem", "/sys/bus/usb");
	if (driver) {
		snprintf(target, sizeof(target), "/sys/bus/usb/drivers/%s", driver);
		fake_link(full, "driver", target);
	}
}

/* "pci…/usb2/2-0:1.0/usb2-port3" of hub "pci…/usb2", "…/2-3/2-3:1.0/2-3-port1" of "…/2-3". */
static void port_path(char *out, size_t size, const char *hub, unsigned int port)
{
	const char *name = strrchr(hub, '/') + 1;
	bool root = strncmp(name, "usb", 3) == 0;

	snprintf(out, size, "%s/%s%s:1.0/%s-port%u", hub, root ? name + 3 : name, root ? "-0" : "",
		name, port);
}

void fake_peers(const char *hub, unsigned int port, const char *peer_hub, unsigned int peer_port)
{
	char one[PATH_MAX - 32], other[PATH_MAX - 32], target[PATH_MAX];

	port_path(one, sizeof(one), hub, port);
	port_path(other, sizeof(other), peer_hub, peer_port);
	snprintf(target, sizeof(target), DEVICES "/%s", other);
	fake_link(one, "peer", target);
	snprintf(target, sizeof(target), DEVICES "/%s", one);
	fake_link(other, "peer", target);
}

void fake_initialized(const char *path, const char *lines)
{
	char file[PATH_MAX], devnum[16] = "";
	_cleanup_close_ int fd = -1;

	snprintf(file, sizeof(file), DEVICES "/%s/devnum", path);
	fd = open(file, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0 && read(fd, devnum, sizeof(devnum) - 1) > 0);
	close(fd);
	snprintf(file, sizeof(file), "/run/udev/data/c189:%u", (unsigned int)atoi(devnum));
	fd = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	assert_true(fd >= 0);
	assert_true(write(fd, "I:1234\n", 7) == 7);
	assert_int_equal(write(fd, lines, strlen(lines)), strlen(lines));
}

/* What udev sends: this header, then NUL-terminated KEY=value. The numbers are big-endian where
 * the kernel's filter compares them: MurmurHash2, seed 0, of the subsystem and the type. */
struct udev_message {
	char prefix[8];
	uint32_t magic, header_size, properties_offset, properties_length;
	uint32_t subsystem_hash, devtype_hash, bloom_high, bloom_low;
	char properties[1024];
};

int fake_event(const char *action, const char *path, const char *devtype)
{
	struct sockaddr_nl to = {.nl_family = AF_NETLINK, .nl_groups = 2};
	struct udev_message m = {
		.prefix = "libudev",
		.magic = htonl(0xfeedcafe),
		.header_size = offsetof(struct udev_message, properties),
		.properties_offset = offsetof(struct udev_message, properties),
		.subsystem_hash = htonl(0x0577c5e5), /* "usb" */
	};
	_cleanup_close_ int fd =
		socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);
	int n;

	m.devtype_hash = htonl(strcmp(devtype, "usb_device") == 0 ? 0x27f8f50c : 0xb1024765);
	n = snprintf(m.properties, sizeof(m.properties),
		"ACTION=%s%cDEVPATH=/devices/%s%cSUBSYSTEM=usb%cDEVTYPE=%s%cSEQNUM=1%c", action, 0,
		path, 0, 0, devtype, 0, 0);
	assert_true(n > 0 && (size_t)n < sizeof(m.properties));
	m.properties_length = (uint32_t)n;
	return fd >= 0 && sendto(fd, &m, m.header_size + (size_t)n, 0, (struct sockaddr *)&to,
				  sizeof(to)) >= 0
		       ? 0
		       : -errno;
}
