#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""devbroker-gpu by hand: the options of a vhost-user backend, what it says to wrong ones, its socket, its three processes."""
import glob
import json
import os
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
GET_FEATURES = struct.pack("<III", 1, 1, 0)


def run(*options, **more):
    return subprocess.run([PROGRAM, *options], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10, **more)


def serves(vmm):
    """Whether the other end answers GET_FEATURES with the protocol features' bit and VERSION_1."""
    vmm.settimeout(10)
    vmm.sendall(GET_FEATURES)
    request, flags, size, features = struct.unpack("<IIIQ", vmm.recv(20, socket.MSG_WAITALL))
    return (request, flags, size) == (1, 5, 8) and features & 1 << 30 and features & 1 << 32


def children(pid):
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_for(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


class Options(unittest.TestCase):
    def test_wrong_usage(self):
        for options in ([], ["--fd=x"], ["--fd=-1"], ["--fd=3", "--socket-path=/tmp/x"], ["--bogus"], ["more"],
                        ["--fd=3", "--max-memory=1M"], ["--fd=3", "--dmabuf"],
                        ["--fd=3", "--sandbox=reduced"], ["--front", "--control-fd=3"], ["--renderer"],
                        ["--renderer", "--link-fd=3", "--allowance-fd=4", "--grant-fd=5"], ["--renderer", "--link-fd=3", "--want-fd=4"]):
            with self.subTest(options):
                out = run(*options)
                self.assertEqual(out.returncode, 2, out)
                self.assertEqual(out.stdout, "")
                self.assertNotEqual(out.stderr, "")

    def test_no_socket(self):
        r, w = os.pipe()
        seq = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for fd in (77, r, seq[0].fileno(), 0):
            with self.subTest(fd):
                out = run(f"--fd={fd}", pass_fds=[f for f in (r, w, seq[0].fileno())])
                self.assertEqual(out.returncode, 1, out)
                self.assertIn("no stream socket", out.stderr)
        for end in (*seq, os.fdopen(r), os.fdopen(w)):
            end.close()

    def test_no_allowance(self):
        """A renderer with a page that is none says so and ends."""
        link = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        page = os.memfd_create("page", os.MFD_ALLOW_SEALING)
        for size in (0, 4096, 1 << 20):
            with self.subTest(size):
                os.ftruncate(page, size)
                fds = (link[1].fileno(), page, *os.pipe())
                out = run("--renderer", "--sandbox=off", f"--link-fd={fds[0]}", f"--allowance-fd={page}", f"--grant-fd={fds[2]}",
                          f"--want-fd={fds[3]}", pass_fds=fds)
                self.assertEqual(out.returncode, 3, out)
                self.assertIn("can't use the page of its allowance", out.stderr)
                os.close(fds[2])
                os.close(fds[3])
        for end in (*link, os.fdopen(page)):
            end.close()

    def test_capabilities(self):
        out = run("--print-capabilities")
        nodes = ["render-node"] if glob.glob("/dev/dri/renderD*") else []
        self.assertEqual((out.returncode, json.loads(out.stdout)), (0, {"type": "gpu", "features": [*nodes, "virgl"]}))
        self.assertIn("--socket-path", run("--help").stdout)


class Serving(unittest.TestCase):
    def setUp(self):
        self.dir = Path(tempfile.mkdtemp())
        self.path = self.dir / "gpu.sock"
        self.addCleanup(shutil.rmtree, self.dir)
        self.program = None

    def tearDown(self):
        if self.program:
            self.program.kill()
            self.program.wait()

    def start(self, *options, **more):
        self.program = subprocess.Popen([PROGRAM, *options], stderr=subprocess.DEVNULL, **more)

    def connect(self):
        self.start(f"--socket-path={self.path}")
        vmm = socket.socket(socket.AF_UNIX)
        self.addCleanup(vmm.close)

        def there():
            try:
                vmm.connect(str(self.path))
            except OSError:
                return False
            return True
        end = time.monotonic() + 10
        while not there():
            self.assertLess(time.monotonic(), end)
            time.sleep(0.01)
        return vmm

    def test_fd(self):
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.start(f"--fd={theirs.fileno()}", pass_fds=[theirs.fileno()])
        theirs.close()
        self.assertTrue(serves(ours))
        ours.close()
        self.assertEqual(self.program.wait(10), 0)

    def test_socket(self):
        vmm = self.connect()
        self.assertTrue(serves(vmm))
        self.assertFalse(self.path.exists())
        vmm.close()
        self.assertEqual(self.program.wait(10), 0)

    def test_what_is_there_already(self):
        self.path.write_text("a file")
        out = run(f"--socket-path={self.path}")
        self.assertEqual(out.returncode, 1)
        self.assertEqual(self.path.read_text(), "a file")
        self.path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(self.path))
            other.listen()
            out = run(f"--socket-path={self.path}")
            self.assertEqual(out.returncode, 1)
            self.assertTrue(self.path.is_socket())
        # Its program has gone, the socket is still there.
        vmm = self.connect()
        self.assertTrue(serves(vmm))

    def test_bad_vmm(self):
        vmm = self.connect()
        vmm.sendall(struct.pack("<III", 99, 1, 0))
        self.assertEqual(self.program.wait(10), 3)

    def test_all_end(self):
        for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
            with self.subTest(sig):
                vmm = self.connect()
                self.assertTrue(serves(vmm))
                self.assertTrue(wait_for(lambda: len(children(self.program.pid)) == 2))
                parts = children(self.program.pid)
                self.program.send_signal(sig)
                self.assertEqual(self.program.wait(10), 0 if sig != signal.SIGKILL else -sig)
                self.assertTrue(wait_for(lambda: not any(Path(f"/proc/{p}").exists() for p in parts)))
                self.assertEqual(vmm.recv(1), b"")

    def test_another_renderer(self):
        vmm = self.connect()
        self.assertTrue(serves(vmm))
        self.assertTrue(wait_for(lambda: len(children(self.program.pid)) == 2))
        front, renderer = children(self.program.pid)
        if b"--renderer" in Path(f"/proc/{front}/cmdline").read_bytes():
            front, renderer = renderer, front
        os.kill(renderer, signal.SIGKILL)
        self.assertTrue(wait_for(lambda: renderer not in children(self.program.pid) and
                                 len(children(self.program.pid)) == 2, 1))
        self.assertTrue(serves(vmm))
        # Without its front there is nothing to serve.
        os.kill(front, signal.SIGKILL)
        self.assertEqual(self.program.wait(10), 128 + signal.SIGKILL)


if __name__ == "__main__":
    unittest.main()
