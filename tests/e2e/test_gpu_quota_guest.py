#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Limits of a VM's GPU, met by programs in a real guest that mean harm (gpubomb), or set while they run."""
import os
import re
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lab"))
import runner
from guest import LabError
from test_gpu_guest import Cube, configure
from test_gpu_guest_3d import check_renderer, wait_for

MIB = 1 << 20
MEMORY = 64 * MIB
CONTEXT = 3 * MIB  # what is charged for one
CONTEXTS = 12
RESOURCES = 7
FRAME_RATE = 30
CPUS = len(os.sched_getaffinity(0))
SHARE = 10
SHARE_SECONDS = 6
RATE_SECONDS = 3
# Of what kmscube draws by itself, beside a program that was refused.
RATE_LEFT = 0.7


class Counters:
    """What is told of a VM's GPU: it is told twice a second, so that what has just happened has to be waited for."""

    def __init__(self, broker, name):
        self.broker, self.name = broker, name

    def show(self):
        return self.broker.cli("gpu", "show", self.name)["gpu"]

    def stats(self):
        return next(g for g in self.broker.cli("stats")["gpus"] if g["vm"] == self.name)

    def wait(self, what, condition, timeout=20):
        def good():
            now = self.show()
            return now if condition(now) else None
        try:
            return wait_for(what, good, timeout)
        except LabError as e:
            raise LabError(f"{self.name}: {e}: {self.show()}")

    def wait_steady(self):
        """Until its memory is the same for a second."""
        while True:
            first = self.show()["memory_bytes"]
            time.sleep(1)
            if self.show()["memory_bytes"] == first:
                return first


def lines(broker, *words):
    return [line for line in broker.log_text().splitlines() if all(w in line for w in words)]


def check_log(b, lost):
    """The limit was met to the byte, and of the one context that goes on without what it was refused there is one line."""
    first = lines(b, "vm one: refused resource", "512x512x1")[0]
    asked, used, limit = map(int, re.search(r": (\d+) KiB, with (\d+) of (\d+) KiB", first).groups())
    if not used <= limit == MEMORY >> 10 or used + asked <= limit:
        raise LabError(f"refused too early or too late: {first}")
    said = [line for line in lines(b, "vm one: context", "draws nothing more")][lost:]
    if len(said) != 1 or "(gpubomb)" not in said[0] or f"of {limit} KiB" not in said[0]:
        raise LabError(f"what the log says of one context that was lost: {said}")
    return first, said[0]


def memory_bomb(lab, cube, counters):
    """It gets all that there is and not more, and draws nothing from then on; kmscube goes on."""
    g, b = cube.guest, lab.broker
    before, alone = counters.wait_steady(), cube.rate(RATE_SECONDS)
    textures = (MEMORY - before) // MIB  # without its context
    g.run(f"mkfifo /tmp/hold; gpubomb memory {textures} </tmp/hold >/tmp/bomb 2>&1 & exec 5>/tmp/hold")
    said = wait_for("what the bomb says", lambda: g.run("cat /tmp/bomb"))
    drawn = int(re.fullmatch(rf"memory: (\d+) of {textures} textures drawn", said)[1])
    held = counters.wait("its refusals", lambda c: c["refused"] >= textures - drawn and c["poisoned"])
    beside = cube.rate(RATE_SECONDS)
    g.wait_dmesg("response 0x1201")
    refused, poisoned = check_log(b, 0)
    # Nothing else was charged meanwhile but its context, its objects and its command buffers.
    if not 0 < before + CONTEXT + drawn * MIB - held["memory_bytes"] + MIB // 2 < MIB or \
            held["memory_bytes"] > MEMORY or not 0 <= (MEMORY - before - CONTEXT) // MIB - drawn <= 1:
        raise LabError(f"{drawn} textures drawn, beside {before} bytes: {held}")
    stats = counters.stats()
    if held["poisoned"] != 1 or stats["poisoned"] != 1 or stats["refused"] < held["refused"]:
        raise LabError(f"{held}; {stats}")
    if beside < RATE_LEFT * alone:
        raise LabError(f"kmscube draws {beside:.1f} frames/s beside a program that was refused, and {alone:.1f} alone")
    g.run("exec 5>&-; while pidof gpubomb; do sleep 0.1; done")
    counters.wait("its memory back", lambda c: c["memory_bytes"] == before)
    lab.note(f"memory: {drawn} textures, then nothing: {refused.split('vm one: ')[1]}; {poisoned.split('vm one: ')[1]}")
    lab.note(f"kmscube: {alone:.1f} frames/s, {beside:.1f} beside it")


def huge_textures(lab, cube, counters):
    before = counters.wait_steady()
    said = cube.guest.run("gpubomb huge 3")
    if said != "huge: 0 of 3 textures drawn" or len(lines(lab.broker, "16384x16384x1", "1048576 KiB")) != 3:
        raise LabError(f"{said}; {lines(lab.broker, '16384x16384x1')}")
    counters.wait("three more contexts that draw nothing", lambda c: c["poisoned"] == 4 and c["memory_bytes"] == before)


