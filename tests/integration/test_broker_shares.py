#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Shares of GPU time, drawn in software: real renderers of VMs that draw all the time, behind a real broker; and one that takes no
notice of its share. The machine may have other work: what is fixed is compared among those that draw, and never exceeded."""
import json
import os
import signal
import socket
import subprocess
import time
import unittest
from pathlib import Path

import prometheus
from broker_case import BrokerCase, cpu_seconds, wait_until
from test_broker_gpu import GET_FEATURES

BUILD = Path(os.environ["DEVBROKER_BUILD"])
TRIES = 3


def quiet():
    """Whether this machine has time for nobody else's work than ours."""
    return os.getloadavg()[0] < 4


def vm_file(name, share, virgl="yes"):
    return f"[vm]\nqmp=/nonexistent/{name}.qmp\n[gpu]\nmemory=64M\nvirgl={virgl}\nshare={share}\n"


class Load:
    """A VM that draws frame after frame, as fast as it can."""

    def __init__(self, case, vm, turns):
        path = case.broker.run_dir / "vm" / vm / "gpu.sock"
        self.process = subprocess.Popen([BUILD / "tests/gpu/gpu-load", path, "greedy", f"turns={turns}"], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        case.addCleanup(self.end)
        assert json.loads(self.process.stdout.readline()) == {"ready": True}

    def report(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def rest(self):
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)

    def end(self):
        if self.process.poll() is None:
            self.go_on()
            self.process.stdin.close()
            self.process.wait(10)
            self.process.stdout.close()


class SharesCase(BrokerCase):
    cpus = 1

    def start_with(self, shares, turns=12, settle=3.2):
        """settle: until what a renderer has for its start is over."""
        conf = self.broker.config
        (conf / "devbroker.conf").write_text(f"[gpu]\nsoftware-cpus={self.cpus}\n")
        (conf / "vms.d").mkdir(exist_ok=True)
        for name, share in shares.items():
            (conf / "vms.d" / f"{name}.conf").write_text(vm_file(name, share))
        for p in [conf, *conf.rglob("*")]:
            p.chmod(0o755 if p.is_dir() else 0o644)
        self.start()
        self.loads = {name: Load(self, name, turns) for name in shares}
        self.renderers = {name: self.renderer(name) for name in shares}
        time.sleep(settle)

    def renderer(self, vm):
        for pid in self.broker.children():
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"--renderer" in words and f"--name={vm}".encode() in words:
                return pid
        return None

    def used(self):
        """Seconds of CPU that each renderer had, by the kernel's most exact count."""
        def of(pid):
            return sum(int((t / "schedstat").read_text().split()[0]) for t in Path(f"/proc/{pid}/task").iterdir()) / 1e9
        return {name: of(pid) for name, pid in self.renderers.items()}

    def measure(self, seconds, settle=0.5):
        """Percent of the pool, and of what all of them used together."""
        time.sleep(settle)
        t, before = time.monotonic(), self.used()
        time.sleep(seconds)
        after, t = self.used(), time.monotonic() - t
        used = {name: after[name] - before[name] for name in after}
        pool = {name: 100 * u / t / self.cpus for name, u in used.items()}
        together = {name: 100 * u / sum(used.values()) for name, u in used.items()}
        return pool, together

    def quota(self, vm, setting):
        return self.broker.cli("quota", "set", vm, setting)

    @staticmethod
    def shown(values):
        return ", ".join(f"{name} {v:.1f} %" for name, v in values.items())


class Fixed(SharesCase):
    def near(self, what, seconds, wanted, within):
        for left in reversed(range(TRIES)):
            pool, together = self.measure(seconds)
            print(f"{what}: {self.shown(together)}; of the pool {self.shown(pool)}; load {os.getloadavg()[0]:.1f}", flush=True)
            if left == 0 or all(abs(together[n] - w) <= within for n, w in wanted.items()):
                break
        for name, percent in wanted.items():
            self.assertLess(abs(together[name] - percent), within, (what, together))
            # And some of it that has stood before.
            self.assertLess(pool[name], percent + within, (what, pool))

    def test_three_greedy_ones(self):
        self.start_with({"half": "fixed:50%", "third": "fixed:30%", "fifth": "fixed:20%"})
        self.near("fixed 50/30/20 over 10 s", 10, {"half": 50, "third": 30, "fifth": 20}, 3)
        broker = cpu_seconds(self.broker.process.pid)
        for vm, share in (("half", 15), ("third", 35), ("fifth", 50)):
            self.assertEqual(self.quota(vm, f"gpu.share=fixed:{share}%")["limit"], f"fixed:{share}%")
        self.near("15/35/50 while it runs", 4, {"half": 15, "third": 35, "fifth": 50}, 4)
        print(f"the broker itself: {100 * (cpu_seconds(self.broker.process.pid) - broker) / 4.5:.1f} % of a CPU at most")
        for load in self.loads.values():
            r = load.report()
            self.assertEqual((r["errors"], r["lost"]), (0, 0), r)
        shown = self.broker.cli("gpu", "show", "fifth")["gpu"]
        self.assertEqual((shown["share"], shown["renderers"], shown["hangs"]), ("fixed:50%", 1, 0))
        self.assertGreater(shown["time_usec"], 1000000)
        self.assertGreater(shown["waited_usec"], 100000)
        self.assertGreater(shown["renderer_bytes"], shown["memory_bytes"])
        self.assertGreater([c["usec"] for c in shown["context_times"]][0], 500000)
        # There is no GPU whose time or memory the kernel could count.
        self.assertEqual((shown["time_from"], shown["device_memory_bytes"]), ("cpu", 0))
        self.assertIn("cpu: its renderer's CPU time", self.said("gpu", "show", "fifth"))
        samples = prometheus.lint(self.said("metrics"))
        self.assertEqual(samples["devbroker_gpu_time_info", (("time_from", "cpu"), ("vm", "fifth"))], 1)
        self.assertEqual(samples["devbroker_gpu_device_memory_bytes", (("vm", "fifth"),)], 0)
        for command in (("stats",), ("top", "--once")):
            head, *rows = [line for line in self.said(*command).splitlines() if "GPU TIME" in line or line.startswith("fifth")]
            self.assertEqual(rows[0][head.index("FROM"):].split()[:2], ["cpu", "fixed:50%"], (head, rows))

    def said(self, *command):
        out = subprocess.run(self.broker.command(*command), capture_output=True, text=True, timeout=20)
        self.assertEqual(out.returncode, 0, out.stderr)
        return out.stdout

    def test_one_alone(self):
        """It gets no more on an idle machine; and nobody needs a tick when nobody draws."""
        self.start_with({"alone": "fixed:25%"})
        for left in reversed(range(TRIES)):
            pool, _ = self.measure(3)
            print(f"fixed:25% alone: {pool['alone']:.1f} %", flush=True)
            self.assertLess(pool["alone"], 27)
            if pool["alone"] > 20:
                break
        self.assertGreater(pool["alone"], 20 if quiet() else 4)
        self.loads["alone"].rest()
        time.sleep(1.5)
        switches = self.switches()
        time.sleep(2)
        ticks = (self.switches() - switches) / 2
        print(f"the broker wakes {ticks:.1f} times a second while nobody draws", flush=True)
        self.assertLess(ticks, 30, "ticks come a hundred times a second")

    def switches(self):
        for line in Path(f"/proc/{self.broker.process.pid}/status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                return int(line.split()[1])
        return 0


class Fair(SharesCase):
    def test_idle_time(self):
        self.start_with({"big": "fair:70%", "small": "fair:15%", "effort": "best-effort"}, turns=4)
        for left in reversed(range(TRIES)):
            pool, both = self.measure(3)
            print(f"fair 70/15 and best-effort: {self.shown(both)}", flush=True)
            if left == 0 or (both["big"] > 3 * both["small"] > 9 * both["effort"] > 0):
                break
        self.assertGreater(both["big"], 2.5 * both["small"])
        self.assertGreater(both["small"], 3 * both["effort"])
        self.loads["big"].rest()
        pool, idle = self.measure(2)
        print(f"while the first rests: {self.shown(idle)}; of the pool {self.shown(pool)}", flush=True)
        # Of what is idle and not of what they are guaranteed: as exact as the machine has time for it.
        self.assertGreater(idle["small"], 75 if quiet() else 50)
        self.assertGreater(pool["small"], 50 if quiet() else pool["effort"])
        # It comes back, again and again: how soon it has most of the time. Looks at it disturb it, too.
        times = []
        for _ in range(5):
            times.append(self.comes_back())
            self.loads["big"].rest()
            time.sleep(0.4)
        print("it has its share back after", ", ".join(f"{t:.0f} ms" for t in times), flush=True)
        # Elsewhere its own processes wait for a CPU for longer than that.
        self.assertLess(sorted(times)[1], 100 if quiet() else 1500, times)

    def comes_back(self):
        """ms until the first of three periods of 10 ms or more in which it has more than half of what is used."""
        self.loads["big"].go_on()
        start, last, good, since = time.monotonic(), self.used(), 0, None
        while good < 3 and time.monotonic() - start < 2:
            began = time.monotonic()
            time.sleep(0.01)
            now = self.used()
            d = {n: now[n] - last[n] for n in now}
            last = now
            if d["big"] > (d["small"] + d["effort"]) * 1.2:
                since = since or began
                good += 1
            elif sum(d.values()) > 0.002:
                since, good = None, 0
        return 1000 * ((since or time.monotonic()) - start)

    def test_nothing_is_bounded_without_guarantees(self):
        self.start_with({"one": "best-effort", "two": "best-effort"}, turns=4, settle=0)
        pool, _ = self.measure(2)
        print(f"best-effort alone: of the pool {self.shown(pool)}", flush=True)
        for vm in ("one", "two"):
            self.assertLess(self.broker.cli("gpu", "show", vm)["gpu"]["waited_usec"], 1000)


class Refused(SharesCase):
    def test_values(self):
        self.start_with({"a": "fair:60%", "b": "best-effort"}, turns=1, settle=0)
        for load in self.loads.values():
            load.end()
        for setting in ("half", "fixed:", "fixed:0%", "fair:101%", "fair:5", "best-effort:5%", "fixed:5%%", "fixed:+5%", "fixed:0005%"):
            e = self.refused(4, "quota", "set", "b", f"gpu.share={setting}")
            self.assertIn("fair:N%", e["remedy"])
        e = self.refused(10, "quota", "set", "b", "gpu.share=fixed:41%")
        self.assertIn("101 %", e["message"])
        self.quota("b", "gpu.share=fixed:40%")
        self.quota("a", "gpu.share=fair:60%")
        self.refused(10, "quota", "set", "a", "gpu.share=fair:61%")
        self.quota("b", "gpu.share=best-effort")
        self.quota("a", "gpu.share=fair:100%")
        for setting in ("gpu.frame-rate=1001", "gpu.contexts=257", "gpu.resources=65537", "gpu.memory=15M", "gpu.memory=17G"):
            self.refused(4, "quota", "set", "a", setting)
        for setting in ("gpu.frame-rate=many", "gpu.contexts=-1", "gpu.memory=none", "gpu.time=3"):
            self.refused(2, "quota", "set", "a", setting)
        self.broker.cli("vm", "add", "bare", "--qmp", "/nonexistent/bare")
        self.assertIn("no GPU", self.refused(4, "quota", "set", "bare", "gpu.share=fixed:5%")["message"])
        self.refused(4, "vm", "add", "more", "--qmp", "/nonexistent/more", "--gpu-share", "fair:5%")
        self.refused(10, "vm", "add", "more", "--qmp", "/nonexistent/more", "--gpu-memory", "32M", "--gpu-share", "fair:5%")

    def test_configuration(self):
        conf = self.broker.config
        (conf / "vms.d").mkdir(exist_ok=True)
        for share, sentence in (("fixed:101%", "vms.d/a.conf:6"), ("fair:60%", "120 %")):
            (conf / "vms.d/a.conf").write_text(vm_file("a", share, "no"))
            (conf / "vms.d/b.conf").write_text(vm_file("b", "fair:60%", "no"))
            for p in [conf, *conf.rglob("*")]:
                p.chmod(0o755 if p.is_dir() else 0o644)
            done = subprocess.run(self.broker.argv(), capture_output=True, text=True, timeout=20)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(sentence, done.stderr)

    def test_lasting(self):
        """A VM that was added keeps its limits over a restart, one from a file has what its file says."""
        self.start_with({"file": "fair:10%"}, turns=1, settle=0)
        self.loads["file"].end()
        self.broker.cli("vm", "add", "added", "--qmp", "/nonexistent/added", "--gpu-memory", "64M", "--gpu-share", "fair:20%")
        for setting in ("gpu.share=fixed:33%", "gpu.frame-rate=30", "gpu.contexts=3", "gpu.resources=99", "gpu.memory=48M"):
            self.assertTrue(self.quota("added", setting)["lasts"])
            self.assertFalse(self.quota("file", setting)["lasts"])
        self.broker.kill()
        self.broker.start()
        q = {v["vm"]: v["quota"] for v in self.broker.cli("quota", "show")["vms"]}
        self.assertEqual({k: v["limit"] for k, v in q["added"].items() if k.startswith("gpu.")},
                         {"gpu.share": 33, "gpu.frame-rate": 30, "gpu.contexts": 3, "gpu.resources": 99, "gpu.memory": 48 << 20})
        self.assertEqual((q["added"]["gpu.share"]["share"], q["file"]["gpu.share"]["share"]), ("fixed:33%", "fair:10%"))
        self.assertEqual(q["file"]["gpu.memory"]["limit"], 64 << 20)


class Stopped(SharesCase):
    def test_dies_with_its_broker(self):
        """Nobody else would let it go on: neither its front's end nor that of their connection wakes it."""
        self.start_with({"a": "fixed:50%"}, turns=1, settle=0)
        pid = self.renderers["a"]
        self.loads["a"].rest()
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T", 5)
        self.broker.process.kill()
        self.broker.process.wait()
        wait_until(lambda: not Path(f"/proc/{pid}").exists() or
                   Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX", 5)


class Rogue(SharesCase):
    """Its renderer takes no notice of anything."""

    def setUp(self):
        super().setUp()
        libexec = self.work / "libexec"
        libexec.mkdir()
        (libexec / "devbroker-gpu").symlink_to((BUILD / "tests/integration/busy-renderer").resolve())

    def test_held_to_its_share(self):
        self.broker.config.joinpath("vms.d").mkdir(exist_ok=True)
        self.loads = {}
        (self.broker.config / "vms.d/rogue.conf").write_text(vm_file("rogue", "fixed:20%", "no"))
        (self.broker.config / "devbroker.conf").write_text("[gpu]\nsoftware-cpus=1\n")
        self.start()
        vmm = socket.socket(socket.AF_UNIX)
        self.addCleanup(vmm.close)
        vmm.connect(str(self.broker.run_dir / "vm/rogue/gpu.sock"))
        vmm.sendall(GET_FEATURES)
        wait_until(lambda: self.renderer("rogue"), 10)
        self.renderers = {"rogue": self.renderer("rogue")}
        for left in reversed(range(TRIES)):
            pool, stopped = self.watch(1.5 if left < TRIES - 1 else 3)
            print(f"rogue of fixed:20%: {pool:.1f} %, stopped for {stopped:.0f} ms at most", flush=True)
            if left == 0 or abs(pool - 20) < 3:
                break
        self.assertLess(pool, 23)
        self.assertGreater(pool, 10)
        self.assertLess(stopped, 300)
        # One that is stopped can be killed, and the next one owes what it did.
        vmm.close()
        wait_until(lambda: not self.renderer("rogue"), 5)
        self.stopped()

    def watch(self, seconds):
        """Percent of a CPU, and its longest stop in ms."""
        pid = self.renderers["rogue"]
        time.sleep(0.8)
        t, before, longest, since = time.monotonic(), self.used()["rogue"], 0, None
        while time.monotonic() - t < seconds:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
            now = time.monotonic()
            since = (since or now) if state == "T" else None
            longest = max(longest, now - since if since else 0)
            time.sleep(0.003)
        return 100 * (self.used()["rogue"] - before) / (time.monotonic() - t), 1000 * longest


if __name__ == "__main__":
    unittest.main(verbosity=2)
