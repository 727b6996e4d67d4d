#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The host suite: devices of a real Linux kernel with udevd, in a VM, lent to a guest beside it."""
import hashlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lab"))
import runner


def read_sha256(guest, disk):
    return guest.run(f"dd if=/dev/{disk} bs=1M 2>/dev/null | sha256sum", timeout=120).split()[0]


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


def test_lab_usbredirect(lab):
    """the peer, usbredirect, lends a stick of the host VM: sha256 equal"""
    h = lab.host()
    g = lab.guest()
    image = lab.image(mib=8)
    h.plug("storage", "stick", image=image)
    assert h.drivers("stick") == ["usb-storage"]
    h.usbredirect("stick", g)
    assert read_sha256(g, g.wait_disk("stick")) == hashlib.sha256(image.read_bytes()).hexdigest()
    assert h.drivers("stick") == ["usbfs"]
    h.end_usbredirect("stick", g)
    h.wait_drivers("stick", ["usb-storage"])


if __name__ == "__main__":
    runner.main([sys.modules[__name__]])
