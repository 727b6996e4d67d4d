#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""tests/bench usb-disk: our stick against QEMU's own usb-storage, in one guest, on one image, in one run.

Rounds alternate (ours, theirs, ours, …); medians and spreads are printed, raw figures go to --json. Under TCG the ratios
count, the absolute figures don't.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lab"))
import images
import runner
from guest import accelerator

GOALS = [
    # name, value from the report, bound, what it says
    ("CLI start to device_connect written, p99", "connect_p99_ms", 100, "ms"),
    ("worker start, sandboxed, p50", "start_p50_ms", 20, "ms"),
    ("worker RSS", "rss_mib", 4, "MiB"),
]
TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(*pids):
    total = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def blockio(guest, mode, disk, block, count):
    return json.loads(guest.run(f"blockio {mode} /dev/{disk} {block} {count}", timeout=300).splitlines()[-1])


class Ours:
    name = "devbroker"

    def __init__(self, lab, guest):
        self.lab, self.guest = lab, guest

    def plug(self):
        b = self.lab.broker
        self.guest.forget_dmesg()
        start = time.monotonic()
        b.cli("attach", "stick", self.guest.name)
        called = time.monotonic() - start
        took = self.guest.wait_dmesg("Attached SCSI removable disk", 30) + called
        d = b.device("disk:stick")
        self.pids = [d["worker_pid"]]
        # An upper bound: the attach itself began at some time within the CLI's run.
        return {"usable_s": took, "connect_s": called + d["connect_usec"] / 1e6, "configure_s": d["configure_usec"] / 1e6}

    def unplug(self):
        self.lab.broker.cli("detach", "stick")


class Theirs:
    name = "usb-storage"
    pids = []

    def __init__(self, lab, guest, image):
        self.guest, self.image = guest, image

    def plug(self):
        q = self.guest.qmp
        self.guest.forget_dmesg()
        start = time.monotonic()
        q.call("blockdev-add", node_name="bench", driver="raw",
               file={"driver": "file", "filename": str(self.image)})
        q.call("device_add", driver="usb-storage", id="bench", drive="bench", bus="xhci.0", removable=True)
        called = time.monotonic() - start
        return {"usable_s": self.guest.wait_dmesg("Attached SCSI removable disk", 30) + called}

    def unplug(self):
        q = self.guest.qmp
        q.call("device_del", id="bench")
        # The scsi-disk inside says DEVICE_DELETED too.
        while q.wait_event("DEVICE_DELETED", 20)["data"].get("device") != "bench":
            pass
        q.call("blockdev-del", node_name="bench")


def round_of(side, guest, sizes):
    """One plug, the measurements, one unplug."""
    out = side.plug()
    disk = guest.wait_disk()
    pids = [guest.process.pid, *side.pids]
    for key, mode, block, count in sizes:
        before = cpu_seconds(*pids)
        r = blockio(guest, mode, disk, block, count)
        cpu = cpu_seconds(*pids) - before
        out[f"{key}_MBps"] = r["bytes"] / r["ns"] * 1000
        out[f"{key}_cpu_s_per_GB"] = cpu / r["bytes"] * 1e9
        if mode == "random":
            out[f"{key}_iops"] = count / r["ns"] * 1e9
            out[f"{key}_p50_us"] = r["p50_ns"] / 1000
            out[f"{key}_p99_us"] = r["p99_ns"] / 1000
    side.unplug()
    return out


def bare(build, image, rounds):
    """Without QEMU: the worker, and the limit of the socket, alternating."""
    program = build / "tests/benches/redir-bench"
    worker = build / "usb/devbroker-usb"
    cells = [("read", 4096, 4000), ("read", 65536, 4000), ("read", 1 << 20, 1000), ("write", 65536, 2000),
             ("random", 4096, 10000)]
    out = []

    def run(*args):
        return json.loads(subprocess.run([program, *map(str, args)], check=True, stdout=subprocess.PIPE).stdout)

    for mode, block, count in cells:
        ours, limit = [], []
        for _ in range(rounds):
            ours.append(run(mode, worker, image, block, count))
            limit.append(run("limit", block, count))
        out.append({"mode": mode, "block": block, "devbroker": ours, "limit": limit})
    return out, run("start", worker, image, 50)


def median(values):
    return statistics.median(values)


def spread(values):
    return f"{median(values):9.1f} ({min(values):.1f}-{max(values):.1f})"


