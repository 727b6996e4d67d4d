#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The broker's side of a VM's GPU: its socket, its two processes, what clients see and are refused; VMMs that are no VMMs."""
import json
import os
import signal
import socket
import stat
import struct
import time
import unittest
from pathlib import Path

from broker_case import BrokerCase, wait_until
import leftovers

GET_FEATURES = struct.pack("<III", 1, 1, 0)


class GpuCase(BrokerCase):
    files = {"vms.d/one.conf": "[vm]\nqmp=/nonexistent/one.qmp\n[gpu]\nmemory=64M\n",
             "vms.d/two.conf": "[vm]\nqmp=/nonexistent/two.qmp\n[gpu]\nmemory=32M\n",
             "vms.d/bare.conf": "[vm]\nqmp=/nonexistent/bare.qmp\n"}

    def setUp(self):
        super().setUp()
        self.start()

    def gpu(self, vm="one"):
        return self.broker.cli("gpu", "show", vm)["gpu"]

    def path(self, vm="one"):
        return self.broker.run_dir / "vm" / vm / "gpu.sock"

    def connect(self, vm="one"):
        """A VMM that has said its first word, and the answer to it."""
        s = socket.socket(socket.AF_UNIX)
        self.addCleanup(s.close)
        s.settimeout(10)
        s.connect(str(self.path(vm)))
        s.sendall(GET_FEATURES)
        answer = s.recv(20)
        self.assertEqual(len(answer), 20)
        return s, struct.unpack_from("<Q", answer, 12)[0]

    def wait_gpu(self, state, vm="one", timeout=10):
        wait_until(lambda: self.gpu(vm)["state"] == state, timeout)

    def processes(self, role):
        out = []
        for pid in self.broker.children():
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if role in words:
                out.append(pid)
        return out


