#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Accounting: what stats, metrics and top say of devices that did something known."""
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
import unittest

import prometheus
from broker_case import wait_until
import leftovers
from test_broker_ways import WaysCase, to_unix


class Stats(WaysCase):
    def setUp(self):
        super().setUp()
        self.start()
        self.broker.cli("vm", "add", "win", "--slots", "1")
        self.disk("stick")
        g = self.guest(to_unix(self.slot()))
        self.attached(None, "disk:stick")
        wait_until(lambda: g.stick)
        self.stick = g.stick

    def stats(self, kind, name):
        return next(x for x in self.broker.cli("stats")[kind] if x["name"] == name)

    def settled(self):
        """After a heartbeat that saw all."""
        time.sleep(0.6)
        return self.stats("devices", "disk:stick")["statistics"]

    def text(self, *command):
        out = subprocess.run([*self.broker.command(*command)], capture_output=True, text=True, timeout=20)
        self.assertEqual(out.returncode, 0, out.stderr)
        return out.stdout

    def test_counted(self):
        before = self.settled()
        for i in range(50):
            self.assertEqual(len(self.stick.read(i, 8)), 4096)
            self.assertTrue(self.stick.write(i, bytes(512)))
        for _ in range(7):
            self.assertEqual(self.stick.control(0x80, 6, 0x100, 0, 18)[0], 0)
        after = self.settled()
        grown = {k: after[k] - before[k] for k in after}
        self.assertEqual((grown["bulk"], grown["control"], grown["interrupt"], grown["isochronous"]), (300, 7, 0, 0))
        self.assertEqual(grown["transfers"], 307)
        self.assertEqual(grown["bytes-in"], 50 * (4096 + 13 + 13) + 7 * 18)
        self.assertEqual(grown["bytes-out"], 50 * (31 + 31 + 512))
        self.assertEqual((grown["errors"], grown["refused"], grown["stalls"]), (0, 0, 0))
        latency = self.stats("devices", "disk:stick")["latency"]
        self.assertEqual(sum(latency), after["bulk"] + after["control"])
        self.assertGreater(after["latency-usec"], 0)
        self.assertLess(after["latency-usec"], 30_000_000)
        # The VM keeps what it was when the device is gone.
        vm = self.stats("vms", "win")["statistics"]
        self.assertEqual({k: vm[k] for k in ("transfers", "bytes-in", "bytes-out")},
                         {k: after[k] for k in ("transfers", "bytes-in", "bytes-out")})
        self.broker.cli("detach", "stick")
        gone = self.stats("vms", "win")["statistics"]
        self.assertGreaterEqual(gone["bytes-out"], vm["bytes-out"])
        self.assertEqual(self.stats("devices", "disk:stick")["statistics"]["transfers"], 0)
        self.assertIn("win", self.text("stats"))

    def test_metrics(self):
        self.stick.read(0, 8)
        self.settled()
        samples = prometheus.lint(self.text("metrics"))
        ours = (("device", "disk:stick"), ("direction", "in"), ("vm", "win"))
        self.assertGreater(samples["devbroker_usb_bytes_total", ours], 4096)
        self.assertGreater(samples["devbroker_vm_usb_bytes_total", ours[1:]], 4096)
        self.assertEqual(samples["devbroker_vm_quota_limit", (("quota", "devices"), ("vm", "win"))], 16)
        file = self.work / "devbroker.prom"
        file.write_text("old")
        self.assertEqual(self.text("metrics", "-o", str(file)), "")
        self.assertEqual(prometheus.lint(file.read_text()).keys(), samples.keys())
        self.assertEqual(file.stat().st_mode & 0o777, 0o644)
        self.assertEqual([p.name for p in self.work.glob("devbroker.prom*")], ["devbroker.prom"])
        self.assertNotEqual(subprocess.run(self.broker.command("metrics", "-o", "/nowhere/x"),
                                           capture_output=True).returncode, 0)

    def test_linter_finds_something(self):
        good = "# HELP a_total x\n# TYPE a_total counter\na_total{b=\"\\\"\\\\\\n\"} 1\n"
        prometheus.lint(good)
        for bad in (good + good, good.replace("a_total", "a"), good.replace("counter", "gauge"), good.replace("\\\"", "\""),
                    good.replace("# HELP a_total x\n", ""), good + "b 1\n", good.replace("1\n", "1"), good.replace(" 1", "")):
            with self.assertRaises(AssertionError, msg=bad):
                prometheus.lint(bad)

    def test_top(self):
        once = self.text("top")
        self.assertIn("disk:stick", once)
        self.assertNotIn("\033", once)
        pid, fd = pty.fork()
        if pid == 0:
            command = self.broker.command("top")
            os.environ["TERM"] = "xterm"
            os.execv(command[0], command)
        self.addCleanup(os.close, fd)
        before = termios.tcgetattr(fd)
        said = b""

        def says(text, since=0):
            nonlocal said
            if select.select([fd], [], [], 0.05)[0]:
                try:
                    said += os.read(fd, 65536)
                except OSError:
                    pass  # nobody is at the other end any more
            return text in said[since:]
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 120, 0, 0))
        wait_until(lambda: says(b"disk:stick"))
        self.assertTrue(said.startswith(b"\033[?1049h"), said[:40])
        # Where there is room for three lines, devices don't fit.
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 3, 120, 0, 0))
        at = len(said)
        wait_until(lambda: says(b"devbroker top", at) and says(b"\033[J", at))
        os.write(fd, b"q")
        ended = []

        def over():
            says(b"")
            ended[:] = os.waitpid(pid, os.WNOHANG)
            return ended[0] == pid
        try:
            wait_until(over)
        except AssertionError:
            os.kill(pid, signal.SIGKILL)
            raise
        self.assertEqual(ended[1], 0)
        self.assertEqual(termios.tcgetattr(fd)[3], before[3])


if __name__ == "__main__":
    leftovers.main(verbosity=2)
