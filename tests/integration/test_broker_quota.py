#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Quotas that change while everything runs: the rate of one VM over several devices, the VM next to it, restarts, who may."""
import hashlib
import shlex
import shutil
import subprocess
import threading
import time
import unittest

from broker_case import wait_until
import leftovers
from test_broker_ways import WaysCase, to_unix

MIB = 1 << 20
BLOCKS = 64


class Load(threading.Thread):
    """Reads a stick over and over, 32 KiB at a time; what came is summed up in order."""

    def __init__(self, stick):
        super().__init__(daemon=True)
        self.stick = stick
        self.over = threading.Event()
        self.bytes = self.reads = 0
        self.passes = set()
        self.error = None
        self.start()

    def run(self):
        try:
            while not self.over.is_set():
                self.once()
        except Exception as e:
            self.error = e

    def once(self):
        digest = hashlib.sha256()
        for lba in range(0, MIB // 512, BLOCKS):
            data = self.stick.read(lba, BLOCKS)
            digest.update(data)
            self.bytes += len(data) + 31 + 13
            self.reads += 1
            if self.over.is_set():
                return
        self.passes.add(digest.hexdigest())

    def end(self):
        self.over.set()
        self.join(20)
        if self.error:
            raise self.error


class Quota(WaysCase):
    def setUp(self):
        super().setUp()
        self.start()
        self.images = {}

    def vm(self, name, devices):
        self.broker.cli("vm", "add", name, "--slots", str(len(devices)))
        sticks = []
        for i, d in enumerate(devices):
            g = self.guest(to_unix(self.slot(i, name)))
            self.images[d] = self.disk(d)
            self.attached(None, "disk:" + d, name)
            sticks.append(g)
        for g in sticks:
            wait_until(lambda g=g: g.stick)
        return [g.stick for g in sticks]

    def load(self, stick):
        load = Load(stick)
        self.addCleanup(load.over.set)
        return load

    @staticmethod
    def rate(loads, seconds, what="bytes"):
        """Of all together, per second. It settles first: what an idle VM has saved up is spent by then."""
        time.sleep(0.4)
        t, n = time.monotonic(), sum(getattr(x, what) for x in loads)
        time.sleep(seconds)
        return (sum(getattr(x, what) for x in loads) - n) / (time.monotonic() - t)

    def quota(self, vm, name):
        answer = self.broker.cli("quota", "show", vm)
        return answer["vms"][0]["quota"][name]

    def near(self, what, got, wanted):
        print(f"{what}: {got:.0f}/s of {wanted}: {100 * (got / wanted - 1):+.1f} %", flush=True)
        self.assertLess(abs(got / wanted - 1), 0.05, (what, got, wanted))

    def test_one_vm_of_two(self):
        slow = [self.load(s) for s in self.vm("slow", ["a", "b"])]
        free = self.load(self.vm("free", ["c"])[0])
        alone = self.rate(slow, 0.5)
        answer = self.broker.cli("quota", "set", "slow", "usb.bandwidth=4M")
        self.assertEqual((answer["limit"], answer["lasts"]), (4 * MIB, True))
        self.near("bandwidth, two devices", self.rate(slow, 2.5), 4 * MIB)
        used = self.quota("slow", "usb.bandwidth")
        self.assertEqual(used["limit"], 4 * MIB)
        self.assertLess(abs(used["used"] / (4 * MIB) - 1), 0.3, used)
        freely = self.rate([free], 0.5)
        print(f"free: {freely / MIB:.0f} MiB/s; both others without a limit: {alone / MIB:.0f} MiB/s", flush=True)
        self.assertGreater(freely, 5 * MIB)
        # Each got its part.
        self.assertGreater(min(x.bytes for x in slow) / max(x.bytes for x in slow), 0.2)
        self.broker.cli("quota", "set", "slow", "usb.bandwidth=8M")
        self.near("changed while it runs", self.rate(slow, 2), 8 * MIB)
        self.broker.cli("quota", "set", "slow", "usb.bandwidth=none")
        self.broker.cli("quota", "set", "slow", "usb.transfers-per-second=300")
        # A command, its data, its status.
        self.near("transfers", self.rate(slow, 2.5, "reads") * 3, 300)
        self.broker.cli("quota", "set", "slow", "usb.transfers-per-second=none")
        self.assertGreater(self.rate(slow, 0.4), 5 * MIB)
        for x in (*slow, free):
            x.end()
        for x, name in zip((*slow, free), "abc"):
            self.assertEqual(x.passes, {hashlib.sha256(self.images[name].read_bytes()).hexdigest()})

    def test_written_whole_and_after_a_restart(self):
        stick, = self.vm("win", ["a"])
        self.broker.cli("quota", "set", "win", "usb.bandwidth=1M")
        data = bytes(range(256)) * 4096
        t = time.monotonic()
        for at in range(0, MIB, 1 << 16):
            self.assertTrue(stick.write(at // 512, data[at:at + (1 << 16)]))
        took = time.monotonic() - t
        self.assertGreater(took, 0.8)
        self.assertEqual(self.images["a"].read_bytes(), data)
        # Its control transfers don't wait, whatever it owes.
        t = time.monotonic()
        self.assertEqual(stick.control(0x80, 6, 0x100, 0, 18)[0], 0)
        self.assertLess(time.monotonic() - t, 0.5)
        pid = self.broker.device("disk:a")["worker_pid"]
        self.broker.kill()
        self.broker.start()
        self.broker.wait_state("disk:a", "configured")
        self.assertEqual(self.broker.device("disk:a")["worker_pid"], pid)
        self.assertEqual(self.quota("win", "usb.bandwidth")["limit"], MIB)
        load = self.load(stick)
        self.near("after a restart", self.rate([load], 2), MIB)
        load.end()

    @unittest.skipUnless(shutil.which("tmux"), "no tmux")
    def test_top_in_a_terminal(self):
        """Two VMs at work, as somebody sees them."""
        loads = [self.load(s) for vm, d in (("win11", "a"), ("debian", "b")) for s in self.vm(vm, [d])]
        self.broker.cli("quota", "set", "debian", "usb.bandwidth=4M")
        tmux = ["tmux", "-S", str(self.work / "tmux")]
        subprocess.run([*tmux, "-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "12",
                        shlex.join(self.broker.command("top"))], check=True)
        self.addCleanup(subprocess.run, [*tmux, "kill-server"], stderr=subprocess.DEVNULL)
        seen = []

        def shown():
            out = subprocess.run([*tmux, "capture-pane", "-p"], stdout=subprocess.PIPE, text=True).stdout
            seen[:] = [line.split() for line in out.splitlines() if line]
            rate = {w[0]: float(w[3]) for w in seen if w[0] in ("win11", "debian")}
            latency = [w for w in seen if w[0].startswith("disk:") and "us" in w]
            return len(latency) == 2 and 3.5 < rate["debian"] < 5 < rate["win11"]
        try:
            wait_until(shown, step=0.2)
        finally:
            print("\n".join(" ".join(w) for w in seen), flush=True)
        subprocess.run([*tmux, "send-keys", "q"], check=True)
        for x in loads:
            x.end()

    def test_devices(self):
        self.vm("win", ["a"])
        self.disk("b")
        self.broker.cli("quota", "set", "win", "usb.devices=1")
        self.assertEqual(self.quota("win", "usb.devices"), {"used": 1, "limit": 1})
        self.assertEqual(self.refused(10, "attach", "b", "win")["code"], "quota")
        for bad in ("usb.bandwidth=1", "usb.devices=65", "usb.bytes-in-flight=1K", "usb.transfers-per-second=1",
                    "gpu.memory=64M"):
            self.assertEqual(self.refused(4, "quota", "set", "win", bad)["code"], "invalid", bad)
        for bad in ("usb.bandwidth", "bandwidth=4M", "usb.bandwidth=fast", "gpu.time=1"):
            self.refused(2, "quota", "set", "win", bad)
        self.refused(5, "quota", "set", "nobody", "usb.devices=1")


if __name__ == "__main__":
    leftovers.main(verbosity=2)
