#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Debian guests under an unmodified QEMU, with our virtio-gpu: what they draw, what QEMU shows and what we say it shows."""
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lab"))
import runner
from gpu_guest import Picture, cursor, frame
from gpu_images import GpuImages
from guest import LabError, die_with_parent
from vnc import Vnc

CONSOLE_TEXT = "dmesg | head -25 >/dev/tty1; printf '\\033[7mThe end.\\033[m' >/dev/tty1"
# So many in ten seconds, and no other is started (base/restarts.h).
KILL_SECONDS = 0.6
KILLS = 20


def configure(*names, memory="128M", virgl="no", **more):
    """more: of [gpu], with _ for -."""
    gpu = "".join(f"{key.replace('_', '-')}={value}\n" for key, value in {"memory": memory, "virgl": virgl, **more}.items())
    return {f"vms.d/{n}.conf": f"[vm]\nqmp=/nonexistent/{n}.qmp\n[gpu]\n{gpu}" for n in names}


class Screen:
    """What one VM shows, by QEMU's word and by ours."""

    def __init__(self, lab, name, **kw):
        self.lab, self.name = lab, name
        self.guest = lab.gpu_guest(name, lab.broker.run_dir / "vm" / name / "gpu.sock", **kw)

    def screenshot(self, scanout=0):
        path = self.guest.work / "screenshot.png"
        self.lab.broker.cli("gpu", "screenshot", self.name, "--output", path, "--scanout", scanout)
        return Picture.of_png(path, runner.build_dir())

    def expect(self, picture, scanout=0, timeout=15):
        """Waits until QEMU and we show exactly that."""
        deadline = time.monotonic() + timeout
        while True:
            qemu, ours = (p.difference(picture) for p in (self.guest.screendump(scanout), self.screenshot(scanout)))
            if not qemu and not ours:
                return
            if time.monotonic() > deadline:
                picture.save(self.guest.work / "wanted.ppm")
                raise LabError(f"{self.name}: scanout {scanout}: screendump: {qemu or 'right'}; "
                               f"screenshot: {ours or 'right'}")
            time.sleep(0.1)

    def freeze(self, program):
        """What QEMU and we show of what a guest's program draws, while that is held. (A VM that is stopped closes its
        display, and QEMU may not have read all of it.)"""
        self.guest.run(f"kill -STOP $(pidof {program})")
        deadline = time.monotonic() + 15
        while True:
            p = self.guest.screendump()
            difference = p.difference(self.screenshot())
            if not difference:
                break
            if time.monotonic() > deadline:
                raise LabError(f"{self.name}: screendump and screenshot: {difference}")
            time.sleep(0.1)
        self.guest.run(f"kill -CONT $(pidof {program})")
        return p

    def expect_console(self, width, height, scanout=0):
        """The console is as large as the larger screen, and the other one shows its upper left part."""
        p = self.guest.framebuffer().cut(width, height)
        self.expect(p, scanout)
        text = p.pixels.count(b"\xaa\xaa\xaa")
        if text < 2000:
            raise LabError(f"{self.name}: a console with {text} pixels of text")


def is_ours(pid):
    """Whether this test started it, however indirectly: another run may have a VM of the same name."""
    while pid not in (0, 1, os.getpid()):
        stat = Path(f"/proc/{pid}/stat").read_text()
        pid = int(stat[stat.rindex(")") + 2:].split()[1])
    return pid == os.getpid()


def processes(role, name):
    """pids of what serves the VM of that name: role is front or renderer."""
    names = {f"--name={name}".encode(), f"--name=vm {name}: gpu".encode()}
    out = set()
    for p in Path("/proc").iterdir():
        try:
            words = (p / "cmdline").read_bytes().split(b"\0") if p.name.isdigit() else []
            if f"--{role}".encode() in words and names.intersection(words) and is_ours(int(p.name)):
                out.add(int(p.name))
        except OSError:
            continue
    return out


def kill_renderer(name):
    """Kills it and waits for the next one."""
    deadline, old = time.monotonic() + 15, None
    while True:
        now = processes("renderer", name)
        # While one is started there are two of that name: it goes into its sandbox as another process.
        if len(now) == 1 and not old:
            old = now
            os.kill(next(iter(old)), signal.SIGKILL)
        elif len(now) == 1 and not now & old:
            return
        if time.monotonic() > deadline:
            raise LabError(f"{name}: renderer {old} was killed; now there is {now}")
        time.sleep(0.02)


def kill_and_look(screen, kills):
    """Kills the renderer again and again while the guest draws, and compares the picture each time."""
    g = screen.guest
    for i in range(kills):
        start = time.monotonic()
        g.do("run")
        g.wait_frames(1)
        kill_renderer(screen.name)
        g.wait_frames(2)
        n = int(g.do("stop")[0])
        screen.expect(frame(640, 480, n, 1), 1)
        screen.expect(frame(800, 600, n))
        time.sleep(max(0, KILL_SECONDS - (time.monotonic() - start)))
    return n


