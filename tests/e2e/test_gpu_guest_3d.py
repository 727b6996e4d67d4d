#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Debian guests under an unmodified QEMU that draw in 3D through our virtio-gpu: Mesa, kmscube, glmark2, Weston."""
import re
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lab"))
import runner
from gpu_guest import frame
from guest import LabError, wait
from test_gpu_guest import CONSOLE_TEXT, Cube, check_errors, configure, kill_renderer

# Screens show no transparency, and glmark2 asks for it unless it is told.
GLMARK2 = "glmark2-es2-drm --visual-config red=8:green=8:blue=8:alpha=0"
SCENES = ["build", "shading:shading=phong", "texture"]
SCENE_SECONDS = 2
RATE_SECONDS = 5
VALIDATE = "glmark2-es2-wayland --validate"
VALIDATED = ["build:use-vbo=false", "build:use-vbo=true", "texture:texture-filter=nearest", "texture:texture-filter=linear",
             "texture:texture-filter=mipmap", "shading:shading=gouraud", "shading:shading=blinn-phong-inf",
             "shading:shading=phong", "bump:bump-render=high-poly", "bump:bump-render=normals", "bump:bump-render=height",
             "pulsar:light=false:quads=5:texture=false", "desktop:effect=blur", "desktop:effect=shadow",
             "buffer:update-method=map", "buffer:update-method=subdata", "conditionals:fragment-steps=5:vertex-steps=0",
             "function:fragment-complexity=medium:fragment-steps=5",
             "loop:fragment-steps=5:fragment-uniform=true:vertex-steps=5"]
WESTON = "weston --tty=7 --backend=drm-backend.so --continue-without-input --no-config --idle-time=0"
WAYLAND = "XDG_RUNTIME_DIR=/tmp/wayland WAYLAND_DISPLAY=wayland-1 HOME=/tmp chroot /mnt"
# What a terminal runs: it is blank until somebody says so.
TEXT_LINES = 12
TEXT = f"""#!/bin/sh
while [ ! -e /tmp/go ]; do sleep 0.1; done
for i in $(seq {TEXT_LINES}); do echo "The quick brown fox jumps over the lazy dog"; done
sleep 1000
"""
PANEL_ROWS = 32  # with a clock
TERMINAL_PIXELS = 100000


def check_renderer(name, gl):
    if not gl.startswith("virgl ("):
        raise LabError(f"{name}: the guest does not draw in 3D through us but with {gl}")


def wait_for(what, condition, timeout=40):
    """As wait, for what takes its time in a guest."""
    return wait(what, condition, timeout)


def test_two_cubes(lab):
    """two guests draw in 3D at once; one loses its renderer: the other goes on, its console is back, it draws anew"""
    b = lab.start_broker(configure("one", "two", memory="512M", virgl="yes"))
    cubes = [Cube(lab, "one"), Cube(lab, "two")]
    one, two = cubes
    for cube in cubes:
        cube.guest.run(CONSOLE_TEXT)
        cube.begin()
    pictures = [cube.wait() for cube in cubes]
    for cube in cubes:
        check_renderer(cube.screen.name, cube.renderer())
        ours = b.cli("gpu", "show", cube.screen.name)["gpu"]["drawn_by"]
        rate = cube.rate(RATE_SECONDS)
        lab.note(f"{cube.screen.name}: {cube.renderer()}, drawn by {ours}, {rate:.1f} frames/s beside the other")
        if not ours:
            raise LabError(f"{cube.screen.name}: nobody draws it")
        if rate <= 0:
            raise LabError(f"{cube.screen.name}: no frame in {RATE_SECONDS} s")
    kill_renderer("one")
    two.wait(pictures[1])
    # Its context is lost, and kmscube does not know what to do about that; a new one does not mind.
    one.end()
    one.screen.expect_console(1280, 800)
    one.begin()
    one.wait()
    check_renderer("one, with another renderer", one.renderer())
    if b.cli("gpu", "show", "one")["gpu"]["renderers"] != 2:
        raise LabError(f"one renderer was killed: {b.cli('gpu', 'show', 'one')}")
    check_errors(two.screen)


def glmark2(lab, desktop):
    """Runs its scenes; each says its frame rate."""
    scenes = " ".join(f"-b {s}:duration={SCENE_SECONDS}.0" for s in SCENES)
    out = desktop.guest.run(f"timeout 90 chroot /mnt {GLMARK2} {scenes}", timeout=100)
    check_renderer("glmark2", re.search(r"GL_RENDERER: +(.*)", out)[1])
    rates = re.findall(r"FPS: (\d+)", out)
    score = re.search(r"glmark2 Score: (\d+)", out)
    if len(rates) != len(SCENES) or "0" in rates or not score or "Error" in out:
        raise LabError(f"glmark2: {out[-500:]}")
    lab.note(f"glmark2, {re.search(r'Surface Size: +(.*)', out)[1]}: score {score[1]}; " +
             ", ".join(f"{s} {r}/s" for s, r in zip(SCENES, rates)))


