# SPDX-License-Identifier: MIT
"""Kernel and initramfs of the test guests, made from Debian's packages and cached in build/lab.

The kernel is Debian's own linux-image (the cloud one has no USB). The ELF file inside vmlinuz boots by PVH in half the
time of the bzImage. The initramfs is busybox, the drivers of the devices that are lent, lsusb, and a shell on a virtio
console.
"""
import hashlib
import lzma
import shutil
import subprocess
from pathlib import Path

MODULES = ["virtio_pci", "virtio_console", "xhci_pci", "usb_storage", "uas", "sd_mod", "sr_mod", "isofs", "vfat", "nls_cp437",
           "nls_iso8859-1", "nls_ascii", "nls_utf8", "usbhid", "hid_generic", "evdev", "cdc_acm", "ftdi_sio",
           "snd_usb_audio", "snd_pcm_oss", "cdc_ether", "usbmon"]
APPLETS = ["sh", "mount", "umount", "insmod", "cat", "ls", "sleep", "dd", "sha256sum", "sync", "poweroff", "reboot",
           "stty", "mkdir", "echo", "dmesg", "seq", "tail", "head", "grep", "wc", "fdisk", "cp", "rm", "kill",
           "cut", "tr", "readlink", "basename", "blockdev", "date", "true", "printf", "cmp", "find", "hexdump",
           "sed", "ip", "ping", "nc", "timeout", "usleep", "ln", "base64",
           "awk", "xxd", "mkfifo", "gzip", "chroot", "pidof"]
# Programs of tests/lab, linked statically.
TOOLS = ["blockio", "usbpoke"]

INIT = """#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for m in {order}; do
	case $m in
	usb-storage.ko) insmod /lib/modules/$m delay_use=0 ;;
	*) insmod /lib/modules/$m ;;
	esac
done
i=0
while [ ! -e /dev/hvc0 ] && [ $i -lt 100 ]; do sleep 0.1; i=$((i + 1)); done
echo "lab: ready" >/dev/console
# The same open file for input and output, so that raw mode holds; a script's shell prints no prompt.
exec sh -c 'exec 0<>/dev/hvc0 1>&0 2>&0; stty raw -echo; while :; do sh /dev/hvc0; done'
"""


def run(*argv, **kw):
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, **kw).stdout


def libraries(*programs):
    """The shared libraries that programs load, with the loader."""
    found = set()
    for line in run("ldd", *map(str, programs), text=True).splitlines():
        for word in line.split():
            if word.startswith("/") and not word.endswith(":"):
                found.add(word)
    return sorted(found)


def install(root, path, to=None):
    """Copies a program into root, at the same path or as to."""
    target = root / (to or path).lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, target)
    return target


class Images:
    """vmlinux and initrd, ready to boot."""

    NAME = "guest"
    MODULES = MODULES
    TOOLS = TOOLS

    def __init__(self, cache, source, say=print):
        self.cache = Path(cache)
        self.source = Path(source)
        self.say = say
        self.cache.mkdir(parents=True, exist_ok=True)
        self._kernel()
        self._initrd()

    def _kernel(self):
        done = self.cache / "kernel.version"
        if not done.exists():
            self.say("lab: fetching Debian's kernel package")
            work = self.cache / "kernel.tmp"
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
            # apt's sandbox user can't write here, and need not.
            opts = ["-o", "APT::Sandbox::User=root"]
            out = run("apt-cache", "depends", "linux-image-amd64", text=True)
            package = [l.split(":")[1].strip() for l in out.splitlines() if "Depends: linux-image-" in l][0]
            run("apt-get", *opts, "download", "-q", package, cwd=work)
            run("dpkg", "-x", str(next(work.glob("*.deb"))), str(work / "x"))
            next(work.glob("*.deb")).unlink()
            version = next((work / "x/lib/modules").iterdir()).name
            vmlinuz = (work / f"x/boot/vmlinuz-{version}").read_bytes()
            at = vmlinuz.find(b"\xfd7zXZ\x00")
            (work / "vmlinux").write_bytes(lzma.LZMADecompressor().decompress(vmlinuz[at:]))
            run("/sbin/depmod", "-b", str(work / "x"), version)
            shutil.rmtree(self.cache / "kernel", ignore_errors=True)
            work.rename(self.cache / "kernel")
            done.write_text(version)
        self.version = done.read_text()
        self.vmlinux = self.cache / "kernel/vmlinux"

    def _dependencies(self, module):
        out = run("/sbin/modprobe", "-d", str(self.cache / "kernel/x"), "-S", self.version, "--show-depends", module,
                  text=True)
        return [Path(l.split()[1]) for l in out.splitlines() if l.startswith("insmod")]

    def modules(self, names):
        """Paths of modules and what they need, in the order of loading."""
        order = []
        for m in names:
            order += [p for p in self._dependencies(m) if p not in order]
        return order

    def sources(self):
        """The files whose change makes another initramfs."""
        return [Path(__file__), Path("/usr/bin/lsusb"), *(self.source / f"tests/lab/{tool}.c" for tool in self.TOOLS)]

    def _initrd(self):
        stamp = hashlib.sha256(b"".join(p.read_bytes() for p in self.sources()) + self.version.encode()).hexdigest()
        self.stamp = stamp[:16]
        prefix = "initrd" if self.NAME == "guest" else f"initrd-{self.NAME}"
        self.initrd = self.cache / f"{prefix}-{self.stamp}.gz"
        if self.initrd.exists():
            return
        self.say(f"lab: building the {self.NAME}'s initramfs")
        root = self.cache / f"root-{self.NAME}.tmp"
        shutil.rmtree(root, ignore_errors=True)
        for d in ("bin", "dev", "proc", "sys", "tmp", "mnt", "lib/modules"):
            (root / d).mkdir(parents=True)
        shutil.copy(shutil.which("busybox", path="/bin:/usr/bin"), root / "bin/busybox")
        self.fill(root)
        tmp = self.initrd.with_suffix(".tmp")
        subprocess.run(f"find . | cpio -o -H newc --quiet | gzip -1 >'{tmp}'", shell=True, check=True, cwd=root)
        tmp.rename(self.initrd)
        shutil.rmtree(root)

    def fill(self, root):
        """Puts everything but busybox itself into the root folder of the initramfs."""
        for a in APPLETS:
            (root / "bin" / a).symlink_to("busybox")
        for tool in self.TOOLS:
            run("gcc", "-D_GNU_SOURCE", "-O2", "-static", "-o", str(root / "bin" / tool),
                str(self.source / f"tests/lab/{tool}.c"))
        for path in ["/usr/bin/lsusb", *libraries("/usr/bin/lsusb")]:
            install(root, path, "/bin/lsusb" if path == "/usr/bin/lsusb" else None)
        order = self.modules(self.MODULES)
        for path in order:
            shutil.copy(path, root / "lib/modules" / path.name)
        init = root / "init"
        init.write_text(INIT.format(order=" ".join(p.name for p in order)))
        init.chmod(0o755)
