#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Real programs of Mesa through devbroker-gpu --vtest, against the same on llvmpipe: what they draw, and what piglit says."""
import os
import subprocess
import sys
import threading
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "lab"), str(HERE.parent / "gpu")]
import piglit
import runner
from guest import LabError
from vtest import Screen, VtestServer, difference, mesa

# Shaders are translated to TGSI and back on their way, so that a value may be rounded otherwise, and an edge lie a pixel
# aside. Of 256 values; and of all values of the picture.
TOLERANCE = 4
SHARE = 0.01
SCENES = ("build", "texture:texture-filter=mipmap", "shading:shading=phong", "refract", "effect2d")
PIGLIT_BATCHES = 8


def compare(lab, what, ours, llvmpipe):
    most, share = difference(ours, llvmpipe, TOLERANCE)
    lab.note(f"{what}: at most {most} of 255 off; more than {TOLERANCE}: {share * 100:.2f} % of the values")
    if share > SHARE:
        raise LabError(f"{what}: {share * 100:.2f} % of the values are off by more than {TOLERANCE}")


def serve(lab, *options):
    return VtestServer.ours(runner.build_dir(), lab.work, "--vm=lab", *options)


def test_eglbench(lab):
    """eglbench, 50 frames with read-back: the same picture through vtest as on llvmpipe, per pixel"""
    server = serve(lab)
    pictures = []
    for socket in (server.socket, None):
        out = lab.work / "picture.raw"
        env = {**os.environ, **mesa(runner.build_dir(), socket)}
        said = subprocess.run([runner.build_dir() / "tests/gpu/eglbench", "50", out], env=env, check=True, text=True,
                              capture_output=True, timeout=60).stdout
        if ("virgl (" in said) != bool(socket):
            raise LabError(f"drawn by {said}")
        lab.note(said.strip())
        pictures.append(out.read_bytes())
    compare(lab, "eglbench", *pictures)
    check_end(server)


def check_end(server, dropped=()):
    """It ends well, and nobody was dropped but those."""
    if server.stop() != 0:
        raise LabError(f"--vtest ended with {server.process.returncode}")
    for line in server.text().splitlines():
        if "dropped" in line and not any(d in line for d in dropped) or "ended by signal" in line or "Sanitizer" in line:
            raise LabError(line)


def show(lab, server, name, argv):
    screen = Screen()
    try:
        pictures = [screen.picture_of(argv, mesa(runner.build_dir(), socket, still=True)) for socket in (server.socket, None)]
    finally:
        screen.stop()
    compare(lab, name, *pictures)


def test_glxgears(lab):
    """glxgears in an X server: the same picture through vtest as on llvmpipe"""
    server = serve(lab)
    show(lab, server, "glxgears", ["glxgears"])
    check_end(server)


def test_glmark2(lab):
    """glmark2-es2, five scenes: the same pictures through vtest as on llvmpipe"""
    server = serve(lab)
    for scene in SCENES:
        show(lab, server, scene, ["glmark2-es2", "-s", "320x240", "-b", scene])
    check_end(server)


def test_piglit(lab):
    """piglit: every test of tests/gpu/piglit.list ends through vtest as it does on llvmpipe"""
    names = [line for line in (HERE.parent / "gpu/piglit.list").read_text().splitlines() if line and line[0] != "#"]
    if len(names) < 500 or len(set(names)) != len(names):
        raise LabError(f"{len(names)} tests in the list, {len(set(names))} of them different")
    server = serve(lab)
    results = {}

    def run(socket):
        done = {}
        for i in range(PIGLIT_BATCHES):
            done.update(piglit.run_list([], names[i::PIGLIT_BATCHES], mesa(runner.build_dir(), socket)))
        results[socket] = done

    threads = [threading.Thread(target=run, args=(s,)) for s in (None, server.socket)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    wanted, got = results[None], results[server.socket]
    words = [wanted[n][0] for n in names]
    lab.note(f"{len(names)} tests: " + ", ".join(f"{words.count(w)} {w}" for w in sorted(set(words))))
    bad = [f"{n}: {got[n][0]} instead of {wanted[n][0]}" for n in names if got[n][0] != wanted[n][0]]
    if bad:
        raise LabError(f"{len(bad)} of {len(names)} differ:\n" + "\n".join(bad[:20]))
    if words.count("pass") < 500:
        raise LabError(f"only {words.count('pass')} tests pass on llvmpipe itself")
    check_end(server)


if __name__ == "__main__":
    runner.main([sys.modules[__name__]])
