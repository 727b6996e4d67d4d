#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The host suite, part 2: devices, VMs, workers and brokers that come and go."""
import hashlib
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lab"))
import gadgets
import restarts
import runner
from guest import LabError
from host_case import Ours, Peer, read_sha256, wait_background

# The VM is known before it exists; its QMP socket is where the lab puts it.
VM = {"vms.d/guest.conf": "[vm]\nqmp=/run/vm/guest.qmp\n"}
TO_GUEST = ('ACTION!="remove", SUBSYSTEM=="usb", ENV{DEVTYPE}=="usb_device", ATTR{serial}=="stick*", '
            'ENV{DEVBROKER_VM}="guest"\n')
TOLD = 1.0


def start(lab, *serials):
    """A host with sticks of these serial numbers, its broker, a guest; returns (host, broker, guest, lender)."""
    h = lab.host()
    for serial in serials:
        h.plug("storage", serial, image=lab.image(f"{serial}.img", mib=32))
    b = lab.start_broker()
    g = lab.vm()
    return h, b, g, Ours(lab, g)


def check_gone(lab, h, b, g, idle):
    """Nothing of a device is left in guest, QEMU and broker."""
    b.check_idle(idle, ["guest"])
    assert not g.objects(), g.objects()
    assert not [c for c in g.chardevs() if c.startswith("devbroker")], g.chardevs()
    assert not [name for name in h.run("cat /proc/[0-9]*/comm").split() if name == "devbroker-usb"], "a worker is left"


def reads(guest, disk):
    """Reads without end in the guest's background."""
    guest.begin(f"while dd if=/dev/{disk} of=/dev/null bs=64k iflag=direct 2>/dev/null; do :; done; echo ended")


def told(lab, guest, act, what):
    """How long it takes until the guest's kernel says that the device is gone."""
    guest.forget_dmesg()
    start_acting = time.monotonic()
    act()
    guest.wait_dmesg("USB disconnect", timeout=10)
    took = time.monotonic() - start_acting
    lab.note(f"{what}: told after {took * 1000:.0f} ms")
    assert took < TOLD, f"{what}: told after {took:.2f} s"


def test_rule_vm_first(lab):
    """a stick that is plugged in while its VM runs goes there by the udev rule alone"""
    h = lab.host()
    h.udev_rule("80-local.rules", TO_GUEST)
    b = lab.start_broker(VM)
    g = lab.guest()
    h.vmm(g)
    b.wait_vm("guest", "up")
    image = lab.image(mib=8)
    h.plug("storage", "stick1", image=image)
    assert read_sha256(g, g.wait_disk("stick1")) == hashlib.sha256(image.read_bytes()).hexdigest()
    # And again, when it comes back.
    h.unplug("stick1")
    g.wait_no_usb("stick1")
    h.plug("storage", "stick1", image=image)
    g.wait_disk("stick1")
    # Another stick is none of its business.
    h.plug("storage", "other", image=lab.image("other.img", mib=1))
    time.sleep(1)
    assert h.drivers("other") == ["usb-storage"] and not g.find_usb("other")


def test_rule_device_first(lab):
    """a stick that is there before broker and VM goes there when the VM comes; again when the VM comes back"""
    h = lab.host()
    h.udev_rule("80-local.rules", TO_GUEST)
    image = lab.image(mib=8)
    h.plug("storage", "stick1", image=image)
    b = lab.start_broker(VM)
    time.sleep(0.5)
    for _ in range(2):
        g = lab.guest()
        h.vmm(g)
        b.wait_vm("guest", "up")
        assert read_sha256(g, g.wait_disk("stick1")) == hashlib.sha256(image.read_bytes()).hexdigest()
        g.kill()
        b.wait_vm("guest", "gone")


def test_unplug_idle(lab):
    """unplugged while idle: the guest is told within 1 s; beside it, usbredirect"""
    h, b, g, ours = start(lab, "stick", "peer")
    idle = b.idle()
    ours.lend("stick")
    g.wait_disk("stick")
    time.sleep(1.5)
    told(lab, g, lambda: h.unplug("stick"), "devbroker, idle")
    check_gone(lab, h, b, g, idle)
    Peer(lab, g).lend("peer")
    disk = g.wait_disk("peer")
    time.sleep(1.5)
    g.forget_dmesg()
    h.unplug("peer")
    try:
        lab.note(f"usbredirect, idle: told after {g.wait_dmesg('USB disconnect', timeout=5) * 1000:.0f} ms")
    except LabError:
        start_reading = time.monotonic()
        g.run(f"dd if=/dev/{disk} of=/dev/null bs=4k count=1 iflag=direct", check=False)
        g.wait_dmesg("USB disconnect", timeout=60)
        lab.note(f"usbredirect, idle: not told within 5 s, {(time.monotonic() - start_reading) * 1000:.0f} ms after the "
                 "next request")


