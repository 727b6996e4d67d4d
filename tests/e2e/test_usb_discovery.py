#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The host suite, what the broker knows of the host's devices: names of places, facts, drivers, plugging and pulling."""
import re
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lab"))
import gadgets
import runner
from broker import CliError
from guest import LabError, wait

# The host's xHCI controller.
HERE = "usb:0000:00:01.0-"


def known(broker):
    """Serial number to device."""
    return {d["serial"]: d for d in broker.cli("list")["devices"]}


def wait_known(broker, serial):
    return wait(f"{serial} is known", lambda: known(broker).get(serial))


def wait_forgotten(broker, serial):
    start = time.monotonic()
    wait(f"{serial} is forgotten", lambda: serial not in known(broker))
    return time.monotonic() - start


def in_order(line):
    """udev prints its sets in any order, the broker sorted."""
    name, value = line.split("=", 1)
    return f"{name}=:{':'.join(sorted(value.strip(':').split(':')))}:" if name in ("TAGS", "CURRENT_TAGS") else line


def test_everything_known(lab):
    """list and show: ids, names, classes, driver, hash, udev properties are what the kernel and udev say"""
    h = lab.host()
    h.plug("storage", "before", image=lab.image(mib=4))
    h.udev_rule("90-test.rules", 'SUBSYSTEM=="usb", ENV{DEVTYPE}=="usb_device", ATTR{serial}=="after", ENV{NOTE}="seen"\n')
    b = lab.start_broker()
    h.plug("kbd", "after")
    stick, kbd = wait_known(b, "before"), wait_known(b, "after")
    h.wait_drivers("after", ["usbhid"])
    wait("its driver is known", lambda: wait_known(b, "after")["drivers"] == ["usbhid"])
    for d in stick, kbd:
        sysname = h.find_usb(d["serial"])
        shown = b.cli("show", d["name"])
        usb = shown["usb"]

        def attr(name):
            return h.run(f"cat /sys/bus/usb/devices/{sysname}/{name} 2>/dev/null; true").strip()

        assert shown["schema"] == "devbroker.show/1" and shown["device"]["name"] == d["name"], shown
        assert d["kind"] == "usb" and d["state"] == "present", d
        assert d["speed"] == attr("speed") and d["path"] == f"/dev/bus/usb/{int(attr('busnum')):03}/{int(attr('devnum')):03}", d
        for key, name in (("vendor_id", "idVendor"), ("product_id", "idProduct"), ("release", "bcdDevice"),
                          ("manufacturer", "manufacturer"), ("product", "product")):
            assert usb[key] == attr(name) != "", (key, usb[key], attr(name))
        assert usb["sysname"] == sysname and usb["authorized"] and usb["configurations"] == usb["configuration"] == 1, usb
        assert usb["syspath"] == h.run(f"readlink -f /sys/bus/usb/devices/{sysname}").strip(), usb
        assert d["name"].startswith(HERE) and usb["controller"] == "0000:00:01.0", usb
        assert usb["interface_classes_complete"] and re.fullmatch("1:[0-9a-f]{32}", usb["descriptor_hash"]), usb
        lines = [line.split(": ", 1)[1] for line in h.run(f"udevadm info -p {usb['syspath']} | cat").splitlines()
                 if line.startswith("E: ")]
        lines = [in_order(line) for line in lines]
        assert sorted(lines) == sorted(usb["udev_properties"]), (lines, usb["udev_properties"])
    usb = b.cli("show", "before")["usb"]
    assert usb["interface_classes"] == ["080650"], usb
    assert usb["interfaces"] == [{"number": 0, "altsetting": 0, "class": "080650", "authorized": True,
                                  "driver": "usb-storage"}], usb
    assert "NOTE=seen" in b.cli("show", "after")["usb"]["udev_properties"]
    text = h.run("devbroker --run-dir /run/devbroker show before; devbroker --run-dir /run/devbroker list")
    for wanted in ("Interface      0: class 080650, altsetting 0, driver usb-storage", "USB ids        46f4:0001", "usbhid"):
        assert wanted in text, (wanted, text)
    try:
        b.cli("show", "nothing")
        raise AssertionError("it shows what is not there")
    except CliError as e:
        assert e.error["code"] == "not-found", e.error


