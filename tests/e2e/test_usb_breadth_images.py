#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The usb-breadth suite, images: CD-ROMs that a guest mounts and its firmware boots."""
import hashlib
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lab"))
import runner
from guest import QEMU, Guest, LabError

BOOTED = b"devbroker booted this\r\n"
# cld; xor ax, ax; mov ds, ax; mov si, 7c16; each byte up to a 0 to port 3f8; hlt for ever
BOOT_CODE = bytes.fromhex("fc 31c0 8ed8 be167c ac 84c0 7406 baf803 ee ebf5 f4 ebfd") + BOOTED + b"\0"


class Bare(Guest):
    """A PC without a disk or kernel: what its firmware finds on USB boots."""

    def argv(self):
        return [QEMU, "-M", "q35", "-accel", self.accel, "-m", "64", "-smp", "1", "-nodefaults", "-no-user-config",
                "-display", "none", "-S", "-serial", f"file:{self.serial}", "-device", "qemu-xhci,id=xhci",
                "-qmp", f"unix:{self.work}/lab.qmp,server=on,wait=off",
                "-qmp", f"unix:{self.qmp_path},server=on,wait=off"]

    def _connect(self, timeout):
        from guest import Qmp
        self.qmp = Qmp(self.work / "lab.qmp", timeout)

    def start(self):
        self._spawn()
        self._connect(20)
        return self


def make_iso(lab, *options, data=b""):
    tree = lab.work / "tree"
    tree.mkdir(exist_ok=True)
    (tree / "data.bin").write_bytes(data)
    (tree / "boot.img").write_bytes(BOOT_CODE.ljust(2048, b"\0"))
    iso = lab.work / "disc.iso"
    subprocess.run(["xorriso", "-as", "mkisofs", "-quiet", "-J", "-r", "-V", "DEVBROKER", *options, "-o", iso, tree],
                   check=True, stderr=subprocess.DEVNULL)
    return iso


def test_cdrom_mounted(lab):
    """a CD-ROM is one to Linux: mounted by its label's file system, a file's sha256 equal, never written, ejected"""
    data = bytes(range(256)) * 8192  # 2 MiB
    iso = make_iso(lab, data=data)
    before = hashlib.sha256(iso.read_bytes()).hexdigest()
    b = lab.start_broker()
    g = lab.vm()
    idle = b.idle()
    b.cli("disk", "add", iso, "--name", "disc", "--cdrom")
    device = b.cli("attach", "disc", "guest", "--wait")["device"]
    assert device["read_only"] and "CD-ROM" in device["description"], device
    deadline = time.monotonic() + 15
    while g.run("cat /sys/block/sr0/size 2>/dev/null || echo 0") in ("0", ""):
        assert time.monotonic() < deadline, g.dmesg()
        time.sleep(0.05)
    g.run("mkdir -p /cd && mount -t iso9660 -o ro /dev/sr0 /cd", timeout=20)
    assert g.run("sha256sum /cd/data.bin").split()[0] == hashlib.sha256(data).hexdigest()
    whole = g.run("dd if=/dev/sr0 bs=64k 2>/dev/null | sha256sum", timeout=60).split()[0]
    assert whole == before, whole
    size = int(g.run("cat /sys/block/sr0/size"))
    assert size * 512 == iso.stat().st_size, size
    assert g.run("cat /sys/block/sr0/queue/logical_block_size") == "2048"
    code, said = g.run("umount /cd; dd if=/dev/zero of=/dev/sr0 bs=2048 count=1", check=False)
    assert code != 0, said
    info = g.run("cat /proc/sys/dev/cdrom/info")
    for wanted in ("Can close tray:\t\t1", "Can read DVD:\t\t1", "Can write CD-R:\t\t0"):
        assert wanted in info, info
    g.run("blockio eject /dev/sr0")
    b.wait_state("disk:disc", "present")
    assert b.device("disk:disc")["reason"] == "guest-ejected"
    assert hashlib.sha256(iso.read_bytes()).hexdigest() == before
    b.check_idle(idle, ["guest"])


def test_cdrom_boots(lab):
    """an ISO that SeaBIOS boots: attached to a VM that is paused, then continued"""
    iso = make_iso(lab, "-b", "boot.img", "-no-emul-boot", "-boot-load-size", "4")
    b = lab.start_broker()
    g = Bare(lab.images, lab.work / "pc", "pc")
    lab.guests.append(g)
    g.start()
    b.cli("vm", "add", "pc", "--qmp", g.qmp_path)
    b.wait_vm("pc", "paused")
    b.cli("disk", "add", iso, "--name", "disc", "--cdrom")
    b.cli("attach", "disc", "pc")
    deadline = time.monotonic() + 10
    while not g.objects():
        assert time.monotonic() < deadline, b.device("disk:disc")
        time.sleep(0.05)
    start = time.monotonic()
    g.qmp.call("cont")
    while BOOTED.decode().strip() not in g.dmesg():
        if time.monotonic() - start > 40:
            raise LabError(f"the firmware booted nothing: {b.device('disk:disc')}; {g.dmesg()[-300:]}")
        time.sleep(0.05)
    lab.note(f"its boot sector spoke {time.monotonic() - start:.1f} s after power-on")


if __name__ == "__main__":
    runner.main([sys.modules[__name__]])
