#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The host suite, part 1: kinds of devices of a real Linux kernel with udevd, in a VM, lent to a guest beside it."""
import hashlib
import os
import random
import re
import socket
import struct
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lab"))
import gadgets
import runner
from guest import LabError
from host_case import EV_ABS, EV_KEY, Ours, Peer, input_events, lsusb, read_sha256, wait_line

# For trying the lab itself: everything is lent by the peer.
LENDER = Peer if os.environ.get("LAB_LENDER") == "usbredirect" else Ours


def start(lab):
    """A host and a guest; returns (host, guest, lender)."""
    h = lab.host()
    if LENDER is Peer:
        g = lab.guest()
    else:
        lab.start_broker()
        g = lab.vm()
    return h, g, LENDER(lab, g)


def test_lab_disk_image(lab):
    """the broker in the host VM lends a disk image to the guest beside it: sha256 equal, nothing left behind"""
    h = lab.host()
    b = lab.start_broker()
    g = lab.vm()
    idle = b.idle()
    h.run("dd if=/dev/urandom of=/tmp/stick.img bs=1M count=8 2>/dev/null; chmod 644 /tmp/stick.img")
    b.cli("disk", "add", "/tmp/stick.img", "--name", "stick")
    device = b.cli("attach", "stick", "guest", "--wait")["device"]
    disk = g.wait_disk(device["serial"])
    assert read_sha256(g, disk) == h.run("sha256sum /tmp/stick.img").split()[0]
    b.cli("detach", "stick")
    b.check_idle(idle, ["guest"])
    assert not g.objects() and not [c for c in g.chardevs() if c.startswith("devbroker")]


def check_storage(lab, kind, h, g, lender):
    """Reads all of it, writes a part, reads that on the host's side."""
    image = lab.image(f"{kind}.img", mib=16)
    h.plug(kind, "stick", image=image)
    driver = h.drivers("stick")
    lender.lend("stick")
    disk = g.wait_disk()
    assert read_sha256(g, disk) == hashlib.sha256(image.read_bytes()).hexdigest()
    g.run(f"dd if=/dev/urandom of=/tmp/data bs=1M count=4 2>/dev/null; "
          f"dd if=/tmp/data of=/dev/{disk} bs=1M seek=3 2>/dev/null; sync", timeout=60)
    wanted = g.run("sha256sum /tmp/data").split()[0]
    with open(image, "rb") as f:
        f.seek(3 << 20)
        assert hashlib.sha256(f.read(4 << 20)).hexdigest() == wanted
    lender.take_back("stick")
    h.wait_drivers("stick", driver)
    # The host's own view is not what it had cached.
    name = h.wait_disk()
    h.run(f"blockdev --flushbufs /dev/{name}")
    assert h.run(f"dd if=/dev/{name} bs=1M skip=3 count=4 2>/dev/null | sha256sum").split()[0] == wanted
    return driver


def test_storage(lab):
    """a USB stick of the host is read and written by the guest: sha256 equal, host driver back"""
    h, g, lender = start(lab)
    assert check_storage(lab, "storage", h, g, lender) == ["usb-storage"]
    assert "new SuperSpeed USB device" in g.dmesg()


def test_uas_streams(lab):
    """a UAS disk is read and written with bulk streams: sha256 equal, host driver back"""
    h, g, lender = start(lab)
    assert check_storage(lab, "uas", h, g, lender) == ["uas"]
    assert "uas" in g.dmesg() and "scsi host0: uas" in g.dmesg(), g.dmesg()


def test_gadget_storage(lab):
    """a stick on another host controller, at high speed: sha256 equal"""
    h, g, lender = start(lab)
    backing = gadgets.mass_storage(h, "gstick")
    lender.lend("gstick")
    assert read_sha256(g, g.wait_disk("gstick")) == h.run(f"sha256sum {backing}").split()[0]
    lender.take_back("gstick")
    h.wait_drivers("gstick", ["usb-storage"])


