#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""tests/bench gpu-2d: devbroker-gpu beside QEMU's own vhost-user-gpu, in 2D, and beside what the machine can do.

gpu-bench plays VMM, display and guest (tests/gpu, no QEMU) on the first CPU; the backend with all of its processes runs on the
second. In each round stock, ours and the limits are measured right after each other, in an order that rotates. Medians of
the rounds with the lowest and highest are printed, and ratios are medians of the rounds' pairs.

A frame counts when the display has it; the guest is at most one frame ahead of its display, so leaving frames out gains nothing.
The limits: the same frames through the same kind of socket to the same display (send), the same bytes copied once (copy), each frame
copied and then sent by one process (copy, send), two processes that wake each other through eventfds (ping). CPU time is that of all of the backend's processes.
"""
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "lab"), str(Path(__file__).resolve().parent)]
import runner
from measure import Goals, arguments, finish, host, number, show_spread, table

STOCK = "/usr/lib/qemu/vhost-user-gpu"
SIZES = ("640x480", "1280x800", "1920x1080", "3840x2160")
SIDES = ("stock", "ours", "limit")
# Cells in which ours has to be ahead: name → whether more is better.
AHEAD = {"command_per_s": True, "command_p50_us": False, "command_p99_us": False, "command_batched_per_s": True,
         "info_batched_per_s": True, "info_per_s": True, "damage_64x64_per_s": True, "damage_64x64_cpu_ms": False,
         "cursor_idle_p50_us": False, "cursor_idle_p99_us": False, "cursor_loaded_p50_us": False,
         "cursor_loaded_shown_p99_us": False}


def say(text):
    print(text, flush=True)


def measure(build, side, ms):
    what = {"stock": [STOCK], "ours": [str(build / "gpu/devbroker-gpu")], "limit": ["limit"]}[side]
    out = subprocess.run([str(build / "tests/benches/gpu-bench"), str(ms), *what], stdout=subprocess.PIPE, text=True,
                         timeout=300)
    if out.returncode:
        sys.exit(f"gpu_2d: {side} could not be measured")
    return json.loads(out.stdout)


class Numbers:
    def __init__(self, rounds):
        self.rounds = rounds

    def of(self, side, name):
        return [r[side][name] for r in self.rounds]

    def show(self, side, name):
        return show_spread(self.of(side, name))

    def ratios(self, name, over="stock"):
        return [r["ours"][name] / r[over][name] for r in self.rounds]

    def ratio(self, name, over="stock"):
        return statistics.median(self.ratios(name, over))

    def floor_ratios(self, size):
        """CPU of a frame beside that of one send and one copy."""
        name = f"frames_{size}"
        return [r["ours"][f"{name}_cpu_ms"] / (r["limit"][f"{name}_send_ms"] + r["limit"][f"{name}_copy_ms"])
                for r in self.rounds]


def report(n):
    def rows(*cells):
        return [(title, n.show("stock", name), n.show("ours", name), show_spread(n.ratios(name))) for title, name in cells]

    head = ("", "stock", "ours", "ours ÷ stock")
    say("\nCommands:")
    table(head, rows(("one at a time, /s", "command_per_s"), ("p50, µs", "command_p50_us"), ("p99, µs", "command_p99_us"),
                     ("CPU each, µs", "command_cpu_us"), ("batches of 32, /s", "command_batched_per_s"),
                     ("interrupts a batch", "command_interrupts_per_batch"), ("display info, /s", "info_per_s"),
                     ("display info in batches, /s", "info_batched_per_s")))
    say(f"  eventfd ping-pong: {n.show('limit', 'ping_per_s')}/s, p50 {n.show('limit', 'ping_p50_us')} µs, "
        f"p99 {n.show('limit', 'ping_p99_us')} µs")
    say("\nFrames:")
    out = []
    for size in SIZES:
        name = f"frames_{size}"
        out.append((size, n.show("stock", f"{name}_per_s"), n.show("ours", f"{name}_per_s"),
                    show_spread(n.ratios(f"{name}_per_s")), n.show("limit", f"{name}_per_s"),
                    show_spread(n.ratios(f"{name}_per_s", "limit")), n.show("stock", f"{name}_cpu_ms"),
                    n.show("ours", f"{name}_cpu_ms"), show_spread(n.floor_ratios(size))))
    table(("", "stock, /s", "ours, /s", "÷ stock", "socket, /s", "÷ socket", "stock, CPU ms", "ours, CPU ms",
           "÷ send + copy"), out)
    say("\nEach frame copied and sent in one loop, with nothing else done:")
    out = []
    for size in SIZES:
        name = f"frames_{size}"
        both = [r["limit"] for r in n.rounds]
        out.append((size, n.show("limit", f"{name}_both_per_s"), show_spread([b[f"{name}_both_per_s"] / b[f"{name}_per_s"] for b in both]),
                    show_spread([b[f"{name}_both_ms"] / (b[f"{name}_send_ms"] + b[f"{name}_copy_ms"]) for b in both]),
                    show_spread([r["ours"][f"{name}_per_s"] / r["limit"][f"{name}_both_per_s"] for r in n.rounds]),
                    show_spread([r["ours"][f"{name}_cpu_ms"] / r["limit"][f"{name}_both_ms"] for r in n.rounds])))
    table(("", "/s", "÷ socket", "CPU ÷ send + copy", "ours ÷ this, /s", "CPU"), out)
    say(f"  640x480 from blobs in guest memory, no transfers: ours {n.show('ours', 'blobs_640x480_per_s')}/s, CPU "
        f"{n.show('ours', 'blobs_640x480_cpu_ms')} ms; ÷ transfer and flush: "
        + show_spread([r["ours"]["blobs_640x480_per_s"] / r["ours"]["frames_640x480_per_s"] for r in n.rounds])
        + ", CPU " + show_spread([r["ours"]["blobs_640x480_cpu_ms"] / r["ours"]["frames_640x480_cpu_ms"] for r in n.rounds]))
    say("\nDamage of 64x64 in 1920x1080, cursor, start, memory:")
    table(head, rows(("damage, /s", "damage_64x64_per_s"), ("its CPU, ms", "damage_64x64_cpu_ms"),
                     ("cursor answered, idle, p50 µs", "cursor_idle_p50_us"), ("p99", "cursor_idle_p99_us"),
                     ("cursor answered, 1080p flushes, p50 µs", "cursor_loaded_p50_us"), ("p99", "cursor_loaded_p99_us"),
                     ("cursor shown, 1080p flushes, p50 µs", "cursor_loaded_shown_p50_us"),
                     ("p99", "cursor_loaded_shown_p99_us"), ("start to the first reply, ms", "start_reply_ms"),
                     ("start to the first command, ms", "start_command_ms"), ("RSS idle, MiB", "rss_idle_mib"),
                     ("RSS after, MiB", "rss_after_mib")))


def check_goals(n):
    say("\nGoals:")
    goals = Goals()
    for size in SIZES:
        goals.at_least(f"frames {size}: beside the socket alone", n.ratio(f"frames_{size}_per_s", "limit") * 100, 85, "%")
        goals.at_most(f"frames {size}: CPU beside one send and one copy", statistics.median(n.floor_ratios(size)), 1.15,
                      "times")
        goals.at_least(f"frames {size}: beside stock", n.ratio(f"frames_{size}_per_s"), 1, "times")
        goals.at_most(f"frames {size}: CPU beside stock", n.ratio(f"frames_{size}_cpu_ms"), 1, "times")
    goals.at_most("cursor p99 under 1080p flushes, beside stock", n.ratio("cursor_loaded_p99_us"), 0.25, "times")
    for name, more in AHEAD.items():
        if more:
            goals.at_least(f"{name} beside stock", n.ratio(name), 1, "times")
        else:
            goals.at_most(f"{name} beside stock", n.ratio(name), 1, "times")
    return goals


def main():
    o = arguments("gpu-2d", cell_ms=(700, "how long each cell is measured"))
    if os.cpu_count() < 2:
        sys.exit("gpu_2d: it takes two CPUs")
    data = {"schema": "devbroker.bench-gpu-2d/1", "host": host("none"), "cell_ms": o.cell_ms, "rounds": []}
    for i in range(o.rounds):
        one = {}
        for k in range(len(SIDES)):
            side = SIDES[(i + k) % len(SIDES)]
            one[side] = measure(runner.build_dir(), side, o.cell_ms)
        one["load"] = os.getloadavg()[0]
        data["rounds"].append(one)
        say(f"  round {i + 1}/{o.rounds}, stock / ours: " + ", ".join(
            f"{title} {number(one['stock'][name])} / {number(one['ours'][name])}" for title, name in (
                ("commands", "command_per_s"), ("640x480", "frames_640x480_per_s"), ("1080p", "frames_1920x1080_per_s"),
                ("cursor p99 µs", "cursor_loaded_p99_us"))))
    n = Numbers(data["rounds"])
    report(n)
    finish(o, data, check_goals(n))


if __name__ == "__main__":
    main()
