# SPDX-License-Identifier: MIT
"""Part of the soak suite: the renderer of a guest that draws is killed 100 times, with every measure flat."""
import os
import time

from guest import LabError
from test_gpu_guest import Screen, check_errors, configure, kill_and_look, processes

KILLS = 100


def measures(screen):
    b = screen.lab.broker
    time.sleep(0.3)  # the connection of the last command is being closed
    front, renderer = (next(iter(processes(role, screen.name))) for role in ("front", "renderer"))
    return {"broker fds": b.fds(), "broker children": len(b.children()), "QEMU fds": screen.guest.fds(),
            "front fds": len(os.listdir(f"/proc/{front}/fd")), "renderer fds": len(os.listdir(f"/proc/{renderer}/fd")),
            "charged KiB": b.cli("gpu", "show", screen.name)["gpu"]["memory_bytes"] >> 10,
            "broker RSS KiB": b.rss_kib(), "front RSS KiB": b.rss_kib(front),
            "QEMU RSS KiB": b.rss_kib(screen.guest.process.pid)}


def test_100_kills(lab):
    """a renderer killed 100 times while its guest draws: the right picture each time; fds, charges and memory stay flat"""
    b = lab.start_broker(configure("one"))
    b.cli("gpu", "set-display", "one", "640x480", "--scanout", 1)
    screen = Screen(lab, "one")
    screen.guest.draw()
    screen.guest.do("mode 0 800x600")
    screen.guest.do("mode 1 640x480")
    kill_and_look(screen, 5)
    before = measures(screen)
    lab.note(f"{before}")
    kill_and_look(screen, KILLS)
    after = measures(screen)
    lab.note(f"{after}")
    for name, was in before.items():
        room = {"broker RSS KiB": 512, "front RSS KiB": 512, "QEMU RSS KiB": 16384}.get(name, 0)
        if after[name] > was + room:
            raise LabError(f"{name}: {was} before, {after[name]} after {KILLS} kills")
    check_errors(screen)
