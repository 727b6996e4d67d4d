#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""devbroker-gpu --vtest in front of the real renderer: versions, garbage, floods, clients that die or never read."""
import array
import contextlib
import grp
import mmap
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

PROGRAM = os.environ["DEVBROKER_GPU"]
OPTIONS = os.environ.get("VTEST_OPTIONS", "").split()
SLOW = 4 if os.environ.get("GPU_CASE_SANITIZED") else 1
RGBA, TEXTURE_2D, RENDER_TARGET = 67, 2, 2


def words(*w):
    return struct.pack(f"<{len(w)}I", *w)


class Client:
    """A client of vtest that knows its requests, as Mesa's does."""

    def __init__(self, path, version=2, name=b"test"):
        self.s = socket.socket(socket.AF_UNIX)
        self.s.settimeout(20 * SLOW)
        self.s.connect(str(path))
        if version is not None:
            self.hello(name)
            self.version = self.agree(version)

    def hello(self, name):
        self.send(words(len(name) + 1, 8), name + b"\0", words(0, 10, 2, 7, 0, 0))
        if self.words(5) != (0, 10, 1, 7, 0):
            raise AssertionError("no answer to a ping")

    def agree(self, version):
        self.send(words(1, 11, version))
        length, number, agreed = self.words(3)
        if (length, number) != (1, 11):
            raise AssertionError("no answer to a version")
        return agreed

    def send(self, *data):
        self.s.sendall(b"".join(data))

    def read(self, n):
        out = b""
        while len(out) < n:
            got = self.s.recv(n - len(out))
            if not got:
                raise EOFError
            out += got
        return out

    def words(self, n):
        return struct.unpack(f"<{n}I", self.read(4 * n))

    def caps(self):
        """Both, as (version, bytes)."""
        self.send(words(0, 9, 0, 1))
        out = []
        for _ in range(2):
            length, number = self.words(2)
            out.append((number, self.read(length - 1)))
        return out

    def create(self, number, width, height, shared=None, target=TEXTURE_2D, form=RGBA, bind=RENDER_TARGET):
        """The fd of shared memory of so many bytes, or None."""
        r = (number, target, form, bind, width, height, 1, 1, 0, 0)
        if shared is None:
            self.send(words(10, 2, *r))
            return None
        self.send(words(11, 12, *r, shared))
        if not shared:
            return None
        data, ancillary, _, _ = self.s.recvmsg(1, socket.CMSG_SPACE(4))
        if data != b"\0" or not ancillary:
            raise EOFError
        fds = array.array("i")
        fds.frombytes(ancillary[0][2][:4])
        return fds[0]

    def clear(self, number, colour):
        """Clears resource number: a surface of it, a framebuffer of that, and the clearing (virgl's protocol)."""
        stream = [1 | 8 << 8 | 5 << 16, 100, number, RGBA, 0, 0,
                  5 | 3 << 16, 1, 0, 100,
                  7 | 8 << 16, 4, *struct.unpack("<4I", struct.pack("<4f", *colour)), 0, 0, 0,
                  3 | 8 << 8 | 1 << 16, 100]
        self.send(words(len(stream), 6, *stream))

    def wait(self, wait=1):
        self.send(words(2, 7, 1, wait))
        length, number, busy = self.words(3)
        if (length, number) != (1, 7):
            raise AssertionError("no answer to BUSY_WAIT")
        return busy

    def get(self, number, width, height):
        self.send(words(11, 4, number, 0, 0, 0, 0, 0, 0, width, height, 1, width * height * 4))
        return self.read(width * height * 4)

    def ended(self):
        """Whether it was dropped, and nothing else was said."""
        try:
            return self.s.recv(1) == b""
        except ConnectionResetError:
            return True

    def close(self):
        self.s.close()