def test_unplug_in_flight(lab):
    """unplugged in the middle of reads: the guest is told within 1 s, its reads fail, nothing hangs"""
    h, b, g, ours = start(lab, "stick")
    idle = b.idle()
    ours.lend("stick")
    reads(g, g.wait_disk("stick"))
    time.sleep(0.7)
    told(lab, g, lambda: h.unplug("stick"), "in flight")
    wait_background(g, "ended")
    check_gone(lab, h, b, g, idle)


def test_unplug_gadget(lab):
    """a gadget whose cable is pulled, and a device that sysfs removes: the guest is told within 1 s"""
    h, b, g, ours = start(lab, "stick")
    gadgets.mass_storage(h, "gstick")
    idle = b.idle()
    ours.lend("gstick")
    reads(g, g.wait_disk("gstick"))
    time.sleep(0.5)
    told(lab, g, lambda: gadgets.yank(h, "gstick"), "cable")
    wait_background(g, "ended")
    ours.lend("stick")
    g.wait_disk("stick")
    told(lab, g, lambda: h.yank("stick"), "sysfs remove")
    check_gone(lab, h, b, g, idle)


def vmm_told(h, g, ident, what):
    """Pulls a gadget's cable; how long it takes until QEMU has taken it off its bus, and how much of that after the host's
    kernel noticed, which it does only when it has given up the reset that it is in. The guest's kernel is not asked: in a
    reset of its own it waits for requests that QEMU never ends, 5 s for each."""
    h.forget_dmesg()
    start_waiting = time.monotonic()
    noticed = None
    gadgets.yank(h, ident)
    while g.attached():
        now = time.monotonic()
        noticed = noticed or ("USB disconnect" in h.dmesg() and now)
        assert now - (noticed or now) < TOLD, f"{what}: not told within {TOLD} s of the kernel's noticing"
        assert now - start_waiting < 10, f"{what}: the host's kernel did not notice"
        time.sleep(0.01)
    now = time.monotonic()
    return now - start_waiting, now - (noticed or now)


def test_unplug_during_open(lab):
    """unplugged at any moment of an attach: gone from the VM within 1 s of the kernel's noticing, nothing is left"""
    h, b, g, ours = start(lab)
    idle = b.idle()
    gadgets.mass_storage(h, "gstick", mib=1)
    states, slowest = [], 0
    for delay in (0, 0.15, 0.3, 0.45, 0.6, 0.8, 1.0, 1.3):
        name = ours.wait_device("gstick")["name"]
        b.begin_cli("attach", name, "guest", "--wait", "--timeout", "5")
        time.sleep(delay)
        log = len(b.log_text())
        slowest = max(slowest, vmm_told(h, g, "gstick", f"unplugged after {delay} s")[0])
        check_gone(lab, h, b, g, idle)
        states.append(b.log_text()[:log].splitlines()[-1].split(":")[-1].split(",")[0].strip())
        g.wait_no_usb("gstick", timeout=40)
        gadgets.plug_again(h, "gstick")
    lab.note(f"unplugged when it was {', '.join(states)}; told after {slowest * 1000:.0f} ms at most")
    assert len(set(states)) > 2, "always at the same moment"


def test_unplug_during_reset(lab):
    """unplugged while the guest resets it over and over: gone from the VM within 1 s of the kernel's noticing"""
    h, b, g, ours = start(lab)
    idle = b.idle()
    gadgets.mass_storage(h, "gstick", mib=1)
    ours.lend("gstick")
    g.wait_disk("gstick")
    node = g.usb_node("gstick")
    g.begin(f"n=0; while usbpoke reset {node}; do n=$((n + 1)); done; echo ended after $n resets")
    time.sleep(1.2)
    took, after = vmm_told(h, g, "gstick", "during reset")
    check_gone(lab, h, b, g, idle)
    lab.note(f"told after {took * 1000:.0f} ms, {after * 1000:.0f} ms after the kernel noticed; "
             f"{wait_background(g, 'ended', timeout=60).splitlines()[-1]}")


def test_resets(lab):
    """resets from the guest: the device is the same and works afterwards, still lent"""
    h, b, g, ours = start(lab, "stick")
    ours.lend("stick")
    disk = g.wait_disk("stick")
    wanted = read_sha256(g, disk)
    for _ in range(10):
        g.run(f"usbpoke reset {g.usb_node('stick')}")
    g.run(f"blockdev --flushbufs /dev/{disk}")
    assert read_sha256(g, disk) == wanted
    assert ours.device("stick")["state"] in ("attached", "configured")
    ours.take_back("stick")
    h.wait_drivers("stick", ["usb-storage"])


