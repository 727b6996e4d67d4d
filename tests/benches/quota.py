#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""tests/bench quota: what accounting, and a rate that doesn't bind, add to a USB transfer.

Accounting can't be switched off, so it is not measured by leaving it out: quota-bench repeats what the engine does for one
transfer, and the worker's CPU time for a transfer is taken while a guest reads a virtual disk, 4 KiB at a time. The ratio is
the share of the worker's own CPU time; of the time that a guest waits it is less.
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


def worker_ns():
    """CPU time of the worker for one transfer."""
    with usbredir.Worker() as w:
        stick = usbredir.Stick(w.sock).start().ready()
        pid = w.inner_pid()
        before = cpu_seconds(pid)
        for i in range(READS):
            assert stick.read(i % 200, 8) is not None
        return (cpu_seconds(pid) - before) * 1e9 / (3 * READS)


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
    if "--json" in sys.argv:
        Path(sys.argv[sys.argv.index("--json") + 1]).write_text(json.dumps(result))
    met = result["accounting_percent"] < GOAL
    print(f"accounting under {GOAL} %: {'met' if met else 'NOT MET'}")
    return 0 if met or "--check" not in sys.argv else 1


if __name__ == "__main__":
    sys.exit(main())
