#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The policy suite, what the broker does to the host's devices without any worker: quarantine, denial, safety, keyboards."""
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lab"))
import runner
from broker import CliError
from guest import LabError, wait

QUARANTINE = {"devbroker.conf": "[usb]\nquarantine=all\n"}


def wait_device(broker, serial, timeout=10):
    return wait(f"a device with serial {serial}",
                lambda: next((d for d in broker.cli("list")["devices"] if d["serial"] == serial), None), timeout)


def refused(code, call, *args):
    try:
        call(*args)
    except CliError as e:
        assert e.error["code"] == code, e.error
        return e.error["message"]
    raise AssertionError(f"not refused: {args}")


def test_quarantine(lab):
    """quarantined bus: no host driver before policy has decided, what it leaves to the host works, hubs too"""
    h = lab.host()
    b = lab.start_broker(QUARANTINE)
    h.run("echo 1 >/proc/sys/kernel/printk; dmesg -c >/dev/null")
    h.plug("storage", "stick", image=lab.image(mib=4))
    wait_device(b, "stick")
    h.wait_drivers("stick", ["usb-storage"])
    # The driver came because the broker said so, not before.
    assert "usb:0000:00:01.0-1: left to the host" in b.log_text()
    hubs = len(h.run("ls -d /sys/bus/usb/drivers/hub/*:1.0").split())
    h.plug("hub", "hub", wait=False)
    wait("the hub's driver", lambda: len(h.run("ls -d /sys/bus/usb/drivers/hub/*:1.0").split()) == hubs + 1)
    h.udev_rule("90-test.rules", 'SUBSYSTEM=="usb", ENV{DEVTYPE}=="usb_device", ATTR{serial}=="held", '
                                 'ENV{DEVBROKER_VM}="nobody"\n')
    h.plug("kbd", "held")
    d = wait("its note", lambda: next((d for d in b.cli("list")["devices"] if d["serial"] == "held" and d["detail"]), None))
    assert d["detail"] == "It waits for vm nobody, which is not known: devbroker vm add", d
    time.sleep(0.5)
    assert h.drivers("held") == [""], h.drivers("held")


def test_keyboard_without_broker(lab):
    """quarantined bus, broker killed: a keyboard that is plugged in works, a stick does not; the next broker lets it"""
    h = lab.host()
    b = lab.start_broker(QUARANTINE)
    b.kill()
    h.plug("storage", "stick", image=lab.image(mib=4))
    h.plug("kbd", "kbd")
    h.wait_drivers("kbd", ["usbhid"])
    time.sleep(0.5)
    assert h.drivers("stick") == [""], h.drivers("stick")
    lab.start_broker(QUARANTINE)
    h.wait_drivers("stick", ["usb-storage"])


def test_denied(lab):
    """DEVBROKER_ACTION=deny: neither the host nor a VM has it; given back when the rule goes"""
    h = lab.host()
    b = lab.start_broker()
    lab.vm()
    rule = 'SUBSYSTEM=="usb", ENV{DEVTYPE}=="usb_device", ATTR{serial}=="bad", ENV{DEVBROKER_ACTION}="deny"\n'
    h.udev_rule("90-test.rules", rule)
    h.plug("storage", "bad", image=lab.image(mib=4))
    wait_device(b, "bad")
    sysname = h.find_usb("bad")
    wait("deauthorised", lambda: h.run(f"cat /sys/bus/usb/devices/{sysname}/authorized").strip() == "0")
    d = wait_device(b, "bad")
    message = refused("denied", b.cli, "attach", d["name"], "guest")
    assert "denied" in message, message
    h.udev_rule("90-test.rules", "")
    h.run("udevadm trigger --action=change --tag-match=devbroker; udevadm settle")
    h.wait_drivers("bad", ["usb-storage"])