def check_errors(screen):
    """None of the guest's commands was refused."""
    errors = screen.lab.broker.cli("gpu", "show", screen.name)["gpu"]["errors"]
    if errors:
        raise LabError(f"{screen.name}: {errors} of the guest's commands were answered with an error")
    if "virtio_gpu_dequeue_ctrl_func" in screen.guest.dmesg():
        raise LabError(f"{screen.name}: the guest's driver complains")


def test_console(lab):
    """a Debian guest's console: its memory, QEMU's screendump and our screenshot are one; modes, reboots, two scanouts"""
    b = lab.start_broker(configure("one"))
    screen = Screen(lab, "one")
    g = screen.guest
    g.run(CONSOLE_TEXT)
    screen.expect_console(1280, 800)
    b.cli("gpu", "set-display", "one", "800x600")
    b.cli("gpu", "set-display", "one", "1152x864", "--scanout", 1)
    # In the middle of drawing.
    g.draw()
    g.do("mode 0 1280x800")
    g.do("run")
    g.wait_frames(2)
    g.restart()
    g.run(CONSOLE_TEXT)
    screen.expect_console(800, 600)
    screen.expect_console(1152, 864, 1)
    b.cli("gpu", "set-display", "one", "default")
    b.cli("gpu", "set-display", "one", "default", "--scanout", 1)
    g.restart()
    g.run(CONSOLE_TEXT)
    screen.expect_console(1280, 800)
    check_errors(screen)


def test_drawing(lab):
    """mode changes by the guest and by QEMU's window, page flips, the cursor, two scanouts, the console back"""
    b = lab.start_broker(configure("one"))
    b.cli("gpu", "set-display", "one", "1024x768", "--scanout", 1)
    screen = Screen(lab, "one")
    g = screen.guest
    g.run(CONSOLE_TEXT)
    screen.expect_console(1280, 800)
    if g.draw() != ["0:1:1280x800", "1:1:1024x768"]:
        raise LabError(f"displays: {g.do('info')}")
    for width, height in ((800, 600), (1280, 800), (640, 480)):
        g.do(f"mode 0 {width}x{height}")
        screen.expect(frame(width, height, 1))
        g.do("frame 0 77")
        screen.expect(frame(width, height, 77))
    g.do("mode 1 1024x768")
    g.do("frame 1 5")
    screen.expect(frame(1024, 768, 5, 1), 1)
    screen.expect(frame(640, 480, 77))
    vnc = Vnc(g.work / "vnc")
    for number in (9, 10):
        g.do(f"cursor 0 100 50 {number}")
        vnc.wait_cursor((3, 5, cursor(number)))
        g.do("cursor 0 300 20")
        kill_renderer("one")
    g.do("hide 0")
    screen.expect(frame(640, 480, 77))
    vnc.resize(1024, 600)
    deadline = time.monotonic() + 20
    while g.do("info")[0] != "0:1:1024x600":
        if time.monotonic() > deadline:
            raise LabError(f"the guest did not notice its window's new size: {g.do('info')}")
        time.sleep(0.1)
    g.do("mode 0 1024x600")
    screen.expect(frame(1024, 600, 1))
    vnc.close()
    g.end_drawing()
    screen.expect_console(1024, 600)
    check_errors(screen)


def test_kills(lab):
    """its renderer killed 20 times while the guest draws on two screens: the right picture is back each time"""
    b = lab.start_broker(configure("one"))
    b.cli("gpu", "set-display", "one", "640x480", "--scanout", 1)
    screen = Screen(lab, "one")
    g = screen.guest
    g.run(CONSOLE_TEXT)
    g.draw()
    g.do("mode 0 800x600")
    g.do("mode 1 640x480")
    n = kill_and_look(screen, KILLS)
    lab.note(f"{n} frames")
    g.end_drawing()
    screen.expect_console(640, 480, 1)
    check_errors(screen)
    gpu = b.cli("gpu", "show", "one")["gpu"]
    if gpu["renderers"] != KILLS + 1:
        raise LabError(f"{gpu['renderers']} renderers after {KILLS} kills")


def test_two_guests(lab):
    """two guests at once, each with its own picture, also while one of them loses its renderer and its VMM"""
    b = lab.start_broker(configure("one", "two", memory="64M"))
    screens = [Screen(lab, "one"), Screen(lab, "two")]
    for s in screens:
        s.guest.draw()
        s.guest.do("mode 0 1024x768")
        s.guest.do("run")
    for s in screens:
        s.guest.wait_frames(3)
    kill_renderer("one")
    for s in screens:
        s.guest.wait_frames(3)
    numbers = [int(s.guest.do("stop")[0]) for s in screens]
    for s, n in zip(screens, numbers):
        s.expect(frame(1024, 768, n))
    screens[1].guest.do("run")
    screens[0].guest.kill()
    screens[1].guest.wait_frames(3)
    n = int(screens[1].guest.do("stop")[0])
    screens[1].expect(frame(1024, 768, n))
    check_errors(screens[1])