def test_keyboard_reports(lab):
    """a keyboard's reports arrive in the guest, key by key, none twice"""
    h, g, lender = start(lab)
    h.plug("kbd", "kbd")
    lender.lend("kbd")
    # KEY_A is 30, KEY_B 48, KEY_ENTER 28.
    events = input_events(g, "kbd", lambda: h.keys("a", "b", "ret"), 6)
    assert events == [(EV_KEY, code, value) for code in (30, 48, 28) for value in (1, 0)], events
    lender.take_back("kbd")
    h.wait_drivers("kbd", ["usbhid"])


def test_tablet_reports(lab):
    """a tablet's positions arrive in the guest"""
    h, g, lender = start(lab)
    h.plug("tablet", "tablet")
    lender.lend("tablet")

    def move():
        for x, y in ((1000, 2000), (30000, 12345)):
            h.qmp.call("input-send-event", events=[{"type": "abs", "data": {"axis": "x", "value": x}},
                                                   {"type": "abs", "data": {"axis": "y", "value": y}}])
            time.sleep(0.1)

    events = input_events(g, "tablet", move, 4)
    assert [e for e in events if e[0] == EV_ABS] == [(EV_ABS, 0, 1000), (EV_ABS, 1, 2000), (EV_ABS, 0, 30000),
                                                     (EV_ABS, 1, 12345)], events


def test_serial_both_ways(lab):
    """a serial adapter carries text both ways, unharmed"""
    h, g, lender = start(lab)
    h.plug("serial", "tty")
    cable = socket.socket(socket.AF_UNIX)
    cable.connect(str(h.serial_path("tty")))
    cable.settimeout(20)
    lender.lend("tty")
    tty = g.wait_node("tty", "ttyUSB*")
    text = bytes(random.choices(b"abcdefghijklmnopqrstuvwxyz0123456789\n", k=6000))
    g.run(f"exec 5<>/dev/{tty}; usbpoke tty /dev/{tty}; "
          "{ head -c 6000 <&5 | sha256sum; echo ended; } >/tmp/background 2>&1 & usleep 200000")
    cable.sendall(text)
    for _ in range(100):
        if "ended" in g.run("cat /tmp/background"):
            break
        time.sleep(0.1)
    assert g.run("cat /tmp/background").split()[0] == hashlib.sha256(text).hexdigest(), g.run("cat /tmp/background")
    wanted = g.run("dd if=/dev/urandom bs=3000 count=1 2>/dev/null | base64 >/tmp/text; sha256sum /tmp/text").split()[0]
    size = int(g.run("cat /tmp/text | wc -c"))
    g.run("cat /tmp/text >&5")
    got = b""
    while len(got) < size:
        got += cable.recv(65536)
    assert hashlib.sha256(got).hexdigest() == wanted
    g.run("exec 5>&-")
    lender.take_back("tty")
    h.wait_drivers("tty", ["ftdi_sio"])


def test_composite(lab):
    """a composite device works with all of its parts: keyboard, serial line and network card"""
    h, g, lender = start(lab)
    gadgets.composite(h, "combo")
    lender.lend("combo")
    # The keyboard: press and release KEY_A (usage 4).
    press = r"printf '\0\0\4\0\0\0\0\0' >/dev/hidg0; usleep 100000; printf '\0\0\0\0\0\0\0\0' >/dev/hidg0"
    assert input_events(g, "combo", lambda: h.run(press), 2) == [(EV_KEY, 30, 1), (EV_KEY, 30, 0)]
    # The serial line, both ways.
    tty = g.wait_node("combo", "tty/ttyACM*")
    g.run(f"exec 5<>/dev/{tty}; usbpoke tty /dev/{tty}; {{ head -n 1 <&5; }} >/tmp/line &")
    h.run("exec 5<>/dev/ttyGS0; stty -F /dev/ttyGS0 raw -echo; echo from the host >&5")
    wait_line(g, "from the host")
    h.run("timeout 20 head -n 1 <&5 >/tmp/line &")
    g.run("echo from the guest >&5")
    wait_line(h, "from the guest")
    g.run("exec 5>&-")
    h.run("exec 5>&-")
    # The network card.
    card = g.wait_node("combo", "net/*")
    h.run("ip addr add 10.9.0.1/24 dev usb0; ip link set usb0 up")
    g.run(f"ip addr add 10.9.0.2/24 dev {card}; ip link set {card} up; ping -c 3 -W 5 10.9.0.1", timeout=40)
    lender.take_back("combo")
    h.wait_drivers("combo", ["usbhid", "cdc_acm", "cdc_acm", "cdc_ether", "cdc_ether"])