def print_guest(report):
    print(f"\nThrough a guest ({report['accelerator']}), {report['rounds']} rounds; median (lowest-highest)")
    print(f"{'':24}{'devbroker':>26}{'usb-storage':>26}   ratio")
    for key in report["guest"]["devbroker"][0]:
        ours = [r[key] for r in report["guest"]["devbroker"]]
        theirs = [r[key] for r in report["guest"]["usb-storage"] if key in r]
        if key.endswith("_s"):
            ours, theirs = [v * 1000 for v in ours], [v * 1000 for v in theirs]
        label = key[:-2] + "_ms" if key.endswith("_s") else key
        line = f"{label:24}{spread(ours):>26}"
        if theirs:
            ratio = median(ours) / median(theirs) if median(theirs) else float("nan")
            line += f"{spread(theirs):>26}   {ratio:.2f}"
        print(line)


def print_bare(report):
    print("\nWithout QEMU, one command in flight; MB/s, median; the limit passes the same messages and does nothing else")
    print(f"{'':16}{'devbroker':>12}{'limit':>12}   ratio   p50 us (limit)   p99 us (limit)   worker+peer CPU s/GB")
    for cell in report["bare"]:
        def rate(rs):
            return median([r["bytes"] / r["ns"] * 1000 for r in rs])
        ours, limit = cell["devbroker"], cell["limit"]
        p = {k: (median([r[k] for r in ours]) / 1000, median([r[k] for r in limit]) / 1000) for k in ("p50_ns", "p99_ns")}
        cpu = median([r["cpu_s"] / r["bytes"] * 1e9 for r in ours])
        print(f"{cell['mode'] + ' ' + str(cell['block']):16}{rate(ours):12.0f}{rate(limit):12.0f}"
              f"   {rate(ours) / rate(limit):.2f}    {p['p50_ns'][0]:6.1f} ({p['p50_ns'][1]:.1f})"
              f"    {p['p99_ns'][0]:6.1f} ({p['p99_ns'][1]:.1f})    {cpu:.2f}")


def connect_times(lab, guest, n=50):
    out = []
    for _ in range(n):
        out.append(Ours(lab, guest).plug()["connect_s"])
        lab.broker.cli("detach", "stick")
    return sorted(out)


def measure(args):
    all_images = images.Images(runner.SOURCE / "build/lab", runner.SOURCE)
    lab = runner.Lab("bench", all_images)
    report = {"schema": "devbroker.bench-usb-disk/1", "rounds": args.rounds, "accelerator": accelerator(all_images),
              "cpus": os.cpu_count(), "kernel": os.uname().release, "guest": {"devbroker": [], "usb-storage": []}}
    try:
        lab.start_broker()
        guest = lab.vm()
        image = lab.image("stick.img", 128)
        lab.broker.cli("disk", "add", image)
        sizes = [("read_64k", "read", 65536, 512), ("read_1m", "read", 1 << 20, 96), ("write_64k", "write", 65536, 256),
                 ("random_4k", "random", 4096, 1500)]
        sides = [Ours(lab, guest), Theirs(lab, guest, image)]
        for i in range(args.rounds):
            for side in sides:
                print(f"  round {i + 1} of {args.rounds}: {side.name}   ", end="\r", flush=True)
                report["guest"][side.name].append(round_of(side, guest, sizes))
        print("  50 attaches                              ", end="\r", flush=True)
        report["connect_s"] = connect_times(lab, guest)
        lab.broker.cli("disk", "remove", "stick")
        print("  without QEMU                             ", end="\r", flush=True)
        report["bare"], report["start"] = bare(runner.build_dir(), image, args.rounds)
    finally:
        lab.close(keep=False)
    return report


def main():
    parser = argparse.ArgumentParser(prog="tests/bench usb-disk")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--check", action="store_true", help="exit 1 where a goal is missed")
    args = parser.parse_args()
    report = measure(args)
    c = report["connect_s"]
    report["connect_p99_ms"] = c[len(c) * 99 // 100] * 1000
    report["start_p50_ms"] = report["start"]["p50_ns"] / 1e6
    report["rss_mib"] = report["start"]["rss_kib"] / 1024
    print_guest(report)
    print_bare(report)
    print(f"\nCLI start to device_connect written (upper bound, {len(c)} times): p50 {median(c) * 1000:.1f} ms, "
          f"p99 {report['connect_p99_ms']:.1f} ms")
    print(f"Worker start, sandboxed, spawn to hello (50 times): p50 {report['start_p50_ms']:.1f} ms, "
          f"p99 {report['start']['p99_ns'] / 1e6:.1f} ms; RSS {report['rss_mib']:.1f} MiB")
    if args.json:
        Path(args.json).write_text(json.dumps(report, indent=1) + "\n")
    missed = [g for g in GOALS if report[g[1]] > g[2]]
    for name, key, bound, unit in GOALS:
        print(f"{'MISSED' if report[key] > bound else 'ok    '} {name}: {report[key]:.1f} {unit}, at most {bound}")
    sys.exit(1 if args.check and missed else 0)


if __name__ == "__main__":
    main()