class Cube:
    """A guest that draws with Debian's Mesa; kmscube is its client."""

    def __init__(self, lab, name):
        disk = GpuImages(lab.images.cache, lab.images.source, lab.images.say).debian()
        self.screen = Screen(lab, name, memory="768",
                             extra=["-drive", f"file={disk},if=virtio,format=raw,readonly=on"])
        self.guest = self.screen.guest
        self.guest.run("mount -o ro /dev/vda /mnt && mount -t devtmpfs dev /mnt/dev && mount -t proc proc /mnt/proc && "
                       "mount -t sysfs sys /mnt/sys && mount -t tmpfs tmp /mnt/tmp")

    def begin(self):
        # It ends when there is something to read.
        self.guest.begin("sleep 1000 | chroot /mnt /usr/bin/kmscube")
        deadline = time.monotonic() + 60
        while "renderer:" not in self.said():
            if time.monotonic() > deadline:
                raise LabError(f"{self.guest.name}: kmscube does not begin: {self.said()}")
            time.sleep(0.2)

    def said(self):
        return self.guest.run("tail -c 6000 /tmp/background; true")

    def wait(self, before=None):
        """Its picture, as QEMU and we show it; another one than before."""
        deadline = time.monotonic() + 90
        while True:
            p = self.screen.freeze("kmscube")
            # A shaded cube has many colours; a console and an empty screen have few.
            if p.colours() > 200 and (not before or p.difference(before)):
                return p
            if time.monotonic() > deadline:
                p.save(self.guest.work / "cube.ppm")
                raise LabError(f"no (new) cube; {p.colours()} colours; "
                               f"{self.guest.run('tail -c 300 /tmp/background')}")

    def renderer(self):
        """GL_RENDERER in the guest."""
        return self.guest.run("grep renderer: /tmp/background").split('"')[1]

    def rate(self, seconds):
        """Frames that QEMU was sent, per second."""
        def frames():
            return self.screen.lab.broker.cli("gpu", "show", self.screen.name)["gpu"]["frames"], time.monotonic()

        first, start = frames()
        time.sleep(seconds)
        last, end = frames()
        return (last - first) / (end - start)

    def end(self):
        self.guest.run("kill $(pidof kmscube); while pidof kmscube >/tmp/pids; do sleep 0.1; done")


def test_kmscube(lab):
    """kmscube with Mesa's software GL: screendump and screenshot are one, its picture moves, also with another renderer"""
    lab.start_broker(configure("one"))
    cube = Cube(lab, "one")
    cube.begin()
    first = cube.wait()
    gl = cube.renderer()
    kill_renderer("one")
    second = cube.wait(first)
    lab.note(f"{gl}, {first.width}x{first.height}, {second.colours()} colours")
    if "pipe" not in gl:
        raise LabError(f"this is no software GL: {gl}")
    check_errors(cube.screen)


def test_hardware(lab):
    """a VM that demands hardware gets no GPU where there is none, and its state says why"""
    if list(Path("/dev/dri").glob("renderD*")):
        lab.note("there is a render node here: nothing to show")
        return
    b = lab.start_broker(configure("one", virgl="hardware"))
    if b.cli("gpu", "nodes")["nodes"]:
        raise LabError("a render node without /dev/dri")
    s = socket.socket(socket.AF_UNIX)
    s.connect(str(b.run_dir / "vm/one/gpu.sock"))
    s.settimeout(10)
    if s.recv(1):
        raise LabError("a GPU without hardware")
    deadline = time.monotonic() + 10
    while "no render node" not in b.cli("gpu", "show", "one")["gpu"]["detail"]:
        if time.monotonic() > deadline:
            raise LabError(f"its state: {b.cli('gpu', 'show', 'one')}")
        time.sleep(0.1)


def test_stand_alone(lab):
    """stand-alone in the place of QEMU's own backend: vhost-user-vga, a killed renderer, a clean end with its VMM"""
    path, log = lab.work / "gpu.sock", lab.work / "gpu.log"
    with open(log, "ab") as out:
        gpu = subprocess.Popen([str(runner.build_dir() / "gpu/devbroker-gpu"), "--socket-path", str(path), "--name",
                                "alone"], stdin=subprocess.DEVNULL, stdout=out, stderr=out, preexec_fn=die_with_parent)
    deadline = time.monotonic() + 20
    while not path.exists():
        if time.monotonic() > deadline or gpu.poll() is not None:
            raise LabError("devbroker-gpu does not listen: " + log.read_text())
        time.sleep(0.02)
    g = lab.gpu_guest("alone", path, device="vhost-user-vga")

    def expect(picture):
        deadline = time.monotonic() + 15
        while True:
            difference = g.screendump().difference(picture)
            if not difference:
                return
            if time.monotonic() > deadline:
                raise LabError(f"screendump: {difference}; {log.read_text()[-300:]}")
            time.sleep(0.1)

    g.run(CONSOLE_TEXT)
    expect(g.framebuffer())
    kill_renderer("alone")
    g.draw()
    g.do("mode 0 800x600")
    g.do("frame 0 3")
    expect(frame(800, 600, 3))
    g.qmp.call("quit")
    code = gpu.wait(20)
    text = log.read_text()
    if code != 0 or "Sanitizer" in text or "runtime error" in text:
        raise LabError(f"devbroker-gpu ended with {code}: {text[-600:]}")


if __name__ == "__main__":
    runner.main([sys.modules[__name__]])
