#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The usb-breadth suite, guard: what a guest may see of a lent device, and do to it."""
import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lab"))
import gadgets
import runner
from broker import CliError
from host_case import Ours, lsusb, read_sha256, wait_line

DATA_PROTECT, WRITE_PROTECTED, ILLEGAL_REQUEST, INVALID_OPCODE = 7, 0x27, 5, 0x20
ENOENT, EPIPE = 2, 32


def start(lab):
    h = lab.host()
    lab.start_broker()
    g = lab.vm()
    return h, g, Ours(lab, g)


def scsi(g, disk, direction, length, command):
    """A command of the guest's own making; returns (sense key, additional sense code)."""
    said = json.loads(g.run(f"usbpoke scsi /dev/{disk} {direction} {length} {command}", timeout=40))
    assert said["host"] == 0, said
    return said["key"], said["code"]


def check_protected(g, disk, wanted):
    """The guest sees a write-protected disk, reads all of it (sha256), and can't write by any way."""
    assert g.run(f"cat /sys/block/{disk}/ro") == "1"
    assert read_sha256(g, disk) == wanted
    code, _ = g.run(f"dd if=/dev/zero of=/dev/{disk} bs=64k count=4 conv=notrunc 2>/dev/null", check=False)
    assert code != 0
    # Past the guest's own kernel, which would not even try.
    sector = "00000008" + "00" + "0001" + "00"
    assert scsi(g, disk, "out", 512, "2a00" + sector) == (DATA_PROTECT, WRITE_PROTECTED)
    assert scsi(g, disk, "out", 512, "2e00" + sector) == (DATA_PROTECT, WRITE_PROTECTED)
    assert scsi(g, disk, "out", 24, "42000000000000001800") == (DATA_PROTECT, WRITE_PROTECTED)
    assert scsi(g, disk, "out", 65536, "8a00" + "00" * 8 + "00000080" + "0000") == (DATA_PROTECT, WRITE_PROTECTED)
    assert scsi(g, disk, "none", 0, "040000000000") == (DATA_PROTECT, WRITE_PROTECTED)
    assert scsi(g, disk, "out", 512, "850a0600000001000000000000403000") == (ILLEGAL_REQUEST, INVALID_OPCODE)
    assert scsi(g, disk, "in", 64, "c0000000000000000000") == (ILLEGAL_REQUEST, INVALID_OPCODE)
    assert scsi(g, disk, "in", 512, "2800" + sector) == (0, 0)
    assert scsi(g, disk, "none", 0, "35000000000000000000") == (0, 0)
    g.run(f"blockdev --flushbufs /dev/{disk}")
    assert read_sha256(g, disk) == wanted


def transfers(lab, name):
    """What its worker has counted, when nothing goes on."""
    seen = [-1]
    while seen[-1] != (now := lab.broker.device(name)["statistics"]["transfers"]):
        seen.append(now)
        time.sleep(1.2)
    return now


