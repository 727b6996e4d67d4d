#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What a guest's programs notice of what programs in the guest next door do to the GPU."""
import os
import re
import statistics
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lab"))
import runner
from guest import LabError
from test_gpu_guest import CONSOLE_TEXT, Screen, configure, processes
from test_gpu_guest_3d import wait_for
from test_gpu_quota_guest import MEMORY, Counters, lines

WINDOW_SECONDS = 3
PRIORITY = -15
TRIES = 8
P99_MORE = 1.2
# For as long as it is looked at.
BOMBS = {"memory": "while :; do gpubomb memory 100 </dev/null; done",
         "contexts": "while :; do gpubomb contexts 80; done",
         "huge textures": "while :; do gpubomb huge 20; done",
         "commands": "gpubomb commands 60",
         "long draws": "gpubomb long 60",
         "fences": "gpubomb fences 60"}
POLITE = "gpubomb frames 60"
END_BOMB = ("kill $(cat /tmp/bomb.pid); for p in /proc/[0-9]*; do if grep -aq gpubomb $p/cmdline && "
            "! grep -aq spin $p/cmdline; then kill -9 ${p#/proc/}; fi; done 2>/dev/null; true")
HANGS = 3
WINDOWS_MAX = 30


class Ahead(threading.Thread):
    """What is measured goes before what else this machine does, where that is allowed. Each process of a GPU is a session
    of its own, which the kernel may have schedule on its own; renderers come and go."""

    def __init__(self, screens):
        super().__init__(daemon=True)
        self.screens, self.over = screens, threading.Event()

    @staticmethod
    def set(pid, priority):
        try:
            os.setpriority(os.PRIO_PROCESS, pid, priority)
            Path(f"/proc/{pid}/autogroup").write_text(str(priority))
        except OSError:
            pass

    def run(self):
        while not self.over.wait(0.5):
            for s in self.screens:
                for pid in {s.guest.process.pid, *processes("front", s.name), *processes("renderer", s.name)}:
                    self.set(pid, PRIORITY)

    def __enter__(self):
        self.set(os.getpid(), PRIORITY)
        self.start()
        time.sleep(1)

    def __exit__(self, *_):
        self.over.set()
        self.join()
        self.set(os.getpid(), 0)


def window(screens, command):
    """Frames of the first guest while the second does that: how many, median and 99th percentile (us)."""
    victim, bomber = (s.guest for s in screens)
    bomber.run(f"( {command} ) >/tmp/bomb 2>&1 & echo $! >/tmp/bomb.pid")
    time.sleep(0.3)
    said = victim.run(f"gpubomb frames {WINDOW_SECONDS}")
    found = re.fullmatch(r"frames: (\d+), (\d+) (\d+) \d+ us", said)
    if not found:
        raise LabError(f"victim: {said}")
    return tuple(map(int, found.groups()))


def polite_window(screens):
    out = window(screens, POLITE)
    screens[1].guest.run(END_BOMB)
    return out


def compare(lab, name, bad, polite):
    """The 99th percentile of the victim's frame time against those beside a polite neighbour, before and after."""
    usual = statistics.mean(p[2] for p in polite)
    lab.note(f"{name}: {bad[0]:.0f} frames, p50 {bad[1] / 1000:.1f}, p99 {bad[2] / 1000:.1f} ms; beside a polite neighbour p50 " +
             ", ".join(f"{p[1] / 1000:.1f}" for p in polite) + ", p99 " + ", ".join(f"{p[2] / 1000:.1f}" for p in polite) +
             f" ms: {bad[2] / usual:.2f} times as long")
    return bad[2] <= P99_MORE * usual


def beside(lab, screens, name, before):
    """Beside a bomb and a polite neighbour in turn; returns whether it holds, and what it was beside the last polite one."""
    for _ in range(TRIES):
        bad = window(screens, BOMBS[name])
        screens[1].guest.run(END_BOMB)
        after = polite_window(screens)
        if compare(lab, name, bad, (before, after)):
            return True, after
        before = after
    return False, after


def endless(lab, screens, counters):
    """Shaders that never end: that renderer is replaced each time, and its VM has no 3D after the last; its console stays.
    It gets 3D back when that is allowed. Returns whether the victim's frames come as beside a polite neighbour."""
    bomber = screens[1]
    polite = [polite_window(screens), polite_window(screens)]
    shaders = "; ".join(["gpubomb shader"] * HANGS)
    was = counters.show()
    bad = [window(screens, shaders)]
    while not counters.show()["quarantined"]:
        bad.append(window(screens, "true"))
        if len(bad) > WINDOWS_MAX:
            raise LabError(f"no end of endless shaders: {counters.show()}")
    gpu = counters.show()
    gone = len(lines(lab.broker, "vm bomber", "ended while it drew for context", "(gpubomb)"))
    if gpu["hangs"] - was["hangs"] != HANGS or gpu["renderers"] - was["renderers"] != HANGS or gone != gpu["hangs"]:
        raise LabError(f"after {HANGS} endless shaders: {gpu}; before: {was}; {gone} were said")
    code, said = bomber.guest.run("gpubomb frames 1", check=False)
    if code != 1 or "nothing is drawn" not in said:
        raise LabError(f"without 3D, it draws: {said}")
    bomber.expect_console(1280, 800)
    lab.broker.cli("gpu", "allow", "bomber")
    wait_for("frames in 3D again", lambda: "frames:" in bomber.guest.run("gpubomb frames 1", check=False)[1])
    polite.append(polite_window(screens))
    # All of its windows are one measurement.
    return compare(lab, "endless shaders", [statistics.median(b[i] for b in bad) for i in range(3)], polite)


def start(lab, **more):
    """The victim's and the bomber's screen."""
    lab.start_broker(configure("victim", "bomber", memory=f"{MEMORY >> 20}M", virgl="yes", share="fair:50%", **more))
    screens = Screen(lab, "victim"), Screen(lab, "bomber")
    # What a guest's CPU itself does is the same in all cases.
    screens[1].guest.run("gpubomb spin &")
    return screens


def test_endless(lab):
    """shaders that never end, three times: that guest has no 3D, and its console; the other's frames come as before; allowed"""
    screens = start(lab, hang_timeout=4)
    screens[1].guest.run(CONSOLE_TEXT)
    with Ahead(screens):
        if not any(endless(lab, screens, Counters(lab.broker, "bomber")) for _ in range(TRIES)):
            raise LabError("frames take longer beside endless shaders")


def test_bombs(lab):
    """the frame times of a guest beside each bomb in another and beside a polite neighbour in turn"""
    screens, held = start(lab), {}
    with Ahead(screens):
        polite = polite_window(screens)
        for name in BOMBS:
            held[name], polite = beside(lab, screens, name, polite)
    if not all(held.values()):
        raise LabError(f"frames take longer beside {', '.join(name for name in held if not held[name])}")


if __name__ == "__main__":
    runner.main([sys.modules[__name__]])