def children(pid):
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def cpu_ticks(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


class Vtest(unittest.TestCase):
    def setUp(self):
        self.dir = Path(tempfile.mkdtemp(prefix="db-vtest-"))
        self.addCleanup(shutil.rmtree, self.dir)
        self.path = self.dir / "vtest.sock"
        self.log = self.dir / "log"
        self.program = None

    def tearDown(self):
        if self.program:
            self.program.send_signal(signal.SIGTERM)
            self.assertEqual(self.program.wait(20), 0)
            text = self.text()
            for bad in ("Sanitizer", "runtime error", "Assertion", "ended by signal"):
                self.assertNotIn(bad, text)
            self.assertFalse(self.path.exists())

    def text(self):
        return self.log.read_text(errors="replace")

    def start(self, *options):
        with open(self.log, "wb") as log:
            self.program = subprocess.Popen([PROGRAM, f"--vtest={self.path}", "--vm=lab", *OPTIONS, *options],
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.until(self.path.is_socket)

    def until(self, condition, seconds=20):
        end = time.monotonic() + seconds * SLOW
        while not condition():
            self.assertLess(time.monotonic(), end, self.text()[-3000:])
            time.sleep(0.02)

    def client(self, *args, **kw):
        c = Client(self.path, *args, **kw)
        self.addCleanup(c.close)
        return c

    def alone(self):
        """No renderer is left, and the acceptor has the fds that it had."""
        self.until(lambda: not children(self.program.pid))

    def fds(self):
        return len(os.listdir(f"/proc/{self.program.pid}/fd"))

    def draws(self, c):
        """Whether a client gets what it drew, in its version."""
        shared = c.create(1, 16, 16, 1024 if c.version == 2 else None)
        c.clear(1, (1, 0, 0, 1))
        if c.version == 0:
            self.assertEqual(c.wait(), 0)
            return c.get(1, 16, 16) == b"\xff\0\0\xff" * 256
        c.send(words(10, 13, 1, 0, 0, 0, 0, 16, 16, 1, 1024, 0))
        self.assertEqual(c.wait(), 0)
        with mmap.mmap(shared, 1024) as m:
            os.close(shared)
            return m[:] == b"\xff\0\0\xff" * 256


class Serving(Vtest):
    def test_versions(self):
        self.start()
        fds = self.fds()
        for asked, agreed in ((0, 0), (1, 0), (2, 2), (3, 2), (0xffffffff, 2)):
            with self.subTest(asked):
                c = self.client(asked)
                self.assertEqual(c.version, agreed)
                (two, caps2), (one, caps) = c.caps()
                self.assertEqual((two, one, len(caps)), (2, 1, 308))
                self.assertGreaterEqual(len(caps2), 308)
                self.assertTrue(self.draws(c))
                c.close()
        self.alone()
        self.assertEqual(self.fds(), fds)

    def test_shared_memory_can_not_be_cut_off(self):
        self.start()
        c = self.client()
        fd = c.create(1, 64, 64, 64 * 64 * 4)
        with self.assertRaises(PermissionError):
            os.ftruncate(fd, 0)
        os.close(fd)
        self.assertEqual(c.wait(), 0)

    def test_two_at_once(self):
        self.start()
        a, b = self.client(), self.client(0)
        self.assertTrue(self.draws(a))
        self.assertTrue(self.draws(b))
        renderers = children(self.program.pid)
        self.assertEqual(len(renderers), 2)
        # One that is killed is nobody else's loss.
        os.kill(renderers[0], signal.SIGSTOP)
        os.kill(renderers[0], signal.SIGKILL)
        self.until(lambda: len(children(self.program.pid)) == 1)
        self.assertEqual([c.ended() for c in (a, b) if not self.lives(c)], [True])
        self.assertTrue(self.draws(self.client()))
        self.assertIn("ended by signal 9", self.text())
        self.log.write_text("")

    @staticmethod
    def lives(c):
        with contextlib.suppress(OSError, EOFError):
            return c.wait() == 0
        return False

    def test_a_client_that_waits_takes_no_time(self):
        self.start()
        c = self.client()
        self.assertTrue(self.draws(c))
        renderer = children(self.program.pid)[0]
        # The driver's own threads settle first.
        time.sleep(0.3)
        before = cpu_ticks(renderer), cpu_ticks(self.program.pid)
        time.sleep(1)
        after = cpu_ticks(renderer), cpu_ticks(self.program.pid)
        self.assertLessEqual(after[0] - before[0], 2)
        self.assertEqual(after[1] - before[1], 0)


class Evil(Vtest):
    def refused(self, why, *data, version=2, seconds=20, **kw):
        """A client that sends this is dropped, and the log says why."""
        with self.subTest(why):
            c = self.client(version, **kw)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                c.send(*data)
            self.assertTrue(c.ended())
            c.close()
            self.until(lambda: why in self.text(), seconds)

    def test_what_can_not_be(self):
        self.start("--max-memory=64M")
        fds = self.fds()
        image = words(10, 2, 1, TEXTURE_2D, RGBA, RENDER_TARGET, 16, 16, 1, 1, 0, 0)
        self.refused("request 15 of length 1", words(1, 15, 1))
        self.refused("SUBMIT of 268435452 bytes", words(0x3ffffff, 6))
        self.refused("request 6 of length 4294967295", words(0xffffffff, 6))
        self.refused("over its budget: resource 1 of 8192x8192", words(10, 2, 1, TEXTURE_2D, RGBA, 2, 8192, 8192, 1, 1, 0, 0))
        self.refused("over its budget: resource 2", words(11, 12, 2, TEXTURE_2D, RGBA, 2, 16, 16, 1, 1, 0, 0, 1 << 30))
        self.refused("4294967295x4294967295", words(10, 2, 1, TEXTURE_2D, RGBA, 2, *[0xffffffff] * 4, 0, 0))
        self.refused("there is one of this id", image, image)
        self.refused("is not in resource 1", image, words(11, 4, 1, 0, 0, 0, 1, 0, 0, 16, 1, 1, 64))
        self.refused("no resource 7", words(11, 4, 7, 0, 0, 0, 0, 0, 0, 16, 1, 1, 64))
        self.refused("before CREATE_RENDERER", words(0, 1), version=None)
        self.refused("request 1162368079", b"ONENOTHER" * 100, version=None)
        self.alone()
        self.assertEqual(self.fds(), fds)
        self.assertTrue(self.draws(self.client()))

    def test_garbage(self):
        """Random bytes, and good requests with random words; all of them end, and the next one is served."""
        self.start()
        numbers = random.Random(5)
        for i in range(12):
            c = self.client()
            with contextlib.suppress(OSError):
                for _ in range(50):
                    head = words(numbers.choice((0, 1, 2, 10, 11)), numbers.randrange(16))
                    c.send(head, numbers.randbytes(numbers.randrange(64)))
                c.s.shutdown(socket.SHUT_WR)
                c.s.settimeout(20 * SLOW)
                while c.s.recv(65536):
                    pass
            c.close()
        self.alone()
        self.assertTrue(self.draws(self.client()))

    def test_never_reads(self):
        """One that asks and never reads stops itself; its renderer keeps little, and takes no time."""
        self.start()
        c = self.client()
        renderer = children(self.program.pid)[0]
        c.s.settimeout(1)
        flood = words(0, 9) * 4096
        with self.assertRaises(TimeoutError):
            for _ in range(1000):
                c.send(flood)
        before = cpu_ticks(renderer)
        time.sleep(0.5)
        self.assertLessEqual(cpu_ticks(renderer) - before, 2)
        self.assertTrue(self.draws(self.client()))
        c.close()
        self.until(lambda: renderer not in children(self.program.pid))

    def test_too_many(self):
        self.start("--max-clients=2")
        fds = self.fds()
        clients = [self.client() for _ in range(2)]
        for _ in range(30):
            c = Client(self.path, None)
            self.assertTrue(c.ended())
            c.close()
        self.assertIn("refused a vtest client", self.text())
        self.assertIn("clients 2/2", self.text())
        # It is said, but not thirty times.
        self.assertLess(self.text().count("refused"), 8)
        for c in clients:
            c.close()
        self.alone()
        self.assertEqual(self.fds(), fds)
        self.assertTrue(self.draws(self.client()))

    def test_come_and_gone(self):
        """Connections that end at once, in the middle of a message, or while they wait, leave nothing."""
        self.start()
        fds = self.fds()
        for data in (b"", words(5), words(5, 8) + b"te", words(5, 8) + b"test\0" + words(1000, 6, 1, 2)):
            c = Client(self.path, None)
            c.send(data)
            c.close()
            self.alone()
        c = self.client()
        c.create(1, 16, 16)
        for _ in range(100):
            c.clear(1, (0, 1, 0, 1))
        c.send(words(2, 7, 1, 1))
        c.close()
        self.alone()
        self.assertEqual(self.fds(), fds)


class Socket(Vtest):
    def test_access(self):
        self.start()
        self.assertEqual(self.path.stat().st_mode & 0o7777, 0o600)

    @unittest.skipIf(os.getuid(), "only root can give a socket to any group")
    def test_group(self):
        group = grp.getgrnam("video")
        self.start("--socket-group=video")
        self.assertEqual((self.path.stat().st_mode & 0o7777, self.path.stat().st_gid), (0o660, group.gr_gid))

    def wrong(self, *options):
        return subprocess.run([PROGRAM, f"--vtest={self.path}", *OPTIONS, *options], stdin=subprocess.DEVNULL, timeout=20,
                              capture_output=True, text=True, check=False)

    def test_what_is_there_already(self):
        self.path.write_text("a file")
        out = self.wrong()
        self.assertEqual(out.returncode, 1)
        self.assertIn("can't listen", out.stderr)
        self.assertEqual(self.path.read_text(), "a file")
        self.path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(self.path))
            other.listen()
            self.assertEqual(self.wrong().returncode, 1)
            self.assertTrue(self.path.is_socket())
        # Its program has gone, the socket is still there.
        self.start()
        self.until(lambda: "serves vtest" in self.text())
        self.client()

    def test_options(self):
        for options, status in ((["--max-clients=0"], 2), (["--max-clients=257"], 2), (["--socket-path=/x"], 2),
                                (["--socket-group=nobody-has-this"], 1), (["--render-node=/nonexistent"], 1)):
            with self.subTest(options):
                out = self.wrong(*options)
                self.assertEqual(out.returncode, status, out)
                self.assertFalse(self.path.exists())


if __name__ == "__main__":
    unittest.main()
