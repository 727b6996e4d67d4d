#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""tests/bench policy: what a decision costs with 10 to 10,000 rules, about 1,000 devices, and how that grows.

Two kinds of policy. "named": every rule names its device (ids and serial number), as an administrator's list of devices
does. "mixed": one in ten is about patterns (a maker's name, a serial number's beginning, a class and a port), which have
to be compared with every device. Half of the devices are named by some rule when there are enough rules; none of the
others matches any. "All lines" is what the same program takes without its index, as for `devbroker explain`; both must decide
the same. Each round is a process of its own.
"""
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from measure import Goals, arguments, finish, host, show_spread, spread, table  # noqa: E402

BUILD = Path(os.environ.get("DEVBROKER_BUILD", Path(__file__).resolve().parents[2] / "build"))
RULES = (10, 100, 1000, 10000)
DEVICES = 1000
# A file of configuration has at most 64 KiB.
PER_FILE = 400
PATTERNS = ('vendor="Acme *" product="*printer*"', "serial=ZZ%05d*", "class=printer,video port=0000:00:1a.*",
            "udev.ID_MODEL=x%d*", "class=hid !classes-within=hid removable=fixed")


def rule(kind, i):
    if kind == "mixed" and i % 10 == 9:
        pattern = PATTERNS[i // 10 % len(PATTERNS)]
        return f"[rule p{i}]\nMatch={pattern % i if '%' in pattern else pattern}\nAction=deny\n"
    # Devices with odd numbers are named (policy-bench.c).
    n = 2 * i + 1
    return f"[rule d{i}]\nMatch=id={0x1000 + n % 97:04x}:{n % 1009:04x} serial=S{n:06d}\nAction=attach vm{i % 200}\n"


def write_rules(root, kind, n):
    folder = root / f"{kind}-{n}" / "policy.d"
    folder.mkdir(parents=True)
    for at in range(0, n, PER_FILE):
        (folder / f"{at:06d}.conf").write_text("".join(rule(kind, i) for i in range(at, min(at + PER_FILE, n))))
    return folder.parent


def measure(folder):
    out = subprocess.run([BUILD / "tests/benches/policy-bench", folder, str(DEVICES)], check=True, stdout=subprocess.PIPE)
    return json.loads(out.stdout)


def main():
    o = arguments("policy")
    data = {"schema": "devbroker.bench-policy/1", "host": host("none"), "devices": DEVICES, "rounds": []}
    cells = [(kind, n) for kind in ("named", "mixed") for n in RULES]
    with tempfile.TemporaryDirectory(prefix="db-policy-") as d:
        folders = {cell: write_rules(Path(d), *cell) for cell in cells}
        for _ in range(o.rounds):
            data["rounds"].append({f"{kind}-{n}": measure(folders[kind, n]) for kind, n in cells})

    def column(kind, n, key, unit):
        return [r[f"{kind}-{n}"][key] / unit for r in data["rounds"]]

    print(f"{DEVICES} devices, {o.rounds} rounds, median (lowest–highest):")
    table(("rules", "decision, p50, ns", "p99, ns", "all devices, ms", "all lines: p50, µs", "all devices, ms", "reading, ms"),
          [(f"{kind} {n}", *(show_spread(column(kind, n, key, unit)) for key, unit in (
              ("p50", 1), ("p99", 1), ("all", 1e6), ("linear_p50", 1e3), ("linear_all", 1e6), ("load", 1e6))))
           for kind, n in cells])
    print("\nGoals")
    goals = Goals()
    goals.at_most("named: a decision with 10,000 rules, beside one with 10",
                  spread([a / b for a, b in zip(column("named", 10000, "p50", 1), column("named", 10, "p50", 1))])[0], 5,
                  "times")
    for kind in ("named", "mixed"):
        goals.at_most(f"{kind}: all devices with 10,000 rules", spread(column(kind, 10000, "all", 1e6))[0], 100, "ms")
    finish(o, data, goals)


if __name__ == "__main__":
    main()
