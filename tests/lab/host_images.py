# SPDX-License-Identifier: MIT
"""What the host in a VM is made of: an initramfs with udevd and everything else that seldom changes, and a small disk
with the programs of a build folder, which is mounted after the snapshot, so that a new build needs no new boot.
"""
import hashlib
import os
import shutil
import subprocess
import time
from pathlib import Path

from images import Images, install, libraries, run

# Loaded before the snapshot: a driver that is there binds at once, which is the race that the broker has to win.
MODULES = ["virtio_pci", "virtio_console", "virtio_net", "virtio_blk", "ext4", "xhci_pci", "usb_storage", "uas",
           "sd_mod", "usbhid", "hid_generic", "evdev", "cdc_acm", "ftdi_sio", "snd_usb_audio", "cdc_ether", "usbmon",
           "dummy_hcd", "libcomposite", "usb_f_mass_storage", "usb_f_hid", "usb_f_acm", "usb_f_ecm", "vfat",
           "nls_cp437", "nls_iso8859-1", "nls_ascii", "nls_utf8"]
# And what a test loads when it wants it.
MORE_MODULES = ["vhci_hcd", "vgem", "virtio-gpu", "9p", "9pnet_virtio"]
PROGRAMS = ["/lib/systemd/systemd-udevd", "/bin/udevadm", "/bin/kmod", "/usr/bin/lsusb", "/usr/bin/usbredirect"]
# Groups that Debian's rules name; udevd drops a rule whose group it can't find.
GROUPS = ["root", "tty", "disk", "lp", "dialout", "cdrom", "tape", "audio", "video", "kmem", "input", "kvm", "render",
          "sgx", "plugdev", "devbroker"]
DISK_MIB = 160

# The sandbox of the workers calls pivot_root, which no initramfs allows: the real root is a tmpfs.
INIT = """#!/bin/sh
mount -t tmpfs -o mode=755 root /new
cd /
for d in *; do
	case $d in
	new) ;;
	*) cp -a $d /new/ ;;
	esac
done
exec switch_root /new /sbin/start
"""

START = """#!/bin/sh
export PATH=/opt/bin:/bin:/sbin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mount -t cgroup2 cgroup /sys/fs/cgroup
chmod 1777 /tmp
modprobe -a {modules} || echo "lab: modprobe failed" >/dev/console
mount -t configfs configfs /sys/kernel/config
/lib/systemd/systemd-udevd --daemon
udevadm trigger --type=subsystems --action=add
udevadm trigger --type=devices --action=add
udevadm settle
ip link set lo up
ip addr add 10.0.2.15/24 dev eth0
ip link set eth0 up
ip route add default via 10.0.2.2
echo "lab: ready" >/dev/console
exec sh -c 'exec 0<>/dev/hvc0 1>&0 2>&0; stty raw -echo; while :; do sh /dev/hvc0; done'
"""


