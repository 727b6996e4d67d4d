# SPDX-License-Identifier: MIT
"""What benches share: medians with their spread, CPU time of processes, goals, a table, the raw JSON."""
import argparse
import json
import os
import platform
import statistics
import subprocess
import sys

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid):
    """User and system time of a process with all its threads, those that ended too."""
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def percentile(values, p):
    """The nearest-rank percentile: of 50 values the 99th is the largest."""
    ranked = sorted(values)
    return ranked[max(0, -(-len(ranked) * p // 100) - 1)]


def spread(values):
    """(median, lowest, highest)"""
    return statistics.median(values), min(values), max(values)


def number(x):
    return f"{x:.0f}" if abs(x) >= 100 else f"{x:.1f}" if abs(x) >= 10 else f"{x:.2f}"


def show_spread(values):
    median, low, high = spread(values)
    return f"{number(median)} ({number(low)}–{number(high)})"


def table(head, rows):
    """Prints rows of text under head, in columns."""
    rows = [head, *rows]
    widths = [max(len(str(r[i])) for r in rows) for i in range(len(head))]
    for r in rows:
        print("  " + "  ".join(str(c).ljust(w) if i == 0 else str(c).rjust(w)
                               for i, (c, w) in enumerate(zip(r, widths))), flush=True)


def host(accel):
    def first_line(*argv):
        return subprocess.run(argv, stdout=subprocess.PIPE, text=True).stdout.splitlines()[0]

    model = ""
    with open("/proc/cpuinfo") as f:
        for line in f:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return {"cpu": model, "cores": os.cpu_count(), "kernel": platform.release(), "accelerator": accel,
            "qemu": first_line("qemu-system-x86_64", "--version")}


class Goals:
    """What must hold. Each is printed with what was found."""

    def __init__(self):
        self.all = []

    def at_most(self, what, found, limit, unit):
        held = found <= limit
        self.all.append({"what": what, "found": found, "at_most": limit, "unit": unit, "held": held})
        print(f"  {'held  ' if held else 'MISSED'}  {what}: {number(found)} {unit}, at most {limit:g}", flush=True)

    def at_least(self, what, found, limit, unit):
        held = found >= limit
        self.all.append({"what": what, "found": found, "at_least": limit, "unit": unit, "held": held})
        print(f"  {'held  ' if held else 'MISSED'}  {what}: {number(found)} {unit}, at least {limit:g}", flush=True)

    def held(self):
        return all(g["held"] for g in self.all)


def write_json(path, data):
    with open(path, "w") as f:
        json.dump(data, f, indent=1)
        f.write("\n")
    print(f"\nRaw numbers: {path}", flush=True)


def arguments(bench, **numbers):
    """What every bench takes, and its own numbers: name=(default, help)."""
    parser = argparse.ArgumentParser(prog=f"tests/bench {bench}")
    parser.add_argument("--json", metavar="FILE", help="write the raw numbers there")
    parser.add_argument("--check", action="store_true", help="exit 1 where a goal is missed")
    numbers = {"rounds": (7, None), **numbers}
    for name, (default, text) in numbers.items():
        parser.add_argument("--" + name.replace("_", "-"), type=int, default=default, help=text)
    o = parser.parse_args()
    if any(getattr(o, name) < 1 for name in numbers):
        parser.error(" and ".join("--" + name.replace("_", "-") for name in numbers) + " must be at least 1")
    return o


def finish(o, data, goals):
    """Keeps the numbers where that was asked for, and ends as --check wants it."""
    data["goals"] = goals.all
    if o.json:
        write_json(o.json, data)
    sys.exit(0 if goals.held() or not o.check else 1)
