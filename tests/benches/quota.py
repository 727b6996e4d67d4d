#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""tests/bench quota: what accounting, and limits that don't bind, add to a USB transfer and to a GPU's command and frame.

Accounting can't be switched off, so it is not measured by leaving it out: quota-bench repeats what the engine does for one
transfer, and the worker's CPU time for a transfer is taken while a guest reads a virtual disk, 4 KiB at a time. The ratio is
the share of the worker's own CPU time; of the time that a guest waits it is less.

The same of a GPU: gpu-bench-quota repeats what the renderer does for one command. What the page that it shares with the broker costs is
taken through the simulated VM: renderers that are there at once, without a page, with one that bounds nothing, and with a share that
is granted each 10 ms and doesn't bind, in turn. What else the machine does only adds to a time, so of a side's rounds the quarter's
quantile counts; where a process's pages lie makes some per cent for as long as it is there, so all are started again several times, and
the median of those counts. A second renderer without a page, measured like the others, says what is left of noise.
"""
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(SOURCE / "tests/benches"), str(SOURCE / "tests/integration")]
from measure import cpu_seconds  # noqa: E402

BUILD = Path(os.environ.get("DEVBROKER_BUILD", SOURCE / "build"))
os.environ.setdefault("DEVBROKER_USB", str(BUILD / "usb/devbroker-usb"))
import usbredir  # noqa: E402

READS = 20000
GOAL = 2.0
GPU_STARTS = 9
GPU_ROUNDS = 24
GPU_SIDES = {"twin": "no page again (noise)", "unbounded": "a page that is unbounded", "bounded": "a page that is bounded"}


def worker_ns():
    """CPU time of the worker for one transfer."""
    with usbredir.Worker() as w:
        stick = usbredir.Stick(w.sock).start().ready()
        pid = w.inner_pid()
        before = cpu_seconds(pid)
        for i in range(READS):
            assert stick.read(i % 200, 8) is not None
        return (cpu_seconds(pid) - before) * 1e9 / (3 * READS)


def line_of(*argv):
    return subprocess.run([str(BUILD / "tests/benches/gpu-bench-quota"), *map(str, argv)], check=True, text=True, stdout=subprocess.PIPE,
                          env={**os.environ, "DEVBROKER_GPU": str(BUILD / "gpu/devbroker-gpu"), "GPU_CASE_QUIET": "1",
                               "GPU_PAGED_BACKEND": str(BUILD / "tests/gpu/paged-backend")}).stdout


def one_start(rounds):
    """By side and cell, what its rounds took."""
    lines = [json.loads(x) for x in line_of(rounds, BUILD / "gpu/devbroker-gpu", "--virgl").splitlines()]
    return {side: {cell: statistics.quantiles([x[cell] for x in lines if x["side"] == side], n=4)[0] for cell in lines[0] if cell != "side"}
            for side in ("alone", *GPU_SIDES)}


def gpu(starts):
    """The figures, and whether they are within the goal."""
    taken = [one_start(GPU_ROUNDS) for _ in range(starts)]
    alone = {cell: statistics.median(t["alone"][cell] for t in taken) for cell in taken[0]["alone"]}
    result = {"starts": starts, "rounds": GPU_ROUNDS, "alone": alone, "added_percent": {}}
    print(f"without a page: {1e6 / alone['command_us']:.0f} commands/s, {1e6 / alone['batched_us']:.0f} batched, "
          f"{alone['frame_us']:.0f} us a frame of 640x480, {alone['draw_us']:.0f} us a small one in 3D")
    met = True
    for side, shown in GPU_SIDES.items():
        added = {cell: 100 * (statistics.median(t[side][cell] / t["alone"][cell] for t in taken) - 1) for cell in alone}
        result["added_percent"][side] = added
        for cell in ("command", "batched", "frame", "draw"):
            held = added[f"{cell}_us"] < GOAL
            met = met and (held or side == "twin")
            print(f"  {shown}: {cell}: {added[cell + '_us']:+.2f} % of time" +
                  ("" if side == "twin" else " (met)" if held else " (NOT MET)") + f", {added[cell + '_cpu_us']:+.2f} % of CPU")
    spend = [json.loads(line_of("spend", 5000000)) for _ in range(3)]
    result["spend_ns"] = {k: statistics.median(x[k] for x in spend) for k in spend[0]}
    for k, ns in result["spend_ns"].items():
        percent = ns / 10 / alone["batched_cpu_us"]
        result[f"{k[:-3]}_percent"] = percent
        print(f"  counting, {k[:-3].replace('_', ' ')}: {ns:.1f} ns a command, {percent:.2f} % of what a batched one takes of the CPU, "
              f"{ns / 10 / alone['command_cpu_us']:.2f} % of one alone")
        met = met and percent < GOAL
    return result, met


def main():
    rounds = 3
    transfer = statistics.median(worker_ns() for _ in range(rounds))
    costs = [tuple(map(int, subprocess.run([str(BUILD / "tests/benches/quota-bench"), "2000000"], check=True, text=True,
                                           stdout=subprocess.PIPE).stdout.split())) for _ in range(rounds)]
    account, pace = (statistics.median(c[i] for c in costs) for i in (0, 1))
    result = {"transfer_cpu_ns": transfer, "accounting_ns": account, "rate_ns": pace,
              "accounting_percent": 100 * account / transfer, "rate_percent": 100 * pace / transfer}
    print(f"a transfer costs the worker {transfer:.0f} ns; accounting {account:.0f} ns of them "
          f"({result['accounting_percent']:.2f} %), a rate that doesn't bind {pace:.0f} ns ({result['rate_percent']:.2f} %)")
    result["gpu"], gpu_met = gpu(GPU_STARTS)
    if "--json" in sys.argv:
        Path(sys.argv[sys.argv.index("--json") + 1]).write_text(json.dumps(result))
    met = result["accounting_percent"] < GOAL
    print(f"accounting under {GOAL} %: {'met' if met else 'NOT MET'}")
    print(f"a GPU's accounting and share under {GOAL} %: {'met' if gpu_met else 'NOT MET'}")
    return 0 if (met and gpu_met) or "--check" not in sys.argv else 1


if __name__ == "__main__":
    sys.exit(main())
