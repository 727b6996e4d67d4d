#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""tests/bench gpu-3d: a recording of glmark2-es2 through our renderer, through virgl_test_server, and in one process.

The recording is made first: scenes of glmark2-es2 on Mesa's virpipe, about 45,000 requests, with a read-back of each frame, as an
X server needs it. In each round it is played by a guest over vhost-user (tests/gpu, no QEMU: each command with a fence, as Linux
has them), to devbroker-gpu --vtest, to virgl_test_server, and straight into virglrenderer in the process that reads it; in an
order that rotates. What plays runs on the first CPU, what draws with all of its processes and threads on the second; in-process
both are the second. Nobody has a shader cache. All four must end with the same picture.

A clear is one of a single pixel, with its fence, one at a time. At the end a real guest draws with kmscube through ours.
"""
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "lab"), str(TESTS / "e2e"), str(TESTS / "benches")]
import images
import runner
import vtest_record
from guest import accelerator
from measure import Goals, arguments, finish, host, show_spread, table
from test_gpu_guest import Cube, configure
from vtest import Screen, VtestServer, mesa

SCENES = {"build": 900, "texture": 900, "shading:shading=gouraud": 800, "bump:bump-render=normals": 800, "conditionals": 700,
          "function": 700, "loop": 600, "pulsar": 700, "shadow": 250, "effect2d": 150}
WANTED = 45000
SIDES = ("vhost", "ours", "upstream", "inprocess")
TITLES = {"vhost": "vhost-user", "ours": "our vtest", "upstream": "virgl_test_server", "inprocess": "in-process"}
CLEARS = 5000
CUBE_SECONDS = 10
DRAWING_CPU = 1


def say(text):
    print(text, flush=True)


def make_recording(path, folder):
    """How many requests there are in it."""
    screen, server = Screen(), VtestServer.upstream(folder)
    counts = []
    listen = folder / "record.sock"
    recorder = threading.Thread(target=lambda: counts.append(vtest_record.serve(listen, server.socket, path)))
    recorder.start()
    while not listen.exists():
        time.sleep(0.01)
    argv = ["glmark2-es2", "-s", "320x240", "--reuse-context"]
    for scene, frames in SCENES.items():
        argv += ["-b", f"{scene}:nframes={frames}"]
    subprocess.run(argv, env={**os.environ, **mesa(runner.build_dir(), listen), "DISPLAY": screen.display}, check=True,
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=600)
    recorder.join()
    server.stop()
    screen.stop()
    return counts[0]


class Sides:
    """The servers, and what is measured on them."""

    def __init__(self, build, folder, recording):
        self.build, self.recording = build, recording
        self.bench = str(build / "tests/benches/gpu-bench-3d")
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {DRAWING_CPU})
        self.servers = {"ours": VtestServer.ours(build, folder, "--vm=bench", "--log-level=warn"),
                        "upstream": VtestServer.upstream(folder)}
        os.sched_setaffinity(0, before)
        self.backend = [str(build / "gpu/devbroker-gpu"), "--virgl"]

    def run(self, *argv):
        out = subprocess.run([self.bench, *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=300)
        if out.returncode:
            sys.exit(f"gpu_3d: {argv[0]} could not be measured: {out.stderr[-500:]}")
        return json.loads(out.stdout.splitlines()[-1])

    def server_of(self, side):
        return str(self.servers[side].socket), str(self.servers[side].process.pid)

    def measure(self, side):
        if side == "inprocess":
            return self.run("replay", str(self.recording))
        if side == "vhost":
            return {**self.run("play", str(self.recording), *self.backend),
                    **self.run("clear", str(CLEARS), "vhost", *self.backend)}
        return {**self.run("replay", str(self.recording), *self.server_of(side)),
                **self.run("clear", str(CLEARS), *self.server_of(side))}

    def stop(self):
        for s in self.servers.values():
            s.stop()


class Numbers:
    def __init__(self, rounds, requests):
        self.rounds, self.requests = rounds, requests

    def of(self, side, name):
        if name == "per_s":
            return [self.requests / r[side]["seconds"] for r in self.rounds]
        return [r[side][name] for r in self.rounds]

    def show(self, side, name):
        return show_spread(self.of(side, name)) if name in self.rounds[0][side] or name == "per_s" else "–"

    def ratios(self, side, name, over):
        return [a / b for a, b in zip(self.of(side, name), self.of(over, name))]

    def ratio(self, side, name, over):
        return statistics.median(self.ratios(side, name, over))


def report(n):
    head = ("", *(TITLES[s] for s in SIDES))
    rows = [(title, *(n.show(s, name) for s in SIDES)) for title, name in (
        ("recording, s", "seconds"), ("its requests, /s", "per_s"), ("CPU of what draws, s", "cpu_s"),
        ("RSS idle, MiB", "rss_idle_mib"), ("RSS after, MiB", "rss_after_mib"), ("fenced clear p50, µs", "clear_p50_us"),
        ("p99", "clear_p99_us"), ("its CPU, µs", "clear_cpu_us"))]
    rows.insert(1, ("÷ in-process", *(show_spread(n.ratios(s, "seconds", "inprocess")) for s in SIDES)))
    say("")
    table(head, rows)


def check_goals(n):
    say("\nGoals:")
    goals = Goals()
    goals.at_most("recording over vhost-user, beside in-process", n.ratio("vhost", "seconds", "inprocess"), 1.10, "times")
    goals.at_most("recording through our vtest, beside in-process", n.ratio("ours", "seconds", "inprocess"), 1.10, "times")
    goals.at_most("recording through our vtest, beside virgl_test_server", n.ratio("ours", "seconds", "upstream"), 1, "times")
    goals.at_most("fenced clear over vhost-user, p50", statistics.median(n.of("vhost", "clear_p50_us")), 90, "µs")
    goals.at_most("fenced clear through our vtest, p50, beside virgl_test_server", n.ratio("ours", "clear_p50_us", "upstream"),
                  1, "times")
    return goals


def kmscube():
    """Frames per second of kmscube in a guest at 1280x800, as QEMU is sent them."""
    all_images = images.Images(runner.SOURCE / "build/lab", runner.SOURCE, say=say)
    lab = runner.Lab("gpu-3d", all_images)
    try:
        lab.start_broker(configure("cube", memory="512M", virgl="yes"))
        cube = Cube(lab, "cube")
        cube.begin()
        cube.wait()
        return {"renderer": cube.renderer(), "frames_per_s": cube.rate(CUBE_SECONDS), "accelerator": accelerator(all_images)}
    finally:
        lab.close(keep=False)


def main():
    o = arguments("gpu-3d")
    if os.cpu_count() < 2:
        sys.exit("gpu_3d: it takes two CPUs")
    os.environ["MESA_SHADER_CACHE_DISABLE"] = "true"
    with tempfile.TemporaryDirectory(prefix="db-3d-") as folder:
        recording = Path(folder) / "glmark2.vtest"
        requests = make_recording(recording, Path(folder))
        size = recording.stat().st_size
        say(f"Recorded {requests} requests, {size >> 20} MiB")
        if not WANTED * 0.8 < requests < WANTED * 1.2:
            sys.exit("gpu_3d: the recording is not what it is meant to be")
        sides = Sides(runner.build_dir(), Path(folder), recording)
        data = {"schema": "devbroker.bench-gpu-3d/1", "host": host("none"), "requests": requests, "bytes": size, "rounds": []}
        for i in range(o.rounds):
            order = [SIDES[(i + k) % len(SIDES)] for k in range(len(SIDES))]
            one = {side: sides.measure(side) for side in order}
            if len({one[side]["hash"] for side in SIDES}) != 1:
                sys.exit(f"gpu_3d: not the same picture: { {s: one[s]['hash'] for s in SIDES} }")
            one["load"] = os.getloadavg()[0]
            data["rounds"].append(one)
            say(f"  round {i + 1}/{o.rounds}: " + ", ".join(f"{TITLES[s]} {one[s]['seconds']:.2f} s" for s in SIDES) +
                f"; load {one['load']:.1f}")
        sides.stop()
    cube = data["kmscube"] = kmscube()
    n = Numbers(data["rounds"], requests)
    report(n)
    say(f"kmscube in a guest ({cube['accelerator']}), {cube['renderer']}: {cube['frames_per_s']:.1f} frames/s")
    finish(o, data, check_goals(n))


if __name__ == "__main__":
    main()