def text_lines(before, after):
    """How many lines of text a picture has that was blank before: bands of rows that are different."""
    row, bands, inside = after.width * 3, 0, False
    for y in range(PANEL_ROWS, after.height):
        differs = before.pixels[y * row:y * row + row] != after.pixels[y * row:y * row + row]
        bands += differs and not inside
        inside = differs
    return bands


def vivid(p):
    """How many pixels are much of red, of green, of blue; Weston's desktop and terminal are grey."""
    n = [0, 0, 0]
    for rgb in zip(p.pixels[0::3], p.pixels[1::3], p.pixels[2::3]):
        if max(rgb) - min(rgb) > 80:
            n[rgb.index(max(rgb))] += 1
    return n


def black(p):
    return p.pixels.count(b"\0\0\0")


def weston(lab, desktop):
    """Weston with its GL renderer: a terminal whose text appears, and beside it a triangle that turns."""
    g = desktop.guest
    g.run(f"mkdir -m 700 /mnt/tmp/wayland; mkdir -p /mnt/dev/pts; mount -t devpts devpts /mnt/dev/pts; "
          f"cat >/mnt/tmp/shell <<'END'\n{TEXT}END\nchmod 755 /mnt/tmp/shell")
    g.begin(f"XDG_RUNTIME_DIR=/tmp/wayland HOME=/tmp chroot /mnt {WESTON}")
    try:
        wait_for("Weston's socket", lambda: g.run("ls /mnt/tmp/wayland; true"))
    except LabError as e:
        raise LabError(f"{e}; {g.run('tail -c 600 /tmp/background')}")

    def seen(what, condition):
        """Waits for a picture of which condition holds, also a second later: things are faded in."""
        wait_for(what, lambda: condition(g.screendump()))
        time.sleep(1)
        p = g.screendump()
        if not condition(p):
            raise LabError(f"{what} is gone again")
        return p

    seen("Weston's desktop", lambda p: p.colours() > 10 and black(p) < TERMINAL_PIXELS)
    g.run(f"{WAYLAND} weston-terminal --shell=/tmp/shell >/tmp/terminal 2>&1 &")
    blank = seen("a terminal", lambda p: p.colours() > 10 and black(p) > TERMINAL_PIXELS)
    g.run("touch /mnt/tmp/go")
    lines = text_lines(blank, seen("its text", lambda p: text_lines(blank, p) >= TEXT_LINES))
    if lines > TEXT_LINES + 2:  # its cursor is elsewhere, too
        raise LabError(f"a terminal with {lines} lines of text")
    g.run(f"{WAYLAND} weston-simple-egl >/tmp/triangle 2>&1 &")

    def triangle():
        p = g.screendump()
        return p if min(vivid(p)) > 200 else None

    first = wait_for("a triangle", triangle)
    wait_for("a triangle that turns", lambda: (lambda p: p and p.difference(first))(triangle()))
    log = g.run("cat /tmp/background")
    check_renderer("Weston", re.search(r"GL renderer: (.*)", log)[1])
    lab.note(f"Weston: {desktop.rate(RATE_SECONDS):.1f} frames/s; {lines} lines of text; "
             f"a triangle of {vivid(first)} pixels")


def validate(lab, desktop):
    """glmark2 knows what its scenes look like: it reads pixels back and compares them. It does so in a window only."""
    g = desktop.guest
    g.run("kill $(pidof weston-simple-egl)")
    scenes = " ".join(f"-b {s}" for s in VALIDATED)
    out = g.run(f"{WAYLAND} {VALIDATE} {scenes}", timeout=100)
    right = out.count("Validation: Success")
    if right != len(VALIDATED):
        raise LabError(f"{right} of glmark2's {len(VALIDATED)} scenes are right: {out[-900:]}")
    check_renderer("glmark2 in a window", re.search(r"GL_RENDERER: +(.*)", out)[1])
    lab.note(f"glmark2 in a window: {right} scenes are right")


def upload(screen):
    """What the guest uploads into textures that are shown (TRANSFER_TO_HOST_3D) is seen, to the last pixel."""
    g = screen.guest
    g.draw()
    for width, height in ((800, 600), (1280, 800)):
        g.do(f"texture 0 {width}x{height}")
        screen.expect(frame(width, height, 1))
        g.do("frame 0 77")
        screen.expect(frame(width, height, 77))
    g.end_drawing()


def test_desktop(lab):
    """uploaded textures; glmark2's scenes and scores; Weston with a terminal and a client; scenes that glmark2 finds right"""
    lab.start_broker(configure("desktop", memory="512M", virgl="yes"))
    desktop = Cube(lab, "desktop")
    upload(desktop.screen)
    glmark2(lab, desktop)
    weston(lab, desktop)
    validate(lab, desktop)
    check_errors(desktop.screen)


if __name__ == "__main__":
    runner.main([sys.modules[__name__]])
