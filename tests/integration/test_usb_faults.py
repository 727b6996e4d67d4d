#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Rows of the fault table (docs/faults.md) that can be measured without a VM, each with its figure: seconds, bytes, fds.

FAULT_CYCLES says how often workers are killed (default 40; soak: 1000).
"""
import os
import resource
import signal
import struct
import subprocess
import sys
import threading
import time
import unittest
from pathlib import Path

os.environ.setdefault("DEVBROKER_BUILD", str(Path(__file__).resolve().parents[2] / "build"))
os.environ.setdefault("DEVBROKER_USB", os.environ["DEVBROKER_BUILD"] + "/usb/devbroker-usb")
os.environ.setdefault("LEND", os.environ["DEVBROKER_BUILD"] + "/tests/integration/lend")

from broker_case import IFACE, ROOT, BrokerCase, RawBus, cpu_seconds, wait_until
from lent import *
from usbredir import *

CYCLES = int(os.environ.get("FAULT_CYCLES", "40"))


def rss_kib(pid):
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS:"))


class Answers(threading.Thread):
    """Asks the broker for its status all the time; worst is the longest that it took, in seconds."""

    def __init__(self, broker):
        super().__init__(daemon=True)
        self.bus = RawBus(broker)
        self.over = threading.Event()
        self.worst = 0
        self.start()

    def run(self):
        try:
            while not self.over.wait(0.02):
                start = time.monotonic()
                self.bus.call(ROOT, "org.freedesktop.DBus.Properties", "GetAll", IFACE)
                self.worst = max(self.worst, time.monotonic() - start)
        except OSError:
            pass  # the broker was killed

    def stop(self):
        self.over.set()
        self.join(10)
        self.bus.close()
        return self.worst


class FaultCase(BrokerCase):
    def setUp(self):
        super().setUp()
        self.start()
        self.win = self.vmm()
        self.image_path = self.disk()
        self.note_idle()

    def figure(self, text):
        print(f"       {text}", flush=True)

    def measures(self):
        pid = self.broker.process.pid
        return {"fds": self.broker.fds(), "children": len(self.broker.children()), "RSS": rss_kib(pid)}

    def lend(self):
        return self.attached(self.win)["worker_pid"]

    def gone(self, pid):
        """Until the lease has let go of that worker; seconds."""
        start = time.monotonic()
        wait_until(lambda: self.broker.device("disk:stick")["worker_pid"] != pid, step=0.005)
        return time.monotonic() - start

    def used(self):
        return sum(q["used"] for q in self.broker.vm("win")["quota"].values())


class Faults(FaultCase):
    def test_worker_killed(self):
        """worker killed in mid-transfer: lease freed in less than 1 s, cycle after cycle, nothing grows"""
        worst, was = 0, None
        for i in range(CYCLES + 5):
            if i == 5:
                was = self.measures()
            pid = self.lend()
            self.win.ask("read", 0, 64)
            os.kill(pid, signal.SIGKILL)
            took = self.gone(pid)
            self.broker.cli("detach", "stick")
            worst = max(worst, took) if was else 0
        wait_until(lambda: self.measures()["fds"] <= was["fds"])
        now = self.measures()
        self.figure(f"{CYCLES} kills: lease freed in {worst * 1000:.0f} ms at most; broker's fds {was['fds']} -> "
                    f"{now['fds']}, children {was['children']} -> {now['children']}, RSS {was['RSS']} -> {now['RSS']} KiB")
        self.assertLess(worst, 1)
        self.assertLessEqual((now["fds"], now["children"]), (was["fds"], was["children"]))
        self.assertLess(now["RSS"], was["RSS"] + 2048)  # the audit ring, once it is full
        self.assertEqual(self.used(), 0)
        self.nothing_left("win")

    def test_worker_stopped(self):
        """a worker that is stopped: ended within 2 s and a little, and the broker answers all the while"""
        answers = Answers(self.broker)
        pid = self.lend()
        os.kill(pid, signal.SIGSTOP)
        took = self.gone(pid)
        self.broker.wait_state("disk:stick", "configured")
        worst = answers.stop()
        self.figure(f"ended after {took:.2f} s; the broker's longest answer {worst * 1000:.0f} ms")
        self.assertLess(took, 2.5)
        self.assertLess(worst, 0.5)  # 100 ms, on a machine that does nothing else
        self.broker.cli("detach", "stick")

    def test_vm_killed(self):
        """VM killed: its lease is freed and its charges are back in less than 1 s"""
        self.lend()
        charged = self.used()
        self.win.kill()
        start = time.monotonic()
        quota = self.broker.vm("win")["quota"]
        while quota["bytes-in-flight"]["used"] or quota["transfers-in-flight"]["used"]:
            self.assertLess(time.monotonic() - start, 5)
            quota = self.broker.vm("win")["quota"]
        took = time.monotonic() - start
        self.figure(f"{charged} bytes, transfers and devices charged; those of the worker back after {took * 1000:.0f} ms")
        self.assertLess(took, 1)
        self.broker.cli("detach", "stick")
        self.assertEqual(self.used(), 0)

    def test_broker_killed(self):
        """broker killed and started again: the worker goes on, and there is one lease"""
        pid = self.lend()
        data = self.image_path.read_bytes()
        self.broker.kill()
        self.assertEqual(self.win.ask("read", 5, 1)["data"], data[2560:3072].hex())
        start = time.monotonic()
        self.broker.start()
        self.broker.wait_state("disk:stick", "configured")
        took = time.monotonic() - start
        self.assertEqual(self.broker.device("disk:stick")["worker_pid"], pid)
        self.assertEqual(len(self.win.ask("devices")["devices"]), 1)
        self.figure(f"adopted {took * 1000:.0f} ms after its start; worker {pid} served meanwhile")
        self.broker.cli("detach", "stick")

    def test_second_broker(self):
        """two brokers: the second one refuses, naming the first one's socket"""
        p = subprocess.run(self.broker.argv(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=20, text=True)
        self.assertNotEqual(p.returncode, 0)
        said = [line for line in p.stdout.splitlines() if "devbrokerd" in line]
        self.figure(f"exit code {p.returncode}: {said[-1][:110] if said else p.stdout[-110:]}")
        self.assertTrue(said)
        self.lend()
        self.broker.cli("detach", "stick")

    def test_no_fds_left(self):
        """no fds left in the broker: accepting pauses, leases are unaffected, it recovers"""
        self.lend()
        pid = self.broker.process.pid
        limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        before = self.broker.fds()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (before + 2, limits[1]))
        held = [RawBus(self.broker, authenticate=False) for _ in range(10)]
        wait_until(lambda: "out of file descriptors" in self.log())
        cpu = cpu_seconds(pid)
        time.sleep(0.5)
        cpu = cpu_seconds(pid) - cpu
        self.assertEqual(self.win.ask("read", 5, 1)["data"], self.image_path.read_bytes()[2560:3072].hex())
        for c in held:
            c.close()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        start = time.monotonic()
        self.broker.device("disk:stick")
        took = time.monotonic() - start
        self.figure(f"{before + 2} fds allowed, 10 clients: {cpu * 1000:.0f} ms of CPU in 0.5 s, served again after "
                    f"{took * 1000:.0f} ms")
        self.assertLess(cpu, 0.2)
        self.broker.cli("detach", "stick")
        wait_until(lambda: self.broker.fds() <= before)

    def test_client_never_reads(self):
        """control client that never reads: capped; others are answered"""
        pid = self.broker.process.pid
        was, answers = rss_kib(pid), Answers(self.broker)
        lazy = RawBus(self.broker)
        lazy.sock.settimeout(0.5)
        sent = 0
        message = lazy.message(ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects")
        try:
            while sent < 64 << 20:
                sent += lazy.sock.send(message * 64)
        except OSError:
            pass
        worst = answers.stop()
        grown = rss_kib(pid) - was
        self.figure(f"{sent >> 10} KiB of questions taken, {grown} KiB grown, the longest answer for another "
                    f"{worst * 1000:.0f} ms")
        self.assertLess(sent, 64 << 20)
        self.assertLess(grown, 32 << 10)
        lazy.close()

    def test_image_of_two(self):
        """one raw image for two disks: refused, naming the one that has it"""
        error = self.refused(12, "disk", "add", self.image_path, "--name", "twin")
        self.figure(error["message"])
        self.assertIn("disk:stick", error["message"])


class WithoutNamespaces(FaultCase):
    """As process 1 of its own namespace a worker gets no signal from itself; the kernel's SIGSYS is given all the same."""
    files = {"devbroker.conf": "[broker]\nsandbox=reduced:namespaces\n"}

    def test_seccomp_hit(self):
        """a worker that its seccomp list ends: said so, lent again after a back-off"""
        pid = self.lend()
        os.kill(pid, signal.SIGSYS)
        took = self.gone(pid)
        self.assertIn("system call that its sandbox forbids", self.log())
        start = time.monotonic()
        self.broker.wait_state("disk:stick", "configured")
        again = time.monotonic() - start
        self.figure(f"lease freed after {took * 1000:.0f} ms, lent again {again:.1f} s later")
        self.assertGreater(again, 0.5)
        self.broker.cli("detach", "stick")
        self.nothing_left("win")


class Guests(unittest.TestCase):
    """A guest in front of one worker."""

    def figure(self, text):
        print(f"       {text}", flush=True)

    def log(self):
        return ""

    def test_stall_ping_pong(self):
        """an endless game of stalls and cleared halts: each costs its answer, and nothing goes on without the guest"""
        with Lent() as w:
            s = Stick(w.sock).start().ready()
            pid = w.inner_pid()
            cpu, start = cpu_seconds(pid), time.monotonic()
            for _ in range(3000):
                self.assertEqual(s.control(0x02, 3, 0, s.ep_out, 0)[0], OK)
                self.assertEqual(s.bulk_out(s.ep_out, bytes(31))[0], STALL)
                s.clear_halt(s.ep_out)
            spent, took = cpu_seconds(pid) - cpu, time.monotonic() - start
            cpu = cpu_seconds(pid)
            time.sleep(0.5)
            idle = cpu_seconds(pid) - cpu
            self.figure(f"3000 rounds in {took:.1f} s, {spent / 3000 * 1e6:.0f} us of CPU each; {idle * 1000:.0f} ms in "
                        f"0.5 s afterwards; {w.peak_kib()} KiB at most")
            self.assertLess(spent / 3000, 0.002)
            self.assertLess(idle, 0.05)

    def test_never_reads(self):
        """a guest that never reads usbredir: the worker stops reading at its cap, and goes on without loss"""
        with Lent(options=["--max-bytes=1048576"]) as w:
            s = Stick(w.sock).start().ready()
            asked = 0
            try:
                while asked < 200000:
                    s.send_raw(s.packet(CONTROL, struct.pack("<BBBBHHH", 0x80, 6, 0x80, 0, 0x100, 0, 18), asked), 1)
                    asked += 1
            except (TimeoutError, OSError):
                pass
            peak = w.peak_kib()
            seen = 0
            while seen < asked - 1:
                s.expect(CONTROL)
                seen += 1
            self.figure(f"{asked} requests taken, {peak} KiB at most; {seen} answers afterwards")
            self.assertLess(peak, 64 << 10)


class Said(unittest.TestResult):
    def addSuccess(self, test):
        self.say("ok", test)

    def startTest(self, test):
        super().startTest(test)
        self.started = time.monotonic()

    def say(self, word, test):
        took = time.monotonic() - self.started
        print(f"{word:<7}{test.shortDescription() or test.id()} ({took:.1f} s)", flush=True)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        print(self.failures[-1][1], test.log()[-1500:], sep="\n", flush=True)
        self.say("FAIL", test)

    def addError(self, test, err):
        super().addError(test, err)
        print(self.errors[-1][1], flush=True)
        self.say("FAIL", test)


class Lines(leftovers.Checked, Said):
    """One line a test, as tests/run counts them."""


if __name__ == "__main__":
    leftovers.watch_over()
    suite = unittest.defaultTestLoader.loadTestsFromModule(sys.modules["__main__"])
    result = Lines()
    suite.run(result)
    sys.exit(not result.wasSuccessful())
