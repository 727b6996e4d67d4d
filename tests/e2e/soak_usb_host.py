# SPDX-License-Identifier: MIT
"""Part of the soak suite: 200 attach/detach cycles of a host's stick, in the host VM, with every measure flat."""
import time

from broker import full_log
from guest import LabError
from host_broker import STATE
from host_case import Ours, read_sha256

CYCLES = 200


def measures(h, b, guest, idle):
    b.check_idle(idle)
    time.sleep(0.3)
    return {"broker fds": b.fds(), "broker children": len(b.children()), "broker RSS KiB": b.rss_kib(),
            "workers": len(b.workers()), "relay fds": int(h.run("ls /proc/$(pidof vmm-relay)/fd | wc -l")),
            "QEMU objects": len(guest.objects()), "QEMU chardevs": len(guest.chardevs()), "QEMU fds": guest.fds(),
            "host's kernel KiB": int(h.run("grep ^SUnreclaim /proc/meminfo").split()[1])}


def test_200_host_cycles(lab):
    """200 attach/detach cycles of a host's stick: fds, processes, objects and memory stay flat, the driver comes back"""
    h = lab.host()
    h.plug("storage", "stick", image=lab.image(mib=4))
    h.push(f"{STATE}/log", full_log("usb:0000:00:01.0-1", "guest"), 0o600)
    b = lab.start_broker()
    g = lab.vm()
    ours = Ours(lab, g)
    idle = b.idle()
    name = ours.wait_device("stick")["name"]

    def cycle(i):
        b.cli("attach", name, "guest", "--wait")
        disk = g.wait_disk("stick")
        if i % 10 == 0:
            read_sha256(g, disk)
        b.cli("detach", name)

    for i in range(10):
        cycle(i)
    before = measures(h, b, g, idle)
    for i in range(CYCLES):
        cycle(i)
        if (i + 1) % 50 == 0:
            lab.note(f"{i + 1} cycles: {measures(h, b, g, idle)}")
    after = measures(h, b, g, idle)
    for what, was in before.items():
        # Allocators and slabs keep a little; what grew with each of 200 cycles would show.
        room = {"broker RSS KiB": 512, "host's kernel KiB": 2048}.get(what, 0)
        if after[what] > was + room:
            raise LabError(f"{what}: {was} before, {after[what]} after {CYCLES} cycles")
    if any(q["used"] for q in b.vm("guest")["quota"].values()):
        raise LabError("charges are left")
    h.wait_drivers("stick", ["usb-storage"])
