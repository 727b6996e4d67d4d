#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Clients of devbroker-gpu --vtest --vm NAME are charged to that VM, for as long as they are there."""
import contextlib
import os
import signal
import socket
import struct
import subprocess
import time
import unittest
from pathlib import Path

from broker_case import BrokerCase, wait_until
import leftovers

PROGRAM = Path(os.environ["DEVBROKER_BUILD"]) / "gpu/devbroker-gpu"
HELLO = struct.pack("<II", 5, 8) + b"test\0" + struct.pack("<II", 0, 10)


class VtestCase(BrokerCase):
    files = {"vms.d/lab.conf": "[vm]\nqmp=/nonexistent/lab.qmp\n[gpu]\nmemory=64M\n",
             "vms.d/bare.conf": "[vm]\nqmp=/nonexistent/bare.qmp\n"}

    def setUp(self):
        super().setUp()
        self.start()
        self.vtest = None
        self.addCleanup(self.stop_vtest)

    def stop_vtest(self):
        if self.vtest:
            self.vtest.terminate()
            self.vtest.wait(20)

    def argv(self, vm):
        self.path = self.broker.work / "vtest.sock"
        return [PROGRAM, f"--vtest={self.path}", f"--vm={vm}", f"--bus={self.broker.run_dir / 'bus'}", "--max-memory=32M"]

    def serve(self, vm="lab"):
        self.log = self.broker.work / "vtest.log"
        with open(self.log, "wb") as log:
            self.vtest = subprocess.Popen(self.argv(vm), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(self.path.is_socket, 10)

    def client(self):
        """Whether it is served, and the connection."""
        s = socket.socket(socket.AF_UNIX)
        self.addCleanup(s.close)
        s.settimeout(60)
        s.connect(str(self.path))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            s.sendall(HELLO)
            return s.recv(8) == struct.pack("<II", 0, 10), s
        return False, s

    def used(self):
        return self.broker.vm("lab")["quota"]["gpu-memory"]["used"] >> 20

    def text(self):
        return self.log.read_text(errors="replace")

    def test_as_long_as_they_are_there(self):
        self.serve()
        self.assertEqual(self.used(), 0)
        clients = [self.client() for _ in range(2)]
        self.assertEqual([ok for ok, _ in clients], [True, True])
        self.assertEqual(self.used(), 64)
        ok, _ = self.client()
        self.assertFalse(ok)
        self.assertIn("quota gpu-memory is used up", self.text())
        # However one ends.
        clients[0][1].close()
        wait_until(lambda: self.used() == 32, 10)
        self.assertTrue(self.client()[0])
        children = Path(f"/proc/{self.vtest.pid}/task/{self.vtest.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)
        wait_until(lambda: self.used() == 32, 10)
        self.vtest.kill()
        self.vtest.wait()
        wait_until(lambda: self.used() == 0, 10)

    def test_no_vm_to_charge(self):
        for vm in ("nobody", "bare"):
            out = subprocess.run(self.argv(vm), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False)
            self.assertEqual(out.returncode, 1, out)
            self.assertIn("can't be charged", out.stderr)
            self.assertFalse(self.path.exists())

    def test_another_broker(self):
        """Clients outlive the broker, and the next one charges them."""
        self.serve()
        ok, s = self.client()
        self.assertTrue(ok)
        self.broker.kill()
        time.sleep(0.3)
        s.sendall(struct.pack("<II", 0, 10))
        self.assertEqual(len(s.recv(8)), 8)
        self.assertFalse(self.client()[0], "nobody can be charged now")
        self.broker.start()
        wait_until(lambda: self.used() == 32, 10)
        s.sendall(struct.pack("<II", 0, 10))
        self.assertEqual(len(s.recv(8)), 8)
        s.close()
        wait_until(lambda: self.used() == 0, 10)


if __name__ == "__main__":
    leftovers.main()