def context_bomb(lab, cube, counters):
    """There are CONTEXTS, and not one more."""
    before = counters.show()["contexts"]
    said = cube.guest.run(f"gpubomb contexts {CONTEXTS}")
    left = CONTEXTS - before
    if said != f"contexts: {left} of {CONTEXTS} draw, {left} at once" or before < 1:
        raise LabError(f"beside {before}: {said}")
    counters.wait("its contexts ended", lambda c: c["contexts"] == before)
    lab.note(f"{said}, beside {before}")


def resource_bomb(lab, cube, counters):
    """There are as many resources as were set while it runs, and not one more."""
    before = counters.show()["resources"]
    limit = before + RESOURCES
    lab.broker.cli("quota", "set", "one", f"gpu.resources={limit}")
    poisoned = counters.show()["poisoned"]
    said = cube.guest.run(f"gpubomb memory {2 * RESOURCES} </dev/null")
    lab.broker.cli("quota", "set", "one", "gpu.resources=none")
    if said != f"memory: {RESOURCES} of {2 * RESOURCES} textures drawn" or \
            not lines(lab.broker, "refused resource", f"and {limit} of {limit} resources in use"):
        raise LabError(f"beside {before}: {said}; {lines(lab.broker, 'refused resource')}")
    counters.wait("its resources gone, and its context the one that drew no more",
                  lambda c: c["resources"] == before and c["poisoned"] == poisoned + 1)
    lab.note(f"resources: {said}, beside {before} with gpu.resources={limit}")


def shown_rate(g):
    """Frames per second that a guest's program shows, by its own count."""
    first, start = g.number(), time.monotonic()
    time.sleep(RATE_SECONDS)
    return (g.number() - first) / (time.monotonic() - start)


def frame_rate(lab, screen):
    """What is shown, and how often the guest's program can show another one, once there is a limit."""
    g = screen.guest
    g.draw()
    g.do("texture 0 640x480")
    g.do("run")
    alone = shown_rate(g)
    lab.broker.cli("quota", "set", "one", f"gpu.frame-rate={FRAME_RATE}")
    time.sleep(0.5)
    limited = shown_rate(g)
    lab.broker.cli("quota", "set", "one", "gpu.frame-rate=none")
    g.do("stop")
    g.end_drawing()
    lab.note(f"{alone:.1f} frames/s shown; with frame-rate={FRAME_RATE}: {limited:.1f}")
    if not 0.8 * min(FRAME_RATE, alone) < limited < 1.05 * FRAME_RATE:
        raise LabError("its frame rate is not what was set")


def drawn_frames(g, counters):
    """How many frames a guest's program draws, and of how many CPUs its renderer takes the time meanwhile."""
    first, start = counters.show(), time.monotonic()
    frames = int(re.match(r"frames: (\d+),", g.run(f"gpubomb frames {SHARE_SECONDS}"))[1])
    time.sleep(0.6)  # it is told twice a second
    last, seconds = counters.show(), time.monotonic() - start
    return frames, (last["cpu_usec"] - first["cpu_usec"]) / 1e6 / seconds


def share(lab, g, counters):
    """A fixed share, as the guest notices it."""
    alone, most = drawn_frames(g, counters)
    lab.broker.cli("quota", "set", "one", f"gpu.share=fixed:{SHARE}%")
    limited, used = drawn_frames(g, counters)
    lab.broker.cli("quota", "set", "one", "gpu.share=best-effort")
    lab.note(f"{alone} frames with {most:.2f} CPUs; with share=fixed:{SHARE}% of {CPUS} CPUs: {limited} with {used:.2f}")
    if used > 1.2 * CPUS * SHARE / 100 or (most > 1.5 * CPUS * SHARE / 100 and limited > 0.8 * alone):
        raise LabError("its share is not what was set")


def test_limits(lab):
    """memory, 16384x16384 textures, contexts: exactly the limit; who is over it draws no more; kmscube goes on; charges end"""
    b = lab.start_broker(configure("one", memory=f"{MEMORY >> 20}M", virgl="yes", contexts=CONTEXTS))
    cube, counters = Cube(lab, "one"), Counters(b, "one")
    cube.begin()
    picture = cube.wait()
    check_renderer("kmscube", cube.renderer())
    memory_bomb(lab, cube, counters)
    huge_textures(lab, cube, counters)
    context_bomb(lab, cube, counters)
    resource_bomb(lab, cube, counters)
    cube.wait(picture)
    cube.end()
    frame_rate(lab, cube.screen)
    share(lab, cube.guest, counters)


if __name__ == "__main__":
    runner.main([sys.modules[__name__]])
