# SPDX-License-Identifier: MIT
"""Guests whose display is a virtio-gpu over vhost-user, what they draw, and what is seen of it.

They boot each time: QEMU makes no snapshot of a vhost-user-gpu. QEMU 7.2 refuses one without KVM, so it is loaded with
qemu-no-kvm.c where there is none. Inside, kmsdraw draws pictures that frame() computes again.
"""
import base64
import os
import subprocess
import time
import zlib
from pathlib import Path

from guest import Guest, LabError

CURSOR_SIDE = 64
PIECE = 24576


class GpuGuest(Guest):
    MACHINE = "q35,memory-backend=mem"
    CMDLINE = "vt.global_cursor_default=0"
    OUTPUTS = 2

    def __init__(self, images, work, name="guest", *, socket, build, device="vhost-user-gpu-pci", memory="256",
                 **kw):
        super().__init__(images, work, name, **kw)
        self.build = Path(build)
        self.MEMORY = memory
        if self.accel != "kvm":
            self.env = {**os.environ, "LD_AUDIT": str(self.build / "tests/lab/qemu-no-kvm.so")}
        self.extra += ["-object", f"memory-backend-memfd,id=mem,size={self.MEMORY}M,share=on", "-vga", "none",
                       "-chardev", f"socket,id=gpu,path={socket}",
                       "-device", f"{device},id=video,chardev=gpu,max_outputs={self.OUTPUTS}",
                       "-vnc", f"unix:{self.work}/vnc"]

    def start(self):
        self.boot()
        return self

    def restart(self, timeout=60):
        """The guest boots anew under the same QEMU; its memory is what it was."""
        size = self.serial.stat().st_size
        self.qmp.call("system_reset")
        self.log_at = size
        self._wait_ready(timeout)
        self.run("true", timeout=timeout)

    # What draws.

    def draw(self):
        """Starts kmsdraw; do() tells it what to draw."""
        self.run("mkfifo /tmp/ask /tmp/answer; kmsdraw </tmp/ask >/tmp/answer 2>/tmp/draw.err &")
        self.run("exec 3>/tmp/ask 4</tmp/answer")
        return self.do("info")

    def do(self, line, timeout=30):
        answer = self.run(f"echo '{line}' >&3; read -r answer <&4; echo \"$answer\"", timeout).split()
        if not answer or answer[0] != "ok":
            raise LabError(f"{self.name}: kmsdraw, {line}: {' '.join(answer)}; {self.run('cat /tmp/draw.err')}")
        return answer[1:]

    def end_drawing(self):
        """The console is back then."""
        self.run("exec 3>&- 4<&-; while pidof kmsdraw >/tmp/pids; do sleep 0.1; done")

    def number(self):
        return int(self.do("number")[0])

    def wait_frames(self, more, timeout=30):
        """Waits until that many more frames are shown."""
        deadline, first = time.monotonic() + timeout, self.number()
        while self.number() < first + more:
            if time.monotonic() > deadline:
                raise LabError(f"{self.name}: still frame {self.number()} after {timeout} s")

    # What is seen.

    def screendump(self, head=0):
        path = self.work / "screendump.ppm"
        self.qmp.call("screendump", filename=str(path), device="video", head=head)
        return Picture.read(path)

    def framebuffer(self):
        """The console's pixels in the guest's own memory."""
        width, height = map(int, self.run("cat /sys/class/graphics/fb0/virtual_size").split(","))
        return Picture.of_bgrx(width, height, self.fetch("/dev/fb0", width * height * 4))

    def fetch(self, path, size):
        """The first size bytes of one of the guest's files."""
        # In pieces: a virtio console drops what its reader doesn't take at once.
        length = int(self.run(f"head -c {size} {path} | gzip -1 >/tmp/fetch; wc -c </tmp/fetch"))
        text = "".join(self.run(f"dd if=/tmp/fetch bs={PIECE} skip={i} count=1 2>/dev/null | base64")
                       for i in range((length + PIECE - 1) // PIECE))
        return zlib.decompress(base64.b64decode(text), 31)


class Picture:
    """width by height pixels of red, green and blue."""

    def __init__(self, width, height, pixels):
        if len(pixels) != width * height * 3:
            raise LabError(f"{len(pixels)} bytes are no picture of {width}x{height}")
        self.width, self.height, self.pixels = width, height, pixels

    @classmethod
    def read(cls, path):
        return cls.of_ppm(Path(path).read_bytes())

    @classmethod
    def of_ppm(cls, data):
        kind, size, depth, pixels = data.split(b"\n", 3)
        if kind != b"P6" or depth != b"255":
            raise LabError(f"no picture: {data[:20]!r}")
        return cls(*map(int, size.split()), pixels)

    @classmethod
    def of_bgrx(cls, width, height, data):
        pixels = bytearray(width * height * 3)
        for i in range(3):
            pixels[i::3] = data[2 - i::4]
        return cls(width, height, bytes(pixels))

    @classmethod
    def of_png(cls, path, build):
        return cls.of_ppm(subprocess.run([str(Path(build) / "tests/lab/png-pixels"), str(path)], check=True,
                                         stdout=subprocess.PIPE).stdout)

    def cut(self, width, height):
        """Its upper left part."""
        rows = (self.pixels[y * self.width * 3:(y * self.width + width) * 3] for y in range(height))
        return Picture(width, height, b"".join(rows))

    def save(self, path):
        Path(path).write_bytes(b"P6\n%d %d\n255\n" % (self.width, self.height) + self.pixels)

    def difference(self, other):
        """None, or what is different, in words."""
        if (self.width, self.height) != (other.width, other.height):
            return f"{self.width}x{self.height} and {other.width}x{other.height}"
        if self.pixels == other.pixels:
            return None
        row = self.width * 3
        wrong = [y for y in range(self.height) if self.pixels[y * row:y * row + row] !=
                 other.pixels[y * row:y * row + row]]
        y = wrong[0]
        x = next(i for i in range(row) if self.pixels[y * row + i] != other.pixels[y * row + i]) // 3
        return f"{len(wrong)} of {self.height} rows are different, the first pixel is {x},{y}"

    def colours(self):
        return len({self.pixels[i:i + 3] for i in range(0, len(self.pixels), 3)})


def frame(width, height, number, output=0):
    """What kmsdraw shows as that frame."""
    row = bytearray(width * 3)
    row[0::3] = bytes((x + 3 * number) & 255 for x in range(width))
    row[2::3] = bytes((x // 64 * 64 + 31 * number) & 255 for x in range(width))
    pixels = bytearray()
    for y in range(height):
        row[1::3] = bytes([(y + 7 * number + 85 * output) & 255]) * width
        pixels += row
    return Picture(width, height, bytes(pixels))


def cursor(number):
    """The pixels of kmsdraw's cursor: blue, green, red, alpha."""
    out = bytearray()
    for y in range(CURSOR_SIDE):
        for x in range(CURSOR_SIDE):
            out += bytes((y, x, number, 255)) if x + y < CURSOR_SIDE else bytes(4)
    return bytes(out)
