#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The host suite, with systemd: the unit as it is installed, killed, restarted and stopped while a guest has a device."""
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lab"))
import restarts
import runner
from host_case import Ours


def test_unit(lab):
    """systemd starts a killed broker again, 4 times, and restarts one: no error in the guest; a stop gives it back"""
    h = lab.host(systemd=True)
    h.plug("storage", "stick", image=lab.image(mib=8))
    b = lab.start_broker()
    g = lab.vm()
    ours = Ours(lab, g)
    name = ours.lend("stick")
    disk = g.wait_disk("stick")
    assert b.cgroup() == ["devbroker-usb", "devbrokerd", "spawner"], b.cgroup()
    restarts.restart(lab, g, disk, name, 4, b.kill, b.wait_restarted)
    restarts.restart(lab, g, disk, name, 2, lambda: None, b.restart)
    assert b.cgroup() == ["devbroker-usb", "devbrokerd", "spawner"], b.cgroup()
    start = time.monotonic()
    assert b.stop() == 0
    g.wait_no_usb("stick")
    lab.note(f"stopped, and given back, after {time.monotonic() - start:.1f} s")
    h.wait_drivers("stick", ["usb-storage"])
    assert b.cgroup() == [] and not b.workers(), (b.cgroup(), b.workers())


if __name__ == "__main__":
    runner.main([sys.modules[__name__]])