class HostImages(Images):
    NAME = "host"

    def sources(self):
        return [Path(__file__), *map(Path, PROGRAMS)]

    def fill(self, root):
        for d in ("new", "opt", "run", "root", "sbin", "usr", "etc/udev/rules.d", "var"):
            (root / d).mkdir(parents=True)
        # The loader looks there without being told: libraries on the disk with the programs.
        (root / "usr/lib").symlink_to("/opt/lib")
        for path in run("busybox", "--list", text=True).split():
            # Debian's own are wanted instead.
            if path not in ("busybox", "modprobe", "insmod", "rmmod", "depmod", "lsusb"):
                (root / "bin" / path).symlink_to("busybox")
        self._programs(root)
        self._udev(root)
        (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
        (root / "etc/group").write_text("".join(f"{g}:x:{i}:\n" for i, g in enumerate(GROUPS))
                                        + "nogroup:x:65534:\n")
        (root / "etc/nsswitch.conf").write_text("passwd: files\ngroup: files\n")
        self._modules(root)
        for name, text in (("init", INIT), ("sbin/start", START.format(modules=" ".join(MODULES)))):
            (root / name).write_text(text)
            (root / name).chmod(0o755)

    def _programs(self, root):
        helpers = [str(p) for p in Path("/lib/udev").iterdir() if p.is_file() and os.access(p, os.X_OK)]
        for path in [*PROGRAMS, *helpers]:
            install(root, path, path.replace("/usr/bin/", "/bin/"))
        elf = [p for p in [*PROGRAMS, *helpers] if Path(p).read_bytes()[:4] == b"\x7fELF"]
        for path in libraries(*elf):
            install(root, path)
        for link in ("modprobe", "insmod", "rmmod", "lsmod", "depmod"):
            link = root / "sbin" / link
            link.unlink(missing_ok=True)
            link.symlink_to("/bin/kmod")

    def _udev(self, root):
        rules = root / "lib/udev/rules.d"
        rules.mkdir(parents=True, exist_ok=True)
        for path in Path("/lib/udev/rules.d").glob("*.rules"):
            shutil.copy(path, rules)
        shutil.copy("/etc/udev/udev.conf", root / "etc/udev")

    def _modules(self, root):
        base = self.cache / "kernel/x"
        for path in self.modules(MODULES + MORE_MODULES):
            install(root, str(path), str(path.relative_to(base)))
        for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
            path = base / "lib/modules" / self.version / name
            if path.exists():
                install(root, str(path), str(path.relative_to(base)))
        (root / "etc/modprobe.d").mkdir()
        (root / "etc/modprobe.d/lab.conf").write_text("options usb_storage delay_use=0\noptions dummy_hcd num=2\n")
        run("/sbin/depmod", "-b", str(root), self.version)

    def programs(self, build):
        """A disk image with /bin, /libexec, /lib and /rules for /opt; made anew when one of its files changes."""
        build = Path(build)
        files = {
            "bin": [build / "broker/devbrokerd", build / "broker/devbroker", build / "tests/lab/vmm-relay",
                    build / "tests/lab/fake-device", build / "tests/lab/tcp-run", build / "tests/lab/uevent-times",
                    build / "tests/lab/hold-socket", build / "tests/gpu/test-gpu-front-dmabuf"],
            "libexec": [*sorted(p for p in (build / "usb").glob("devbroker-*") if p.is_file()),
                        build / "broker/devbroker-keyboards", build / "gpu/devbroker-gpu"],
            "rules": sorted((build / "udev-rules").glob("*.rules")),
        }
        parts = [p for group in files.values() for p in group]
        files["lib"] = [Path(p) for p in libraries(*files["bin"], *files["libexec"])]
        text = f"{DISK_MIB}" + "".join(f"{p} {p.stat().st_mtime_ns} {p.stat().st_size}\n" for p in parts)
        image = self.cache / f"programs-{hashlib.sha256(text.encode()).hexdigest()[:16]}.img"
        if not image.exists():
            self._make_disk(image, files)
        os.utime(image)
        self._forget_old(image)
        return image

    def empty_disk(self):
        """What stands in for it while the snapshot is made."""
        image = self.cache / "programs-none"
        with open(image, "ab") as f:
            f.truncate(DISK_MIB << 20)
        return image

    def _make_disk(self, image, files):
        root = image.with_suffix(f".{os.getpid()}.d")
        tmp = image.with_suffix(f".{os.getpid()}.tmp")
        for folder, paths in files.items():
            (root / folder).mkdir(parents=True)
            for path in paths:
                shutil.copy(path, root / folder)
        # The size is always the same: the kernel in the snapshot knows it already.
        subprocess.run(["/sbin/mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-m", "0", "-E", "root_owner=0:0", "-d",
                        str(root), str(tmp), f"{DISK_MIB}M"], check=True, stdout=subprocess.DEVNULL)
        tmp.rename(image)
        shutil.rmtree(root)

    def _forget_old(self, keep):
        for path in self.cache.glob("programs-*.img"):
            if path != keep and path.stat().st_mtime < time.time() - 3600:
                path.unlink(missing_ok=True)
