#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The host suite, part 3: devices that mean harm, and guests that take all they can get.

A good stick is lent to the same guest all the time and must not notice. The harmful ones are fake-device's, which can do
more harm than a FunctionFS gadget: every byte of their descriptors is made up.
"""
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lab"))
import gadgets
import runner
from broker import CliError
from guest import LabError
from host_case import Ours, read_sha256

ANSWERED = 2.0  # a call of the CLI inside a VM inside of TCG, most of it starting the program
ENDED = 5.0


class Case:
    """A host, a guest, a good stick that is lent, and a device of fake-device that is not yet."""

    def __init__(self, lab, kind):
        self.lab = lab
        self.kind = kind
        self.serial = gadgets.NAMELESS.get(kind, "evil")
        self.h = lab.host()
        self.h.plug("storage", "good", image=lab.image(mib=8))
        gadgets.fake(self.h, kind, "evil")
        self.b = lab.start_broker()
        self.g = lab.vm()
        self.ours = Ours(lab, self.g)
        self.idle = self.b.idle()
        self.ours.lend("good")
        self.disk = self.g.wait_disk("good")
        self.wanted = read_sha256(self.g, self.disk)
        self.before = self.b.idle()

    def name(self):
        """The evil one's, which may have no serial number."""
        sysname = self.h.wait_usb(self.serial)
        port = sysname.split("-")[1]
        return next(d["name"] for d in self.b.cli("list")["devices"]
                    if d["name"].startswith("usb:vhci_hcd.0-") and d["name"].endswith(f"-{port}"))

    def attach(self):
        """Lends it; whether the guest took it. A refusal is fine with this kind of device."""
        try:
            self.b.cli("attach", self.name(), "guest", "--wait", "--timeout", "8", timeout=30)
            self.g.wait_usb(self.serial, timeout=5)
            return True
        except CliError as e:
            self.lab.note(f"{self.kind}: {e.error.get('code')}: {e.error.get('message')}")
        except LabError:
            self.lab.note(f"{self.kind}: the guest does not want it")
        return False

    def check_good(self):
        """The good stick works, and the broker answers."""
        start = time.monotonic()
        self.b.cli("status")
        took = time.monotonic() - start
        assert took < ANSWERED, f"devbroker status took {took:.1f} s"
        self.g.run(f"blockdev --flushbufs /dev/{self.disk}")
        assert read_sha256(self.g, self.disk) == self.wanted

    def detach(self):
        """Takes the evil one back; seconds until the guest has it no more."""
        start = time.monotonic()
        self.b.begin_cli("detach", self.name())
        self.g.wait_no_usb(self.serial, timeout=2 * ENDED)
        return time.monotonic() - start

    def finish(self):
        """Unplugs it; only the good stick is left, then nothing."""
        gadgets.fake_unplug(self.h, "evil")
        self.h.wait_no_usb(self.serial)
        self.b.check_idle(self.before)
        self.check_good()
        self.ours.take_back("good")
        self.b.check_idle(self.idle, ["guest"])
        self.h.wait_drivers("good", ["usb-storage"])
        assert not self.g.objects(), self.g.objects()


def test_lying_total(lab):
    """a configuration of 64 KiB that ends after 39 bytes harms nobody"""
    c = Case(lab, "lying")
    if c.attach():
        c.g.run(f"lsusb -v -s {c.g.usb_node(c.serial)[-7:].replace('/', ':')}", check=False)
        assert c.detach() < ENDED
    c.check_good()
    c.finish()


def test_crooked_lengths(lab):
    """descriptors of length 0, 3 and 255, endpoints without end, cut strings: harm nobody"""
    c = Case(lab, "crooked")
    if c.attach():
        node = c.g.usb_node(c.serial)
        c.g.run(f"lsusb -v -s {node[-7:].replace('/', ':')}", check=False)
        c.g.run(f"timeout 5 usbpoke flood {node} 0 0x81 4096 0.3", check=False)
        assert c.detach() < ENDED
    c.check_good()
    c.finish()