def test_one_connector(lab):
    """one port, a USB 2 and then a SuperSpeed device: two buses, one name; behind a hub too; never listed: hubs"""
    h = lab.host()
    b = lab.start_broker()
    h.plug("kbd", "slow", port=3)
    slow = wait_known(b, "slow")
    slow_name = h.find_usb("slow")
    h.unplug("slow")
    took = wait_forgotten(b, "slow")
    h.plug("storage", "fast", image=lab.image(mib=4), port=3)
    fast = wait_known(b, "fast")
    assert (slow["speed"], fast["speed"]) == ("480", "5000"), (slow, fast)
    assert slow_name.split("-")[0] != h.find_usb("fast").split("-")[0], (slow_name, h.find_usb("fast"))
    assert slow["name"] == fast["name"] == HERE + "3", (slow["name"], fast["name"])
    h.plug("hub", "hub", port=4, wait=False)
    wait("the hub", lambda: h.run("ls -d /sys/bus/usb/devices/*-4 2>/dev/null; true").strip())
    h.plug("mouse", "behind", port="4.2")
    assert wait_known(b, "behind")["name"] == HERE + "4.2", wait_known(b, "behind")
    assert sorted(known(b)) == ["behind", "fast"], known(b)
    assert b.cli("show", "behind")["usb"]["hub"] == HERE + "4"
    lab.note(f"unplugging was known after {took:.2f} s")


def test_drivers_come_and_go(lab):
    """a driver is unbound and bound, a configuration set, udev's properties change: shown at once, the name stays"""
    h = lab.host()
    b = lab.start_broker()
    h.plug("storage", "stick", image=lab.image(mib=4))
    name = wait_known(b, "stick")["name"]
    sysname = h.find_usb("stick")
    wait("its driver", lambda: known(b)["stick"]["drivers"] == ["usb-storage"])
    h.run(f"echo {sysname}:1.0 >/sys/bus/usb/drivers/usb-storage/unbind")
    wait("no driver", lambda: known(b)["stick"]["drivers"] == [])
    h.run(f"echo {sysname}:1.0 >/sys/bus/usb/drivers/usb-storage/bind")
    wait("its driver again", lambda: known(b)["stick"]["drivers"] == ["usb-storage"])
    h.run(f"echo 0 >/sys/bus/usb/devices/{sysname}/bConfigurationValue")
    wait("no configuration", lambda: b.cli("show", name)["usb"]["configuration"] == 0)
    h.run(f"echo 1 >/sys/bus/usb/devices/{sysname}/bConfigurationValue")
    wait("configured", lambda: known(b)["stick"]["drivers"] == ["usb-storage"])
    h.udev_rule("90-test.rules", 'SUBSYSTEM=="usb", ENV{DEVTYPE}=="usb_device", ENV{LATER}="yes"\n')
    h.run("udevadm trigger --action=change --subsystem-match=usb")
    wait("the new property", lambda: "LATER=yes" in b.cli("show", name)["usb"]["udev_properties"])
    assert known(b)["stick"]["name"] == name


def test_while_it_did_not_look(lab):
    """broker stopped while one device is replaced by another at the same port, and one goes: all of it known afterwards"""
    h = lab.host()
    b = lab.start_broker()
    h.plug("kbd", "first", port=5)
    h.plug("mouse", "leaves", port=6)
    first = wait_known(b, "first")
    wait_known(b, "leaves")
    h.run(f"kill -STOP {b.process}")
    h.unplug("first")
    h.unplug("leaves")
    h.plug("tablet", "second", port=5)
    h.run(f"kill -CONT {b.process}")
    second = wait_known(b, "second")
    wait_forgotten(b, "leaves")
    assert first["name"] == second["name"] and sorted(known(b)) == ["second"], known(b)
    log = b.log_text()
    assert log.index(f"{first['name']}: unplugged") < log.rindex(f"{first['name']}: present"), log


def test_platform_controller(lab):
    """dummy_hcd, a platform device: its name is the place; a composite device with its three drivers"""
    h = lab.host()
    b = lab.start_broker()
    gadgets.composite(h, "three")
    d = wait_known(b, "three")
    assert d["name"] == "usb:dummy_hcd.0-1", d
    wait("its drivers", lambda: set(known(b)["three"]["drivers"]) == {"usbhid", "cdc_acm", "cdc_ether"})
    assert len(b.cli("show", "three")["usb"]["interfaces"]) == 5
    first = b.cli("show", "three")["usb"]["descriptor_hash"]
    gadgets.yank(h, "three")
    wait_forgotten(b, "three")
    gadgets.plug_again(h, "three")
    again = wait_known(b, "three")
    assert again["name"] == d["name"] and b.cli("show", "three")["usb"]["descriptor_hash"] == first


if __name__ == "__main__":
    runner.main([sys.modules[__name__]])