def made_image(lab, name, *maker):
    image = lab.image(name, mib=16, random=False)
    subprocess.run([*maker, image], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return image


def test_needed_by_the_host(lab):
    """mounted, swapped to, last keyboard: refused with the reason, nothing changed; lent once it is free"""
    h = lab.host()
    b = lab.start_broker()
    lab.vm()
    h.plug("storage", "stick", image=made_image(lab, "fat.img", "/sbin/mkfs.vfat"))
    h.plug("storage", "swap", image=made_image(lab, "swap.img", "/sbin/mkswap"))
    stick, swap = wait_device(b, "stick")["name"], wait_device(b, "swap")["name"]
    wait("their disks", lambda: h.run("cat /sys/block/sd[ab]/size 2>/dev/null; true").split() == [str(16 * 2048)] * 2)
    disk = h.run("for d in sda sdb; do readlink -f /sys/block/$d | grep -q /2-1/ && echo $d; done; true").strip()
    other = {"sda": "sdb", "sdb": "sda"}[disk]
    h.run(f"mkdir -p /mnt/x /home; mount -t vfat /dev/{disk} /mnt/x")
    assert "mounted at /mnt/x" in refused("busy", b.cli, "attach", stick, "guest")
    h.run(f"umount /mnt/x; mount -t vfat /dev/{disk} /home")
    assert "the host runs from" in refused("denied", b.cli, "attach", stick, "guest")
    h.run(f"umount /home; swapon /dev/{other}")
    assert "swap" in refused("denied", b.cli, "attach", swap, "guest")
    h.run(f"swapoff /dev/{other}")
    assert h.drivers("stick") == ["usb-storage"] and h.drivers("swap") == ["usb-storage"]
    # The machine has a PS/2 keyboard beside it, which goes.
    h.plug("kbd", "kbd")
    h.run("for d in /sys/bus/serio/devices/*/drvctl; do printf none >$d; done")
    keyboard = wait_device(b, "kbd")["name"]
    h.wait_drivers("kbd", ["usbhid"])
    assert "last keyboard" in refused("denied", b.cli, "attach", keyboard, "guest")
    assert h.drivers("kbd") == ["usbhid"]
    # A second one, and either may go.
    h.plug("kbd", "kbd2")
    h.wait_drivers("kbd2", ["usbhid"])
    b.cli("attach", keyboard, "guest")
    wait("the keyboard's driver is off", lambda: h.drivers("kbd") != ["usbhid"])


def test_bad_udev_values(lab):
    """udev properties that make no sense: the host keeps the device, and the list says why"""
    h = lab.host()
    b = lab.start_broker()
    h.udev_rule("90-test.rules", 'SUBSYSTEM=="usb", ENV{DEVTYPE}=="usb_device", ATTR{serial}=="a", ENV{DEVBROKER_VM}="../x"\n'
                                 'SUBSYSTEM=="usb", ENV{DEVTYPE}=="usb_device", ATTR{serial}=="b", ENV{DEVBROKER_ACTION}="dney"\n')
    h.plug("mouse", "a")
    h.plug("tablet", "b")
    wait_device(b, "a")
    assert wait_device(b, "a")["detail"] == "Its udev property DEVBROKER_VM=../x is not the name of a VM; the host keeps it."
    assert "DEVBROKER_ACTION=dney is not deny or host" in wait_device(b, "b")["detail"]
    h.wait_drivers("a", ["usbhid"])


def test_rules(lab):
    """rules in policy.d: a stick goes to its VM, explained rule by rule; reloaded, moved, denied; a broken file changes nothing"""
    h = lab.host()
    rule = "[rule %s]\nMatch=class=storage\nAction=%s\n"
    b = lab.start_broker({"policy.d/10-keyboards.conf": "[rule keyboards]\nMatch=class=keyboard\nAction=ignore\n",
                          "policy.d/20-sticks.conf": rule % ("sticks", "attach guest")})
    g = lab.vm()
    h.plug("storage", "stick", image=lab.image(mib=4))
    device = wait_device(b, "stick")
    b.wait_state(device["name"], "configured")
    g.wait_disk("stick")
    told = b.cli("explain", device["name"])
    assert told["action"] == "attach" and told["vm"] == "guest", told
    assert [(t["rule"], t["failed"]) for t in told["trace"]] == [("keyboards", "class=keyboard"), ("sticks", "")], told
    # The same answer without a broker, from what show prints.
    h.run(f"devbroker --run-dir /run/devbroker show {device['name']} --json >/tmp/facts.json")
    assert b.cli("policy", "test", "/etc/devbroker", "--device", "/tmp/facts.json")["trace"] == told["trace"]
    h.push("/etc/devbroker/policy.d/20-sticks.conf", "[rule sticks]\nMatch=class=storrage\nAction=deny\n")
    message = refused("config", b.cli, "policy", "reload")
    assert message.startswith("policy.d/20-sticks.conf:2:7: class=storrage is not"), message
    assert refused("config", b.cli, "policy", "check", "/etc/devbroker") == message
    assert b.device(device["name"])["state"] == "configured"
    h.push("/etc/devbroker/policy.d/20-sticks.conf", rule % ("no-sticks", "hold"))
    b.cli("policy", "reload")
    b.wait_state(device["name"], "present")
    h.wait_drivers("stick", ["usb-storage"])
    assert b.device(device["name"])["reason"] == "policy"
    h.push("/etc/devbroker/policy.d/20-sticks.conf", rule % ("again", "attach guest\nReadOnly=yes"))
    h.run("kill -HUP %d" % b.process)
    b.wait_state(device["name"], "configured")
    assert g.run(f"cat /sys/block/{g.wait_disk('stick')}/ro").strip() == "1"
    h.push("/etc/devbroker/policy.d/20-sticks.conf", rule % ("bad", "deny"))
    sysname = h.find_usb("stick")
    b.cli("policy", "reload")
    wait("deauthorised", lambda: h.run(f"cat /sys/bus/usb/devices/{sysname}/authorized").strip() == "0")
    refused("denied", b.cli, "attach", device["name"], "guest")
    h.plug("kbd", "kbd")
    assert "the host's" in refused("denied", b.cli, "attach", wait_device(b, "kbd")["name"], "guest")


def test_remembered(lab):
    """attach --remember: it comes back after replug in another port and after a broker restart; twins don't; forgotten"""
    h = lab.host()
    b = lab.start_broker()
    g = lab.vm()
    image = lab.image(mib=4)
    h.plug("storage", "stick", image=image, port=1)
    name = wait_device(b, "stick")["name"]
    b.cli("attach", "--remember", name, "guest", "--wait")
    g.wait_disk("stick")
    assert [(e["serial"], e["vm"]) for e in b.cli("remembered")["remembered"]] == [("stick", "guest")]
    h.unplug("stick")
    wait("it is gone", lambda: not b.cli("list")["devices"])
    begin = time.monotonic()
    h.plug("storage", "stick", image=image, port=4)
    moved = wait_device(b, "stick")["name"]
    assert moved != name
    b.wait_state(moved, "configured")
    lab.note(f"replugged elsewhere: configured after {time.monotonic() - begin:.1f} s")
    assert b.cli("explain", moved)["why"].startswith("It is remembered for vm guest"), b.cli("explain", moved)
    # What a user takes out stays out until it is plugged in again.
    b.cli("detach", moved)
    time.sleep(1)
    assert b.device(moved)["state"] == "present"
    b.stop()
    b = lab.start_broker()
    b.cli("vm", "add", "guest", "--qmp", "/run/vm/guest.qmp")
    b.wait_state(moved, "configured")
    b.cli("forget", "stick")
    b.wait_state(moved, "present")
    refused("not-found", b.cli, "forget", "stick")
    assert b.cli("remembered")["remembered"] == []
    # Identical twins: nobody can tell which one was meant.
    b.cli("attach", "--remember", moved, "guest", "--wait")
    h.unplug("stick")
    wait("it is gone", lambda: not b.cli("list")["devices"])
    b.stop()
    h.plug("storage", "stick", image=image, port=1)
    h.plug("storage", "twin", image=lab.image("twin.img", mib=4), port=2, serial="stick")
    b = lab.start_broker()
    b.cli("vm", "add", "guest", "--qmp", "/run/vm/guest.qmp")
    wait("both", lambda: len([d for d in b.cli("list")["devices"] if d["serial"] == "stick"]) == 2)
    time.sleep(1)
    for d in b.cli("list")["devices"]:
        assert d["state"] == "present" and "another one like it" in d["detail"], d


if __name__ == "__main__":
    runner.main([sys.modules[__name__]])
