#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The usb-breadth suite, images: CD-ROMs that a guest mounts and its firmware boots; exports of NBD servers."""
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lab"))
import runner
from broker import CliError
from guest import QEMU, Guest, LabError, Qmp, die_with_parent

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


def serve_nbd(lab, image, *options, export=""):
    """A qemu-nbd with image; returns it and its URI."""
    path = lab.work / "nbd.sock"
    path.unlink(missing_ok=True)
    server = subprocess.Popen(["qemu-nbd", "--socket", path, "--persistent", "--export-name", export, *options, image],
                              preexec_fn=die_with_parent)
    deadline = time.monotonic() + 10
    while not path.exists():
        assert server.poll() is None and time.monotonic() < deadline, "qemu-nbd does not listen"
        time.sleep(0.02)
    return server, f"nbd+unix:///{export}?socket={path}"


def end(server):
    server.terminate()
    server.wait(10)


def image_info(image, what, *options):
    out = subprocess.run(["qemu-img", what, "--output=json", *options, image], stdout=subprocess.PIPE, check=True)
    return json.loads(out.stdout)


def attach(lab, uri, *options, name="net"):
    b = lab.broker
    b.cli("disk", "add", uri, "--name", name, *options)
    device = b.cli("attach", name, "guest", "--wait")["device"]
    return device, lab.guests[0].wait_disk(device["serial"])


def test_nbd_qcow2(lab):
    """a QCOW2 image over NBD: what the guest wrote and synced is in it, what it discarded is not, qemu-img is content"""
    image = lab.work / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "64M"], check=True)
    server, uri = serve_nbd(lab, image, "--format=qcow2", "--discard=unmap", "--cache=writeback", export="disk")
    b = lab.start_broker()
    g = lab.vm()
    idle, fds = b.idle(), len(os.listdir(f"/proc/{b.process.pid}/fd"))
    device, disk = attach(lab, uri)
    assert device["path"] == uri and "NBD" in device["description"] and not device["read_only"], device
    assert g.run(f"cat /sys/block/{disk}/size") == str(64 * 2048)
    g.run(f"dd if=/dev/urandom of=/tmp/data bs=1M count=6 2>/dev/null; dd if=/tmp/data of=/dev/{disk} bs=1M seek=8 "
          f"oflag=direct 2>/dev/null; sync; echo 3 >/proc/sys/vm/drop_caches", timeout=60)
    wanted = g.run("sha256sum /tmp/data").split()[0]
    assert g.run(f"dd if=/dev/{disk} bs=1M skip=8 count=6 2>/dev/null | sha256sum", timeout=60).split()[0] == wanted
    g.run(f"blockio unmap /dev/{disk} {16384 + 4096} 2048")  # the third MiB of the six
    b.cli("detach", "net")
    end(server)
    assert not image_info(image, "check").get("corruptions"), "qemu-img check"
    raw = lab.work / "disk.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", image, raw], check=True)
    data = raw.read_bytes()[8 << 20:14 << 20]
    written = hashlib.sha256(data[:2 << 20]).hexdigest(), hashlib.sha256(data[3 << 20:]).hexdigest()
    assert data[2 << 20:3 << 20] == bytes(1 << 20)
    told = g.run("dd if=/tmp/data bs=1M count=2 2>/dev/null | sha256sum; dd if=/tmp/data bs=1M skip=3 2>/dev/null | "
                 "sha256sum").split()
    assert written == (told[0], told[2]), (written, told)
    mapped = sum(e["length"] for e in image_info(image, "map") if e["data"])
    lab.note(f"{mapped >> 20} MiB of the 6 that were written are mapped after the discard of one")
    assert mapped == 5 << 20, mapped
    b.check_idle(idle, ["guest"])
    assert len(os.listdir(f"/proc/{b.process.pid}/fd")) == fds