def longest_run(samples):
    """The longest stretch in which each sample is the next of 1…20000 round and round; and how many runs there are."""
    best = run = runs = 0
    for i, s in enumerate(samples):
        if i and s and s == samples[i - 1] % 20000 + 1:
            run += 1
        else:
            run = 1 if s else 0
            runs += 1 if s else 0
        best = max(best, run)
    return best, runs


def test_audio_out(lab):
    """audio played from the guest arrives isochronously, sample by sample"""
    h, g, lender = start(lab)
    h.plug("audio", "speaker")
    lender.lend("speaker")
    g.wait_node("speaker", "sound/card*")
    seconds = 2
    g.run(f"usbpoke play /dev/dsp 2 {seconds}", timeout=30)
    lender.take_back("speaker")
    h.unplug("speaker")
    data = (h.work / "audio.wav").read_bytes()[44:]
    left = struct.unpack(f"<{len(data) // 4 * 2}h", data[:len(data) // 4 * 4])[::2]
    best, runs = longest_run(left)
    heard = sum(1 for s in left if s)
    lab.note(f"{heard} of {48000 * seconds} samples, {runs} gaps, the longest stretch {best}")
    # How many get lost says how busy this machine is: the guest has to keep pace with a clock.
    assert heard >= 0.7 * 48000 * seconds, heard
    assert best >= 4800, (best, runs)


def test_audio_in(lab):
    """a microphone's isochronous recording arrives in the guest, sample by sample"""
    h, g, lender = start(lab)
    gadgets.fake(h, "microphone", "mic")
    lender.lend("mic")
    g.wait_node("mic", "sound/card*")
    g.run("usbpoke record /dev/dsp 1 1 >/tmp/recorded", timeout=30)
    data = bytes.fromhex(g.run("hexdump -ve '1/1 \"%02x\"' /tmp/recorded"))
    samples = struct.unpack(f"<{len(data) // 2}h", data)
    best, runs = longest_run(samples)
    lab.note(f"{len(samples)} samples, {runs} gaps, the longest stretch {best}")
    assert len(samples) == 48000 and best >= 4800, (len(samples), best, runs)
    lender.take_back("mic")
    h.wait_drivers("mic", ["snd-usb-audio"] * 2)


def test_same_view(lab):
    """lsusb -v in the guest says the same as through usbredirect, device by device"""
    h = lab.host()
    lab.start_broker()
    g = lab.vm()
    kinds = ("storage", "uas", "kbd", "tablet", "mouse", "serial", "audio")
    devices = [*(f"{kind}-1" for kind in kinds), "gstick-1", "combo-1"]
    # One after the other: usbredirect can't tell devices with equal ids apart, it takes the first.
    for device in devices:
        kind = device.split("-")[0]
        if kind in kinds:
            h.plug(kind, device, **({"image": lab.image(f"{kind}.img", mib=1)} if kind in ("storage", "uas") else {}))
        elif kind == "gstick":
            gadgets.mass_storage(h, device, mib=1)
        else:
            gadgets.composite(h, device, udc=1)
        seen = {}
        for lender in (Peer(lab, g), Ours(lab, g)):
            lender.lend(device)
            seen[lender.name] = lsusb(g, device)
            lender.take_back(device)
        lines = [text.splitlines() for text in seen.values()]
        assert len(lines[0]) > 20 and device in seen["usbredirect"], seen["usbredirect"]
        different = [pair for pair in zip(*lines) if pair[0] != pair[1]]
        assert seen["usbredirect"] == seen["devbroker"], f"{device}: {different or [len(l) for l in lines]}"
        if kind in kinds:
            h.unplug(device)
    lab.note(f"{len(devices)} devices")


if __name__ == "__main__":
    runner.main([sys.modules[__name__]])
