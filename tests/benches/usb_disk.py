#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""tests/bench usb-disk: a stick of devbroker's against QEMU's own usb-storage, and against a bare usbredir peer.

Through a guest: in each round the same image is plugged into the same guest by devbroker (A), measured, taken out, plugged
by QEMU as usb-storage (B), measured, taken out; A goes first in even rounds and B in odd ones. Medians of the rounds
with the lowest and highest are printed, and the ratio of each round's pair (its median): a machine that slows down for a
while slows both. The image lies on the disk of the build folder, read from the page cache: on a tmpfs there is no
RWF_NOWAIT before Linux 6.6, and each read would take the way of one that has to wait for its disk.

QEMU 7.2 reads its end of a usbredir connection 4 KiB at a time (CHR_READ_BUF_LEN; strace shows 256 calls for a read of
1 MiB), one turn of its main loop each. That is most of the distance to usb-storage, which is inside of QEMU; the
worker's share of the CPU time is printed by itself.

Without QEMU: redir-bench plays the guest's usb-storage against the sandboxed worker, one command in flight, and beside it
two processes pass messages of the same sizes over the same kind of socket: the limit of this machine for such a path.

Start: from the start of `devbroker attach` to device_connect written, 50 times, and from device_connect to the guest's
SET_CONFIGURATION, with the same step of usb-storage beside it (QEMU's trace events give its times).
"""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "lab"), str(Path(__file__).resolve().parent)]
import images
import runner
from guest import LabError, accelerator
from measure import Goals, arguments, cpu_seconds, finish, host, number, percentile, show_spread, spread, table

MIB = 1 << 20
IMAGE_MIB = 256
RANDOM_READS = 1500
# What one round measures: name → (mode, block, count).
CELLS = {"read_64k": ("read", 65536, 2048), "read_1m": ("read", MIB, 192), "write_64k": ("write", 65536, 1024),
         "write_1m": ("write", MIB, 96), "random_4k": ("random", 4096, RANDOM_READS)}
# 120 KiB is the most that Linux asks of a stick at high speed at once.
BARE_CELLS = (("read", 4096, 8000), ("read", 65536, 4000), ("read", 122880, 3000), ("read", MIB, 1000),
              ("write", 65536, 2000), ("write", 122880, 1500), ("write", MIB, 500), ("random", 4096, 8000))
STARTS = 50
PEER = "QEMUPEER0001"


def say(text):
    print(text, flush=True)


class Bench:
    def __init__(self, lab, image):
        self.lab = lab
        self.image = image
        self.broker = lab.start_broker(log_level="warn")
        self.trace = lab.work / "qemu-trace"
        self.guest = lab.guest("guest", extra=["-trace", "enable=usb_port_attach", "-trace", "enable=usb_set_config",
                                               "-D", str(self.trace), "-msg", "timestamp=on"])
        self.broker.cli("vm", "add", "guest", "--qmp", self.guest.qmp_path)
        self.broker.wait_vm("guest", "up")
        self.broker.cli("disk", "add", image, "--name", "stick")
        self.serial = self.broker.device("disk:stick")["serial"]

    # Two ways into the guest. plug returns the block device and the pids whose CPU time counts, QEMU's first.
    def plug_devbroker(self):
        device = self.broker.cli("attach", "stick", "guest", "--wait")["device"]
        return self.guest.wait_disk(self.serial), [self.guest.process.pid, device["worker_pid"]]

    def unplug_devbroker(self):
        self.broker.cli("detach", "stick")

    def plug_qemu(self):
        # locking=off: devbroker keeps the image locked while it knows it; nothing is lent now.
        self.guest.qmp.call("blockdev-add", node_name="peer", driver="raw",
                            file={"driver": "file", "filename": str(self.image), "locking": "off"})
        self.guest.qmp.call("device_add", driver="usb-storage", id="peer", drive="peer", bus="xhci.0", serial=PEER)
        return self.guest.wait_disk(PEER), [self.guest.process.pid]

    def unplug_qemu(self):
        self.guest.qmp.call("device_del", id="peer")
        # One event for the SCSI disk inside, one for the stick itself.
        while self.guest.qmp.wait_event("DEVICE_DELETED")["data"].get("device") != "peer":
            pass
        self.guest.qmp.call("blockdev-del", node_name="peer")

    def blockio(self, mode, disk, block, count, pids, *more):
        before = [cpu_seconds(p) for p in pids]
        out = self.guest.run(f"blockio {mode} /dev/{disk} {block} {count} {' '.join(map(str, more))}", timeout=300)
        result = json.loads(out.splitlines()[-1])
        used = [cpu_seconds(p) - b for p, b in zip(pids, before)]
        result["cpu_s"], result["worker_cpu_s"] = sum(used), sum(used[1:])
        return result

    def measure(self, way, seed):
        """One way, one round."""
        disk, pids = getattr(self, f"plug_{way}")()
        try:
            cells = {name: self.blockio(*cell[:1], disk, *cell[1:], pids, seed) for name, cell in CELLS.items()}
        finally:
            getattr(self, f"unplug_{way}")()
        out = {}
        for name, c in cells.items():
            out[f"{name}_mb_s"] = c["bytes"] * 1e3 / c["ns"]
            out[f"{name}_p50_us"], out[f"{name}_p99_us"] = c["p50_ns"] / 1e3, c["p99_ns"] / 1e3
            out[f"{name}_cpu_s_per_gb"] = c["cpu_s"] * 1e9 / c["bytes"]
            out[f"{name}_worker_cpu_s_per_gb"] = c["worker_cpu_s"] * 1e9 / c["bytes"]
        out["random_4k_iops"] = out["random_4k_mb_s"] * 1e6 / 4096
        return out

    def rounds(self, n):
        results = []
        # Not counted: the first of everything is slow (translation caches, page cache, first touch).
        self.measure("devbroker", 1)
        self.measure("qemu", 1)
        for i in range(n):
            one = {}
            for way in ("devbroker", "qemu") if i % 2 == 0 else ("qemu", "devbroker"):
                one[way] = self.measure(way, 12345 + i)
            results.append(one)
            say(f"  round {i + 1}/{n}: " + ", ".join(
                f"{name} {number(one['devbroker'][key])} / {number(one['qemu'][key])}" for name, key in (
                    ("read", "read_1m_mb_s"), ("write", "write_1m_mb_s"), ("IOPS", "random_4k_iops"))))
        return results

    def start_devbroker(self):
        """ms: from the CLI's start to device_connect, and from there to the guest's SET_CONFIGURATION."""
        begin = time.time()
        device = self.broker.cli("attach", "stick", "guest", "--wait")["device"]
        try:
            # since_usec is when it got configured; configure_usec lies between that and device_connect.
            connect = device["since_usec"] / 1e3 - device["configure_usec"] / 1e3 - begin * 1e3
            self.guest.wait_disk(self.serial)
            return {"connect_ms": connect, "broker_ms": device["connect_usec"] / 1e3,
                    "configure_ms": device["configure_usec"] / 1e3}
        finally:
            self.unplug_devbroker()

    def start_qemu(self):
        """ms from usb-storage's attach to its port to the guest's SET_CONFIGURATION."""
        at = self.trace.stat().st_size if self.trace.exists() else 0
        self.plug_qemu()
        self.unplug_qemu()
        with open(self.trace) as f:
            f.seek(at)
            text = f.read()
        times = {}
        for name in ("usb_port_attach", "usb_set_config"):
            found = re.search(r"@(\d+\.\d+):" + name, text)
            if not found:
                raise LabError(f"QEMU's trace does not show {name}: {text[:300]}")
            times[name] = float(found.group(1))
        return {"configure_ms": (times["usb_set_config"] - times["usb_port_attach"]) * 1e3}


def bare(build, image, rounds):
    """The worker and the limit, interleaved."""
    program, worker = build / "tests/benches/redir-bench", build / "usb/devbroker-usb"

    def run(*args):
        return json.loads(subprocess.run([program, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                         check=True, text=True, timeout=300).stdout)

    cells = []
    for mode, block, count in BARE_CELLS:
        cell = {"mode": mode, "block": block, "devbroker": [], "limit": []}
        for _ in range(rounds):
            cell["devbroker"].append(run(mode, worker, image, block, count))
            cell["limit"].append(run("limit", block, count))
        cells.append(cell)
    return {"cells": cells, "start": run("start", worker, image, STARTS)}


def ratio(rounds, key):
    return [r["devbroker"][key] / r["qemu"][key] for r in rounds]


GUEST_ROWS = (
    ("64 KiB reads, MB/s", "read_64k_mb_s"), ("1 MiB reads, MB/s", "read_1m_mb_s"),
    ("64 KiB writes, MB/s", "write_64k_mb_s"), ("1 MiB writes, MB/s", "write_1m_mb_s"),
    ("4 KiB random reads, IOPS", "random_4k_iops"), ("  p50, µs", "random_4k_p50_us"), ("  p99, µs", "random_4k_p99_us"),
    ("64 KiB reads, CPU s per GB", "read_64k_cpu_s_per_gb"), ("1 MiB reads, CPU s per GB", "read_1m_cpu_s_per_gb"),
    ("1 MiB writes, CPU s per GB", "write_1m_cpu_s_per_gb"))
WORKER_ROWS = (("of that the worker's: 64 KiB reads", "read_64k_worker_cpu_s_per_gb"),
               ("  1 MiB reads", "read_1m_worker_cpu_s_per_gb"), ("  1 MiB writes", "write_1m_worker_cpu_s_per_gb"))


def report_guest(rounds):
    say(f"\nThrough the guest, {len(rounds)} rounds, median (lowest–highest):")
    table(("", "devbroker", "usb-storage", "ratio"),
          [(title, show_spread([r["devbroker"][key] for r in rounds]), show_spread([r["qemu"][key] for r in rounds]),
            show_spread(ratio(rounds, key))) for title, key in GUEST_ROWS])
    for title, key in WORKER_ROWS:
        say(f"  {title}: {show_spread([r['devbroker'][key] for r in rounds])}")


def report_bare(cells):
    say("\nThe worker without QEMU, one command in flight; beside it a socket that passes a read's messages:")
    rows = []
    for c in cells:
        ours = [r["bytes"] * 1e3 / r["ns"] for r in c["devbroker"]]
        limit = [r["bytes"] * 1e3 / r["ns"] for r in c["limit"]]
        tail = [spread([r[k] / 1e3 for r in c[who]])[0] for k in ("p50_ns", "p99_ns") for who in ("devbroker", "limit")]
        rows.append((f"{c['mode']} {c['block'] // 1024} KiB, MB/s", show_spread(ours), show_spread(limit),
                     show_spread([a / b for a, b in zip(ours, limit)]), f"{number(tail[0])} ({number(tail[1])})",
                     f"{number(tail[2])} ({number(tail[3])})"))
    table(("", "devbroker-usb", "limit", "ratio", "p50, µs (limit)", "p99, µs (limit)"), rows)


def report_start(starts, peer):
    say(f"\nPlugging, ms ({len(starts)} times):")
    rows = []
    for title, values in (("CLI start to device_connect", [s["connect_ms"] for s in starts]),
                          ("  of that in the broker, from Attach", [s["broker_ms"] for s in starts]),
                          ("device_connect to configured", [s["configure_ms"] for s in starts]),
                          ("usb-storage: attach to configured", [p["configure_ms"] for p in peer])):
        rows.append((title, number(percentile(values, 50)), number(percentile(values, 99)), number(max(values))))
    table(("", "p50", "p99", "max"), rows)


def check_goals(data):
    say("\nGoals:")
    goals = Goals()
    start = data["bare"]["start"]
    goals.at_most("CLI start to device_connect, p99 of 50", percentile([s["connect_ms"] for s in data["starts"]], 99),
                  100, "ms")
    goals.at_most("worker start to hello, sandbox full, p50", start["p50_ns"] / 1e6, 20, "ms")
    goals.at_most("worker memory, RSS", start["rss_kib"], 4096, "KiB")
    return goals


def main():
    o = arguments("usb-disk")
    all_images = images.Images(runner.SOURCE / "build/lab", runner.SOURCE, say=say)
    accel = accelerator(all_images)
    lab = runner.Lab("bench", all_images)
    place = Path(tempfile.mkdtemp(prefix="bench-", dir=all_images.cache))
    data = {"schema": "devbroker.bench-usb-disk/1", "host": host(accel), "image_mib": IMAGE_MIB}
    try:
        image = place / "stick.img"
        with open(image, "wb") as f:
            for _ in range(IMAGE_MIB):
                f.write(os.urandom(MIB))
        b = Bench(lab, image)
        say(f"Through a guest ({accel}): devbroker / usb-storage")
        data["rounds"] = b.rounds(o.rounds)
        say(f"Plugging, {STARTS} times each")
        data["starts"], data["peer_starts"] = [], []
        for _ in range(STARTS):
            data["starts"].append(b.start_devbroker())
            data["peer_starts"].append(b.start_qemu())
        b.guest.kill()
        b.broker.cli("disk", "remove", "stick")
        say("Without QEMU")
        data["bare"] = bare(runner.build_dir(), image, o.rounds)
    finally:
        lab.close(keep=False)
        shutil.rmtree(place, ignore_errors=True)
    report_guest(data["rounds"])
    report_bare(data["bare"]["cells"])
    report_start(data["starts"], data["peer_starts"])
    finish(o, data, check_goals(data))


if __name__ == "__main__":
    main()
