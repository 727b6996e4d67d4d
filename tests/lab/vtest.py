# SPDX-License-Identifier: MIT
"""devbroker-gpu --vtest of a build folder, or another server of vtest, and programs of Mesa that draw through it."""
import os
import signal
import struct
import subprocess
import tempfile
import time
from pathlib import Path

from guest import LabError, die_with_parent

FRAMEBUFFER = "Xvfb_screen0"


class VtestServer:
    """argv's last place is taken by the socket, behind "--socket-path=" or "--vtest=" in it."""

    def __init__(self, argv, socket, log):
        self.socket, self.log = Path(socket), Path(log)
        with open(self.log, "wb") as out:
            self.process = subprocess.Popen([*argv[:-1], argv[-1] + str(self.socket)], stdin=subprocess.DEVNULL, stdout=out,
                                            stderr=out, preexec_fn=die_with_parent)
        deadline = time.monotonic() + 20
        while not self.socket.is_socket():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise LabError(f"{argv[0]} doesn't serve: {self.text()[-2000:]}")
            time.sleep(0.02)

    @classmethod
    def ours(cls, build, folder, *options, name="vtest.sock"):
        return cls([str(Path(build) / "gpu/devbroker-gpu"), *options, "--vtest="], Path(folder) / name,
                   Path(folder) / "vtest.log")

    @classmethod
    def upstream(cls, folder, **environment):
        os.environ.update(environment)
        return cls(["virgl_test_server", "--use-egl-surfaceless", "--socket-path="], Path(folder) / "upstream.sock",
                   Path(folder) / "upstream.log")

    def text(self):
        return self.log.read_text(errors="replace")

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


def mesa(build, socket=None, still=False):
    """The environment of a program that draws through socket, or with llvmpipe itself."""
    env = {"LIBGL_ALWAYS_SOFTWARE": "1", "MESA_SHADER_CACHE_DISABLE": "true", "LD_PRELOAD": "",
           "GALLIUM_DRIVER": "virpipe" if socket else "llvmpipe"}
    if socket:
        env["VTEST_SOCKET_NAME"] = str(socket)
    if still:
        env["STILL_CLOCK"] = "1"
    if socket or still:
        env["LD_PRELOAD"] = str(Path(build) / "tests/gpu/libmesa-preload.so")
    return env


class Screen:
    """An X server without a screen."""

    def __init__(self, width=320, height=240):
        self.folder = tempfile.TemporaryDirectory(prefix="db-x-")
        read, write = os.pipe()
        self.process = subprocess.Popen(["Xvfb", "-displayfd", str(write), "-screen", "0", f"{width}x{height}x24", "-fbdir",
                                         self.folder.name, "-nolisten", "tcp"], pass_fds=[write], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=die_with_parent)
        os.close(write)
        with os.fdopen(read) as f:
            self.display = f":{f.readline().strip()}"

    def pixels(self):
        """What it shows: X, Y, and four bytes a pixel, as in the file that xwd writes (XWDFile.h)."""
        data = (Path(self.folder.name) / FRAMEBUFFER).read_bytes()
        header = struct.unpack(">25I", data[:100])
        start, size = header[0] + header[19] * 12, header[12] * header[5]
        return data[start:start + size]

    def picture_of(self, argv, env, seconds=20):
        """What a program shows whose frames are all the same, once it does. It is ended then."""
        program = subprocess.Popen(argv, env={**os.environ, **env, "DISPLAY": self.display}, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=die_with_parent)
        try:
            deadline, before, same = time.monotonic() + seconds, b"", 0
            while same < 3:
                if program.poll() is not None or time.monotonic() > deadline:
                    raise LabError(f"{argv} shows nothing; status {program.poll()}")
                time.sleep(0.15)
                now = self.pixels()
                same = same + 1 if now == before and self.colours(now) > 16 else 0
                before = now
            return before
        finally:
            program.kill()
            program.wait()
            # Until its window has gone.
            deadline = time.monotonic() + 5
            while self.colours(self.pixels()) > 16 and time.monotonic() < deadline:
                time.sleep(0.05)

    @staticmethod
    def colours(pixels):
        return len({pixels[i:i + 4] for i in range(0, len(pixels), 4)})

    def stop(self):
        self.process.terminate()
        self.process.wait(10)
        self.folder.cleanup()


def difference(a, b, tolerance):
    """The largest difference of a value, and the share of values that differ by more than tolerance."""
    if len(a) != len(b):
        raise LabError(f"{len(a)} bytes against {len(b)}")
    far = [abs(x - y) for x, y in zip(a, b) if x != y]
    return max(far, default=0), sum(d > tolerance for d in far) / len(a)