def test_nbd_read_only(lab):
    """an export that is read-only, and one that is attached so: bit-identical after the guest tried to write"""
    image = lab.image(mib=8)
    before = hashlib.sha256(image.read_bytes()).hexdigest()
    b = lab.start_broker()
    g = lab.vm()
    for server_options, options in ((("--read-only",), ()), ((), ("--read-only",))):
        server, uri = serve_nbd(lab, image, "--format=raw", *server_options)
        _, disk = attach(lab, uri, *options)
        assert g.run(f"cat /sys/block/{disk}/ro") == "1"
        assert g.run(f"sha256sum /dev/{disk}", timeout=60).split()[0] == before
        code, said = g.run(f"dd if=/dev/zero of=/dev/{disk} bs=4k count=1 oflag=direct", check=False)
        assert code != 0, said
        b.cli("detach", "net")
        end(server)
        assert hashlib.sha256(image.read_bytes()).hexdigest() == before


def test_nbd_server_killed(lab):
    """the NBD server killed in mid-read: the guest reads of an I/O error at once, nothing hangs; with a new connection it is there again"""
    image = lab.image(mib=32)
    server, uri = serve_nbd(lab, image, "--format=raw")
    b = lab.start_broker()
    g = lab.vm()
    idle = b.idle()
    _, disk = attach(lab, uri)
    worker = b.device("disk:net")["worker_pid"]
    g.begin(f"while dd if=/dev/{disk} of=/dev/null bs=64k iflag=direct 2>/dev/null; do :; done; echo ended")
    time.sleep(0.5)
    start = time.monotonic()
    server.kill()
    server.wait()
    while "ended" not in g.run("cat /tmp/background"):
        assert time.monotonic() - start < 10, "the guest's read hangs"
        time.sleep(0.05)
    lab.note(f"the guest's read failed after {time.monotonic() - start:.2f} s")
    code, _ = g.run(f"dd if=/dev/zero of=/dev/{disk} bs=4k count=1 oflag=direct", check=False)
    assert code != 0
    now = b.device("disk:net")
    assert now["state"] == "configured" and now["worker_pid"] == worker, now
    # While there is no server, nothing changes.
    try:
        b.cli("disk", "add", uri, "--name", "net")
    except CliError as e:
        assert "can't connect" in e.error["message"], e
    else:
        raise LabError("added without a server")
    assert b.device("disk:net")["state"] == "configured"
    # It is back: the same command brings the disk back to its guest.
    server, uri = serve_nbd(lab, image, "--format=raw")
    start = time.monotonic()
    b.cli("disk", "add", uri, "--name", "net")
    while (now := b.device("disk:net"))["state"] != "configured" or now["worker_pid"] == worker:
        assert time.monotonic() - start < 15, now
        time.sleep(0.02)
    disk = g.wait_disk(now["serial"])
    lab.note(f"there again {time.monotonic() - start:.2f} s after it was added with a new connection")
    assert g.run(f"sha256sum /dev/{disk}", timeout=60).split()[0] == hashlib.sha256(image.read_bytes()).hexdigest()
    # It is no way to take a disk that works out of its guest.
    try:
        b.cli("disk", "add", uri, "--name", "net")
    except CliError as e:
        assert "already" in e.error["message"], e
    else:
        raise LabError("a disk that works was lent anew")
    assert b.device("disk:net")["worker_pid"] == now["worker_pid"]
    b.cli("detach", "net")
    try:
        b.cli("attach", "net", "guest")
    except CliError as e:
        assert "used up" in e.error["message"], e
    else:
        raise LabError("a used connection was lent again")
    end(server)
    b.check_idle(idle, ["guest"])


def test_nbd_broker_restarted(lab):
    """the broker killed and started again: the export stays in its guest, with the same worker"""
    image = lab.image(mib=8)
    server, uri = serve_nbd(lab, image, "--format=raw")
    b = lab.start_broker()
    g = lab.vm()
    _, disk = attach(lab, uri)
    worker = b.device("disk:net")["worker_pid"]
    b.kill()
    b.start()
    b.wait_state("disk:net", "configured")
    now = b.device("disk:net")
    assert now["worker_pid"] == worker and now["path"] == uri, now
    g.run("echo 3 >/proc/sys/vm/drop_caches")
    assert g.run(f"sha256sum /dev/{disk}", timeout=60).split()[0] == hashlib.sha256(image.read_bytes()).hexdigest()
    b.cli("detach", "net")
    end(server)


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
    assert b.cli("attach", iso, "pc", "--cdrom")["device"]["name"] == "disk:disc"
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