def test_worker_killed(lab):
    """worker killed in the middle of reads: the guest is told within 1 s, the host driver is back; then it is lent again"""
    h, b, g, ours = start(lab, "stick")
    idle = b.idle()
    name = ours.lend("stick")
    reads(g, g.wait_disk("stick"))
    time.sleep(0.7)
    pid = b.device(name)["worker_pid"]
    told(lab, g, lambda: h.run(f"kill -9 {pid}"), "worker killed")
    wait_background(g, "ended")
    lab.note(f"host driver back after {h.wait_drivers('stick', ['usb-storage']):.1f} s")
    b.wait_state(name, "configured")
    g.wait_disk("stick")
    ours.take_back("stick")
    h.wait_drivers("stick", ["usb-storage"])
    check_gone(lab, h, b, g, idle)


def test_broker_killed(lab):
    """broker killed (SIGKILL) and started again 10 times under I/O to a host's stick: no error in the guest"""
    h, b, g, ours = start(lab, "stick")
    idle = b.idle()
    ours.lend("stick")
    disk = g.wait_disk("stick")
    name = ours.wait_device("stick")["name"]
    drivers = []

    def again():
        b.start()
        drivers.append(h.drivers("stick"))

    restarts.restart(lab, g, disk, name, 10, b.kill, again)
    # No driver of the host has had it meanwhile, and then it comes back.
    assert drivers == [["usbfs"]] * 10, drivers
    ours.take_back("stick")
    lab.note(f"host driver back after {h.wait_drivers('stick', ['usb-storage']):.1f} s")
    check_gone(lab, h, b, g, idle)


def test_unplugged_without_broker(lab):
    """unplugged, or its worker killed, while there is no broker: the next one tells the guest, or lends it again"""
    h, b, g, ours = start(lab, "one", "two")
    for serial in ("one", "two"):
        ours.lend(serial)
        g.wait_disk(serial)
    two = ours.wait_device("two")
    b.kill()
    h.unplug("one")
    h.run(f"kill -KILL {two['worker_pid']}")
    g.forget_dmesg()
    b.start()
    g.wait_no_usb("one")
    b.wait_state(two["name"], "configured")
    g.wait_disk("two")
    again = ours.wait_device("two")
    assert again["worker_pid"] != two["worker_pid"], again
    ours.take_back("two")
    h.wait_drivers("two", ["usb-storage"])
    assert not [d for d in b.cli("list")["devices"] if d["serial"] == "one"]
    deadline = time.monotonic() + 15
    while g.objects() or b.workers():
        assert time.monotonic() < deadline, (g.objects(), b.workers())
        time.sleep(0.1)
    assert h.run("ls /run/devbroker/workers").strip() == "", h.run("ls /run/devbroker/workers")


def test_vm_killed(lab):
    """VM killed in the middle of reads: the host driver is back, nothing is left"""
    h, b, g, ours = start(lab, "stick")
    idle = b.idle()
    ours.lend("stick")
    reads(g, g.wait_disk("stick"))
    time.sleep(0.5)
    g.kill()
    b.wait_vm("guest", "gone")
    lab.note(f"host driver back after {h.wait_drivers('stick', ['usb-storage']):.1f} s")
    # The VMM's pidfd went with it. The lease waits for the VM to come back, and is charged for.
    b.check_idle({**idle, "fds": idle["fds"] - 1})
    b.cli("detach", ours.device("stick")["name"])
    b.check_idle({**idle, "fds": idle["fds"] - 1}, ["guest"])


def test_drivers_stay_away(lab):
    """--keep-drivers-off: the host gets no driver back, until the device is plugged in again"""
    h, b, g, ours = start(lab, "stick")
    ours.lend("stick", "--keep-drivers-off")
    g.wait_disk("stick")
    ours.take_back("stick")
    time.sleep(1)
    assert h.drivers("stick") == [""], h.drivers("stick")


def test_attach_at_once(lab):
    """attached again before udev has told of the driver that came back: it comes back once more"""
    h, b, g, ours = start(lab, "stick")
    name = ours.lend("stick")
    h.run("udevadm settle")
    time.sleep(0.5)
    h.run("udevadm control --stop-exec-queue")
    b.cli("detach", name)
    b.cli("attach", name, "guest", "--wait")
    b.cli("detach", name)
    h.wait_drivers("stick", ["usb-storage"])
    h.run("udevadm control --start-exec-queue")


def test_twins_and_ports(lab):
    """two devices that differ in their port alone: the chosen one goes, the other stays"""
    h = lab.host()
    for port in (3, 4):
        h.plug("mouse", f"mouse{port}", port=port)
    b = lab.start_broker()
    g = lab.vm()
    ours = Ours(lab, g)
    names = {s: ours.wait_device(s)["name"] for s in ("mouse3", "mouse4")}
    assert names["mouse3"].endswith("-3") and names["mouse4"].endswith("-4"), names
    ours.lend("mouse4")
    assert h.drivers("mouse3") == ["usbhid"] and h.drivers("mouse4") == ["usbfs"]
    assert not g.find_usb("mouse3")
    ours.take_back("mouse4")
    h.wait_drivers("mouse4", ["usbhid"])


if __name__ == "__main__":
    runner.main([sys.modules[__name__]])
