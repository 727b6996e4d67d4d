#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The soak suite: 200 attach/detach cycles in one guest with every measure flat, the same with a host's stick
(soak_usb_host), brokers that are killed (soak_restarts), random faults (soak_faults), an NBD
server that is stopped (soak_nbd), and a GPU's renderer killed 100 times (soak_gpu)."""
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lab"))
import runner
import soak_faults
import soak_gpu
import soak_nbd
import soak_restarts
import soak_usb_host
from broker import full_log
from guest import LabError

CYCLES = 200


def measures(lab, guest):
    b = lab.broker
    time.sleep(0.3)  # the connection of the last command is being closed
    return {"broker fds": b.idle()["fds"], "broker children": len(b.children()), "QEMU fds": guest.fds(),
            "QEMU objects": len(guest.objects()), "QEMU chardevs": len(guest.chardevs()),
            "broker RSS KiB": b.rss_kib(), "QEMU RSS KiB": b.rss_kib(guest.process.pid)}


def test_200_cycles(lab):
    """200 attach/detach cycles: fds, processes, objects and memory stay flat"""
    state = lab.work / "state"
    state.mkdir()
    (state / "log").write_text(full_log("disk:stick", "guest"))
    b = lab.start_broker()
    g = lab.vm()
    b.cli("disk", "add", lab.image(mib=4), "--name", "stick")
    serial = b.device("disk:stick")["serial"]

    def cycle(i):
        b.cli("attach", "stick", "guest", "--wait")
        disk = g.wait_disk(serial)
        if i % 10 == 0:
            g.run(f"dd if=/dev/{disk} of=/dev/null bs=64k 2>/dev/null")
        b.cli("detach", "stick")

    for i in range(10):
        cycle(i)
    before = measures(lab, g)
    for i in range(CYCLES):
        cycle(i)
        if (i + 1) % 50 == 0:
            lab.note(f"{i + 1} cycles: {measures(lab, g)}")
    after = measures(lab, g)
    for name, was in before.items():
        # A page or two of an allocator are no leak; what grew with each of 200 cycles would show.
        room = {"broker RSS KiB": 512, "QEMU RSS KiB": 8192}.get(name, 0)
        if after[name] > was + room:
            raise LabError(f"{name}: {was} before, {after[name]} after {CYCLES} cycles")
    if any(q["used"] for q in b.vm("guest")["quota"].values()):
        raise LabError("charges are left")


if __name__ == "__main__":
    runner.main([sys.modules[__name__], soak_usb_host, soak_restarts, soak_faults, soak_nbd, soak_gpu])
