# SPDX-License-Identifier: MIT
"""What tests of the host in a VM have in common: lending by devbroker, or by the peer, usbredirect, and what a guest does
with its devices.
"""
import re
import struct
import time

from guest import LabError

# struct input_event on a 64-bit machine.
EVENT = struct.Struct("<qqHHi")
EV_KEY, EV_REL, EV_ABS = 1, 2, 3


class Ours:
    """devbroker lends a host's device to a guest. The broker has been started, the VM is known."""

    name = "devbroker"

    def __init__(self, lab, guest):
        self.lab = lab
        self.guest = guest

    def device(self, serial):
        """What the broker says about it; None if it knows none of that serial number."""
        for d in self.lab.broker.cli("list")["devices"]:
            if d["name"].startswith("usb:") and d["serial"] == serial:
                return d
        return None

    def wait_device(self, serial, timeout=10):
        deadline = time.monotonic() + timeout
        while True:
            d = self.device(serial)
            if d:
                return d
            if time.monotonic() > deadline:
                raise LabError(f"the broker does not know {serial} after {timeout} s")
            time.sleep(0.1)

    def lend(self, serial, *options):
        """Returns its name. Keyboards and pointers are lent whether the host has others or not."""
        name = self.wait_device(serial)["name"]
        self.lab.broker.cli("attach", name, self.guest.name, "--wait", "--last-input", *options)
        self.guest.wait_usb(serial)
        return name

    def take_back(self, serial):
        self.lab.broker.cli("detach", self.device(serial)["name"])
        self.guest.wait_no_usb(serial)


class Peer:
    """usbredirect does."""

    name = "usbredirect"

    def __init__(self, lab, guest):
        self.lab = lab
        self.guest = guest

    def lend(self, serial):
        self.lab.machine.usbredirect(serial, self.guest)
        self.guest.wait_usb(serial)

    def take_back(self, serial):
        self.lab.machine.end_usbredirect(serial, self.guest)
        self.guest.wait_no_usb(serial)


def read_sha256(guest, disk, options=""):
    return guest.run(f"dd if=/dev/{disk} bs=1M {options} 2>/dev/null | sha256sum", timeout=120).split()[0]


def lsusb(guest, serial):
    """Everything that lsusb -v says about a device, without where it is plugged in."""
    node = guest.usb_node(serial).split("/")
    text = guest.run(f"lsusb -v -s {node[-2]}:{node[-1]}", timeout=30)
    return re.sub(r"^Bus \d+ Device \d+: ", "", text.strip())


def input_events(guest, serial, act, wanted, seconds=8):
    """What the device's event node says while act() is done: until wanted events of interest, or seconds."""
    node = guest.wait_node(serial, "*/input/input*/event*")
    guest.run(f"rm -f /tmp/events; timeout {seconds} cat /dev/input/{node} >/tmp/events & i=0; "
              f"until ls -l /proc/[0-9]*/fd 2>/dev/null | grep -q /dev/input/{node} || [ $i -gt 100 ]; do usleep 50000; "
              "i=$((i + 1)); done; usleep 100000")
    act()
    deadline = time.monotonic() + seconds
    while True:
        data = bytes.fromhex(guest.run("hexdump -ve '1/1 \"%02x\"' /tmp/events"))
        events = [EVENT.unpack_from(data, at)[2:] for at in range(0, len(data) - EVENT.size + 1, EVENT.size)]
        events = [e for e in events if e[0] in (EV_KEY, EV_REL, EV_ABS)]
        if len(events) >= wanted or time.monotonic() > deadline:
            return events
        time.sleep(0.2)


def wait_background(guest, text, timeout=20):
    """Waits until the guest's background command has said text; returns what it said."""
    deadline = time.monotonic() + timeout
    while True:
        out = guest.run("cat /tmp/background")
        if text in out:
            return out
        if time.monotonic() > deadline:
            raise LabError(f"{guest.name}: the background command did not say '{text}' within {timeout} s: {out[-300:]}")
        time.sleep(0.1)


def wait_line(machine, wanted, timeout=10):
    """Waits until the machine has read this line into /tmp/line."""
    deadline = time.monotonic() + timeout
    while not (got := machine.run("cat /tmp/line")) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert got == wanted, got