def test_forty_interfaces(lab):
    """a device of 40 interfaces harms nobody"""
    c = Case(lab, "many")
    if c.attach():
        node = c.g.usb_node(c.serial)
        for interface in (0, 14, 31):
            c.g.run(f"timeout 5 usbpoke flood {node} {interface} {0x81 + interface % 15:#x} 4096 0.3", check=False)
        assert c.detach() < ENDED
    c.check_good()
    c.finish()


def test_sparse_altsettings(lab):
    """interface and altsetting numbers with holes harm nobody, whichever the guest selects"""
    c = Case(lab, "sparse")
    if c.attach():
        node = c.g.usb_node(c.serial)
        for interface, alt in ((7, 200), (7, 0), (0, 255), (31, 9), (7, 199), (1, 0), (0, 0)):
            code, out = c.g.run(f"timeout 8 usbpoke alt {node} {interface} {alt}", check=False)
            assert code in (0, 1), f"{interface}:{alt}: {code} {out}"
        assert c.detach() < ENDED
    c.check_good()
    c.finish()


def test_silent_endpoints(lab):
    """endpoints that never complete, with all the transfers that the guest can start: detached within 5 s"""
    c = Case(lab, "silent")
    assert c.attach()
    c.g.begin(f"usbpoke flood {c.g.usb_node(c.serial)} 0 0x81 16384 60")
    time.sleep(1)
    c.check_good()
    took = c.detach()
    lab.note(f"detached after {took:.1f} s")
    assert took < ENDED, took
    c.check_good()
    c.finish()


def test_stuck_cancel(lab):
    """transfers that can't even be cancelled: the guest is told within 5 s, others work, the rest goes with the device"""
    c = Case(lab, "stuck")
    assert c.attach()
    c.g.begin(f"usbpoke flood {c.g.usb_node(c.serial)} 0 0x81 4096 60")
    time.sleep(1)
    took = c.detach()
    lab.note(f"told after {took:.1f} s")
    assert took < ENDED, took
    c.check_good()
    c.finish()


def test_turncoat(lab):
    """a device that is a keyboard after the guest's reset: it is gone from the guest, and lent to nobody"""
    c = Case(lab, "vendor")
    assert c.attach()
    gadgets.fake_turn(c.h, "evil")
    c.g.forget_dmesg()
    c.g.run(f"timeout 10 usbpoke reset {c.g.usb_node(c.serial)}", check=False)
    c.g.wait_dmesg("USB disconnect", timeout=5)
    c.h.wait_usb("046d:c31c")
    time.sleep(1)
    assert not c.g.find_usb("046d:c31c")
    device = c.ours.wait_device("evil")
    assert device["state"] == "present", device
    c.check_good()
    c.serial = "046d:c31c"
    c.finish()


def test_flooded_neighbour(lab):
    """two devices at once, one flooded: the other's control requests never fail"""
    c = Case(lab, "vendor")
    assert c.attach()
    c.g.begin(f"usbpoke flood {c.g.usb_node(c.serial)} 0 0x81 262144 6; echo ended")
    time.sleep(0.5)
    result = json.loads(c.g.run(f"usbpoke control {c.g.usb_node('good')} 4", timeout=30))
    lab.note(f"{result['done']} control requests, {result['failed']} failed, the longest took {result['longest_ms']} ms")
    assert result["failed"] == 0 and result["done"] > 20, result
    c.check_good()
    for _ in range(100):
        out = c.g.run("cat /tmp/background")
        if "ended" in out:
            break
        time.sleep(0.1)
    flood = json.loads(out.splitlines()[0])
    lab.note(f"the flood: {flood}")
    assert flood["done"] > 0, flood
    assert c.detach() < ENDED
    c.finish()


if __name__ == "__main__":
    runner.main([sys.modules[__name__]])