class TwoGpus(GpuCase):
    def test_socket_is_the_vms_own(self):
        mode = os.stat(self.path()).st_mode
        self.assertTrue(stat.S_ISSOCK(mode))
        self.assertEqual(mode & 0o077, 0, oct(mode))
        self.assertEqual({g["vm"]: g["memory_max_bytes"] for g in self.broker.cli("gpu", "list")["gpus"]},
                         {"one": 64 << 20, "two": 32 << 20})
        self.assertEqual(self.processes(b"--front"), [], "nothing runs for a VM that isn't there")

    def test_comes_and_goes_with_its_vmm(self):
        vmm, features = self.connect()
        self.assertTrue(features >> 32 & 1, hex(features))
        self.wait_gpu("connected")
        self.assertEqual(len(self.processes(b"--front")), 1)
        self.assertEqual(len(self.processes(b"--renderer")), 1)
        self.assertEqual(self.gpu("two")["state"], "waiting")
        vmm.close()
        self.wait_gpu("waiting")
        wait_until(lambda: not self.processes(b"--front") and not self.processes(b"--renderer"), 10)
        self.connect()
        self.wait_gpu("connected")

    def test_gone_with_its_vmm_within_a_second(self):
        """Its processes and its charge, however a VMM ends."""
        best = 60
        for n in range(3):
            vmm, _ = self.connect()
            self.wait_gpu("connected")
            wait_until(lambda: self.processes(b"--renderer"), 10)
            self.assertEqual(self.broker.vm("one")["quota"]["gpu-memory"]["used"], 64 << 20)
            pids = self.processes(b"--front") + self.processes(b"--renderer")
            vmm.close()
            start = time.monotonic()
            wait_until(lambda: not any(os.path.exists(f"/proc/{p}") for p in pids), 20)
            best = min(best, time.monotonic() - start)
            self.wait_gpu("waiting")
            self.assertEqual(self.broker.vm("one")["quota"]["gpu-memory"]["used"], 0)
        self.assertLess(best, 1)

    def test_two_vms(self):
        a, _ = self.connect("one")
        self.connect("two")
        self.wait_gpu("connected", "one")
        self.wait_gpu("connected", "two")
        wait_until(lambda: len(self.processes(b"--renderer")) == 2, 10)
        a.close()
        self.wait_gpu("waiting", "one")
        self.assertEqual(self.gpu("two")["state"], "connected")

    def test_second_vmm_waits_for_its_turn(self):
        first, _ = self.connect()
        self.wait_gpu("connected")
        second = socket.socket(socket.AF_UNIX)
        self.addCleanup(second.close)
        second.settimeout(0.3)
        second.connect(str(self.path()))
        second.sendall(GET_FEATURES)
        with self.assertRaises(TimeoutError):
            second.recv(20)
        self.assertEqual(len(self.processes(b"--front")), 1)
        first.close()
        second.settimeout(10)
        self.assertEqual(len(second.recv(20)), 20)

    def test_renderer_killed(self):
        vmm, _ = self.connect()
        self.wait_gpu("connected")
        wait_until(lambda: len(self.processes(b"--renderer")) == 1, 10)
        for n in range(3):
            old = self.processes(b"--renderer")
            os.kill(old[0], signal.SIGKILL)
            wait_until(lambda: self.processes(b"--renderer") not in ([], old), 10)
        vmm.sendall(GET_FEATURES)
        self.assertEqual(len(vmm.recv(20)), 20, "the VMM notices nothing")
        wait_until(lambda: self.gpu()["renderers"] == 4, 10)

    def test_renderer_hangs(self):
        """One that says nothing is replaced although nobody has asked it for anything."""
        self.connect()
        self.wait_gpu("connected")
        wait_until(lambda: len(self.processes(b"--renderer")) == 1, 10)
        time.sleep(1)  # it is up, and the front has stopped looking after it
        best = 60
        for n in range(2):
            old = self.processes(b"--renderer")
            os.kill(old[0], signal.SIGSTOP)
            start = time.monotonic()
            wait_until(lambda: self.processes(b"--renderer") not in ([], old), 20)
            best = min(best, time.monotonic() - start)
        self.assertLess(best, 3, "2 s until it is noticed, 1 s as for any that ended")
        self.assertEqual(self.gpu()["state"], "connected")

    def test_front_killed(self):
        vmm, _ = self.connect()
        self.wait_gpu("connected")
        os.kill(self.processes(b"--front")[0], signal.SIGKILL)
        self.assertEqual(vmm.recv(1), b"")
        self.wait_gpu("waiting")
        wait_until(lambda: not self.processes(b"--renderer"), 10)
        self.connect()
        self.wait_gpu("connected")

    def test_front_stopped(self):
        """A front that says nothing is ended: nobody waits for it for ever."""
        best = 60
        for n in range(2):
            self.connect()
            self.wait_gpu("connected")
            front = self.processes(b"--front")[0]
            os.kill(front, signal.SIGSTOP)
            start = time.monotonic()
            wait_until(lambda: not os.path.exists(f"/proc/{front}"), 15)
            best = min(best, time.monotonic() - start)
            self.wait_gpu("waiting", timeout=15)
            self.assertIn("does not answer", self.gpu()["detail"])
        self.assertLess(best, 2.5, "2 s, and the time that this takes to see it")

    def test_garbage(self):
        for data in (b"GET / HTTP/1.0\r\n\r\n" * 10, struct.pack("<III", 1, 1, 0xffffffff), bytes(12), os.urandom(4096)):
            s = socket.socket(socket.AF_UNIX)
            s.settimeout(10)
            s.connect(str(self.path()))
            try:
                s.sendall(data)
                while s.recv(4096):
                    pass
            except ConnectionError:
                pass
            s.close()
            self.wait_gpu("waiting")
            self.assertNotEqual(self.gpu()["detail"], "")
        self.connect()
        self.wait_gpu("connected")

    def test_refusals(self):
        self.assertIn("no GPU", self.refused(5, "gpu", "show", "bare")["message"])
        self.refused(14, "gpu", "screenshot", "one", "--output", self.work / "a.png")
        self.assertFalse((self.work / "a.png").exists())
        self.refused(14, "gpu", "allow", "one")
        self.connect()
        self.wait_gpu("connected")
        self.refused(5, "gpu", "screenshot", "one", "-o", self.work / "a.png")
        self.assertFalse((self.work / "a.png").exists(), "nothing is shown, so nothing is written")
        for mode in ("0x0x0", "800", "8x", "wide"):
            self.refused(2, "gpu", "set-display", "one", mode)
        self.refused(2, "gpu", "set-display", "one", "800x600", "--scanout", 16)
        self.broker.cli("gpu", "set-display", "one", "800x600")
        self.broker.cli("gpu", "allow", "one")
        gpu = self.gpu()
        self.assertEqual((gpu["drawn_by"], gpu["contexts"], gpu["hangs"], gpu["quarantined"]), ("", 0, 0, 0))

    def test_charged(self):
        quota = self.broker.vm("one")["quota"]["gpu-memory"]
        self.assertEqual(quota, {"used": 0, "limit": 64 << 20})
        json.dumps(quota)

    def test_broker_ends(self):
        vmm, _ = self.connect()
        self.wait_gpu("connected")
        pids = self.processes(b"--front") + self.processes(b"--renderer")
        self.broker.stop()
        self.assertEqual(vmm.recv(1), b"")
        wait_until(lambda: not any(os.path.exists(f"/proc/{p}") for p in pids), 10)
        self.assertFalse(self.path().exists())