def check_capture(lab, name, counted):
    """A capture in the host is whole, of that device, and has as many transfers."""
    said = json.loads(lab.machine.run("cat /tmp/cli.begun"))
    file = lab.work / "c.pcapng"
    file.write_bytes(lab.machine.pull("/tmp/c.pcapng"))
    out = subprocess.run(["tshark", "-r", file, "-T", "fields", "-e", "usb.urb_type", "-e", "usb.bus_id", "-e",
                          "usb.device_address", "-e", "_ws.malformed"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                         text=True, check=True, timeout=60).stdout
    rows = [line.split("\t") for line in out.splitlines()]
    usb = lab.broker.cli("show", name)["usb"]
    assert len([r for r in rows if "C" in r[0]]) == counted == said["completions"], (len(rows), counted, said)
    assert {(r[1], r[2]) for r in rows} == {(str(usb["bus_number"]), str(usb["device_number"]))}, rows[:3]
    assert said["dropped"] == 0 and not any(r[3:] and r[3] for r in rows), said
    lab.note(f"{counted} transfers captured, as many as counted")


def test_read_only_stick(lab):
    """a stick lent read-only is write-protected in the guest; what it holds is the same afterwards, bit by bit"""
    h, g, ours = start(lab)
    image = lab.image("storage.img", mib=4)
    content = image.read_bytes()
    h.plug("storage", "stick", image=image)
    name = ours.lend("stick", "--read-only")
    device = ours.device("stick")
    assert device["read_only"] and device["lent_interfaces"] == "", device
    check_protected(g, g.wait_disk(), hashlib.sha256(content).hexdigest())
    statistics = lab.broker.device(name)["statistics"]
    assert statistics["errors"] == 0, statistics
    # Lent already, and not so.
    try:
        lab.broker.cli("attach", name, "guest")
        raise AssertionError("it is lent twice")
    except CliError as e:
        assert e.error["code"] == "busy", e
    ours.take_back("stick")
    h.wait_drivers("stick", ["usb-storage"])
    assert image.read_bytes() == content
    # Writable again.
    ours.lend("stick")
    assert not ours.device("stick")["read_only"]
    assert g.run(f"cat /sys/block/{g.wait_disk()}/ro") == "0"
    ours.take_back("stick")


def test_read_only_gadget(lab):
    """the same with another stick, at high speed; a capture of it agrees with its worker and with lsusb"""
    h, g, ours = start(lab)
    backing = gadgets.mass_storage(h, "gstick", mib=4)
    wanted = h.run(f"sha256sum {backing}").split()[0]
    name = ours.lend("gstick", "--read-only")
    disk = g.wait_disk("gstick")
    before = transfers(lab, name)
    lab.broker.begin_cli("capture", name, "-o", "/tmp/c.pcapng", "--headers-only", "--json")
    h.run("until [ -s /tmp/c.pcapng ]; do usleep 50000; done; usleep 300000")
    check_protected(g, disk, wanted)
    counted = transfers(lab, name) - before
    h.run("for p in /proc/[0-9]*; do [ \"$(cat $p/comm 2>/dev/null)\" != devbroker ] || kill -INT ${p#/proc/}; done")
    h.run("until [ -s /tmp/cli.begun ]; do usleep 50000; done")
    check_capture(lab, name, counted)
    ours.take_back("gstick")
    h.wait_drivers("gstick", ["usb-storage"])
    assert h.run(f"sha256sum {backing}").split()[0] == wanted


def test_read_only_uas(lab):
    """the same with a disk that speaks UAS only, over streams"""
    h, g, ours = start(lab)
    image = lab.image("uas.img", mib=4)
    content = image.read_bytes()
    h.plug("uas", "uas", image=image)
    ours.lend("uas", "--read-only")
    disk = g.wait_disk()
    assert g.drivers("uas") == ["uas"], g.drivers("uas")
    check_protected(g, disk, hashlib.sha256(content).hexdigest())
    ours.take_back("uas")
    h.wait_drivers("uas", ["uas"])
    assert image.read_bytes() == content


def refused(lab, *args):
    """Returns the error of an attach that must fail."""
    try:
        lab.broker.cli("attach", *args, "--wait", "--last-input")
    except CliError as e:
        return e.error
    raise AssertionError(f"{args}: it is lent")


def test_what_is_refused(lab):
    """a keyboard can't be write-protected, nor what isn't there be lent: the host keeps it"""
    h, g, ours = start(lab)
    h.plug("kbd", "kbd")
    keyboard = ours.wait_device("kbd")["name"]
    for options, code in ((["--read-only"], "not-supported"), (["--interfaces=1"], "invalid"),
                          (["--interfaces=x"], "invalid"), (["--interfaces=0", "--remember"], "not-supported")):
        error = refused(lab, keyboard, "guest", *options)
        assert error["code"] == code and error["remedy"], (options, error)
    h.wait_drivers("kbd", ["usbhid"])


def test_one_function(lab):
    """of a composite device the guest sees its serial line only, which works both ways; the host gets all of it back"""
    h, g, ours = start(lab)
    gadgets.composite(h, "combo")
    numbers = {n["class"][:2]: n["number"] for n in lab.broker.cli("show", ours.wait_device("combo")["name"])["usb"]["interfaces"]
               if n["driver"] == "cdc_acm"}
    shown = f"{numbers['02']},{numbers['0a']}"
    ours.lend("combo", f"--interfaces={shown}")
    assert ours.device("combo")["lent_interfaces"] == shown
    tty = g.wait_node("combo", "tty/ttyACM*")
    said = lsusb(g, "combo")
    assert said.count("bInterfaceNumber") == 2 and "bNumInterfaces          2" in said, said
    assert said.count("Interface Association:") == 1 and "Human Interface Device" not in said, said
    assert g.drivers("combo") == ["cdc_acm", "cdc_acm"], g.drivers("combo")
    g.run(f"exec 5<>/dev/{tty}; usbpoke tty /dev/{tty}; {{ head -n 1 <&5; }} >/tmp/line &")
    h.run("exec 5<>/dev/ttyGS0; stty -F /dev/ttyGS0 raw -echo; echo from the host >&5")
    wait_line(g, "from the host")
    h.run("{ timeout 20 head -n 1 <&5; } >/tmp/line & usleep 100000")
    g.run("echo from the guest >&5")
    wait_line(h, "from the guest")
    # SET_REPORT of the keyboard: its kernel knows no such interface.
    node = g.usb_node("combo")
    hidden = next(n for n in range(8) if str(n) not in shown.split(","))
    assert json.loads(g.run(f"usbpoke request {node} 0x21 9 0x200 {hidden}"))["error"] == ENOENT
    g.run("exec 5>&-")
    h.run("exec 5>&-")
    ours.take_back("combo")
    h.wait_drivers("combo", ["usbhid", "cdc_acm", "cdc_acm", "cdc_ether", "cdc_ether"])


def test_firmware(lab):
    """a guest can't replace a device's firmware (DFU), unless it may"""
    h, g, ours = start(lab)
    gadgets.fake(h, "firmware", "fw")
    for options, download in (([], EPIPE), (["--allow-firmware"], 0)):
        ours.lend("fw", *options)
        assert ours.device("fw")["allow_firmware"] == bool(options)
        node = g.usb_node("fw")
        for request in (0, 1):
            assert json.loads(g.run(f"usbpoke request {node} 0x21 {request} 0 1"))["error"] == download, (options, request)
        # CLRSTATUS, and the other interface.
        assert json.loads(g.run(f"usbpoke request {node} 0x21 4 0 1"))["error"] == 0
        assert json.loads(g.run(f"usbpoke request {node} 0x21 1 0 0"))["error"] == 0
        ours.take_back("fw")
    gadgets.fake_unplug(h, "fw")


if __name__ == "__main__":
    runner.main([sys.modules[__name__]])
