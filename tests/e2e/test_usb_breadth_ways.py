#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The usb-breadth suite, ways: a real QEMU that is reached without QMP: slots, a stream over TCP, an export."""
import hashlib
import json
import socket
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lab"))
import runner
from broker import CliError


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def redirdev(path):
    """What libvirt 9 to 11 makes of <redirdev bus='usb' type='unix'> with mode='connect' and a <reconnect>: the chardev
    in QEMU's short form, the device in JSON, its alias, and a place on the bus. The VM starts paused, and is continued."""
    device = {"driver": "usb-redir", "chardev": "charredir0", "id": "redir0", "bus": "xhci.0", "port": "1"}
    return ["-chardev", f"socket,id=charredir0,path={path},reconnect=1", "-device", json.dumps(device), "-S"]


def same(guest, serial, image):
    """The guest reads what is in the image, and what it writes is there."""
    disk = guest.wait_disk(serial)
    got = guest.run(f"sha256sum </dev/{disk}").split()[0]
    assert got == hashlib.sha256(image.read_bytes()).hexdigest(), got
    guest.run(f"printf %s {serial} | dd of=/dev/{disk} conv=notrunc 2>/dev/null; sync")
    assert image.read_bytes().startswith(serial.encode()), image.read_bytes()[:16]


def add(b, image, name):
    b.cli("disk", "add", image, "--name", name)
    return b.device(f"disk:{name}")["serial"]


def test_slots(lab):
    """libvirt's redirdev at a slot: a stick before and after the VM restarts, another one after a detach"""
    b = lab.start_broker()
    b.cli("vm", "add", "guest", "--slots", "1")
    sticks = {name: lab.image(f"{name}.img", 2) for name in ("one", "two")}
    serials = {name: add(b, image, name) for name, image in sticks.items()}
    idle = b.idle()
    b.cli("attach", "one", "guest")
    assert b.device("disk:one")["state"] == "decided"
    for life in (1, 2):
        g = lab.guest(f"life{life}", start=False, extra=redirdev(b.run_dir / "vm/guest/usb0.sock"))
        g._spawn()
        g._connect(20)
        # A guest that does not run sends no hello: its device waits with it.
        b.wait_state("disk:one", "connecting")
        g.qmp.call("cont")
        g._wait_ready(120)
        b.wait_state("disk:one", "configured", 30)
        same(g, serials["one"], sticks["one"])
        if life == 1:
            g.kill()
            b.wait_state("disk:one", "decided")
            b.wait_vm("guest", "gone")
    try:
        b.cli("attach", "two", "guest")
        raise AssertionError("two devices in one slot")
    except CliError as e:
        assert e.error["code"] == "quota", e
    g.forget_dmesg()
    start = time.monotonic()
    b.cli("detach", "one")
    g.wait_dmesg("USB disconnect")
    b.cli("attach", "two", "guest", "--wait")
    lab.note(f"the next stick in that slot after {time.monotonic() - start:.2f} s")
    same(g, serials["two"], sticks["two"])
    b.cli("detach", "two")
    g.kill()
    b.wait_vm("guest", "gone")
    b.check_idle(idle, ["guest"])


def test_stream_and_export(lab):
    """a QEMU that listens on TCP, and one that connects to an export: both sticks whole, also when it comes back"""
    listens, exported = free_port(), free_port()
    b = lab.start_broker({"vms.d/far.conf": f"[usb]\nstream=tcp:127.0.0.1:{listens}\n"})
    sticks = {name: lab.image(f"{name}.img", 2) for name in ("called", "exported")}
    serials = {name: add(b, image, name) for name, image in sticks.items()}
    g = lab.guest(extra=["-chardev", f"socket,id=far,host=127.0.0.1,port={listens},server=on,wait=off",
                         "-chardev", f"socket,id=near,host=127.0.0.1,port={exported},reconnect=1"])
    g.qmp.call("device_add", driver="usb-redir", id="far", chardev="far", bus="xhci.0")
    g.qmp.call("device_add", driver="usb-redir", id="near", chardev="near", bus="xhci.0")
    b.wait_vm("far", "up")
    b.cli("attach", "called", "far", "--wait")
    same(g, serials["called"], sticks["called"])
    b.cli("export", "exported", "--listen", f"127.0.0.1:{exported}", "--keep")
    b.wait_state("disk:exported", "configured")
    same(g, serials["exported"], sticks["exported"])
    # Its client goes, without a word, and comes back.
    g.qmp.call("device_del", id="near")
    b.wait_state("disk:exported", "decided")
    g.qmp.call("chardev-add", id="again", backend={"type": "socket", "data": {
        "addr": {"type": "inet", "data": {"host": "127.0.0.1", "port": str(exported)}}, "server": False}})
    g.qmp.call("device_add", driver="usb-redir", id="again", chardev="again", bus="xhci.0")
    b.wait_state("disk:exported", "configured")
    same(g, serials["exported"], sticks["exported"])
    for name in sticks:
        b.cli("detach", name)
    g.wait_no_usb(serials["called"])
    g.wait_no_usb(serials["exported"])
    assert [v["name"] for v in b.cli("vm", "list")["vms"]] == ["far"]


if __name__ == "__main__":
    runner.main([sys.modules[__name__]])