NOT_A_NODE = "/dev/null"


class DrawingCase(GpuCase):
    """virgl=, render-node= and dmabuf= of [gpu]."""
    files = {"vms.d/one.conf": "[vm]\nqmp=/nonexistent/one.qmp\n[gpu]\nmemory=256M\nvirgl=yes\ndmabuf=yes\n",
             "vms.d/two.conf": "[vm]\nqmp=/nonexistent/two.qmp\n[gpu]\nmemory=64M\nvirgl=hardware\n",
             "vms.d/null.conf": f"[vm]\nqmp=/nonexistent/null.qmp\n[gpu]\nmemory=64M\nvirgl=yes\nrender-node={NOT_A_NODE}\n",
             "vms.d/lost.conf": "[vm]\nqmp=/nonexistent/lost.qmp\n[gpu]\nmemory=64M\nvirgl=yes\nrender-node=/dev/dri/renderD191\n"}

    def sent_away(self, vm):
        """Why its VMM was."""
        s = socket.socket(socket.AF_UNIX)
        self.addCleanup(s.close)
        s.settimeout(10)
        s.connect(str(self.path(vm)))
        self.assertEqual(s.recv(1), b"")
        wait_until(lambda: self.gpu(vm)["state"] == "waiting", 10)
        self.assertEqual(self.broker.vm(vm)["quota"]["gpu-memory"]["used"], 0)
        return self.gpu(vm)["detail"]

    def test_in_software(self):
        self.connect()
        wait_until(lambda: self.gpu()["drawn_by"], 30)
        gpu = self.gpu()
        self.assertIn("llvmpipe", gpu["drawn_by"])
        self.assertEqual(gpu["state"], "connected")
        wait_until(lambda: "drawn in software, by llvmpipe" in self.broker.log_text(), 10)

    def test_hardware_without_a_node(self):
        self.assertIn("no render node", self.sent_away("two"))

    def test_another_broker_knows(self):
        """What a client gave at run time is there behind a restart."""
        add = ("vm", "add", "new", "--qmp", "/nonexistent/new.qmp", "--gpu-virgl")
        self.refused(4, *add, "hardware")
        self.refused(4, *add, "maybe", "--gpu-memory", "64M")
        self.broker.cli(*add, "hardware", "--gpu-memory", "64M")
        self.assertIn("no render node", self.sent_away("new"))
        self.broker.kill()
        self.start()
        self.assertIn("no render node", self.sent_away("new"))

    def test_what_is_no_node(self):
        self.assertIn("/dev/null: it is none", self.sent_away("null"))
        self.assertIn("renderD191", self.sent_away("lost"))


if __name__ == "__main__":
    leftovers.main(verbosity=2)
