#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""tests/bench usb-host: a stick of a real kernel, lent by our worker and by usbredirect, to the same guest, over TCP.

The host is a VM (a real kernel with usbfs), the guest another one beside it; the stick is QEMU's, plugged into the host. In each
round both programs, started by hand, lend the same stick to the same guest over the same kind of connection, one after
the other; which goes first changes from round to round. Medians of the rounds with the lowest and highest are
printed, and the ratio of each round's pair (its median). Both VMs run under the same accelerator on the same CPUs, so under TCG
only the ratios say something: most of the time goes by in emulation that is the same for both.

CPU time is that of the program alone, in the host VM's kernel's ticks (10 ms); attach time is from starting the program to the
guest's disk.
"""
import json
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "lab"), str(Path(__file__).resolve().parent)]
import images
import runner
from guest import accelerator
from measure import Goals, arguments, finish, host, number, show_spread, spread, table

MIB = 1 << 20
IMAGE_MIB = 64
WAYS = {"devbroker": ("by_hand", "end_by_hand", "devbroker-usb"),
        "usbredirect": ("usbredirect", "end_usbredirect", "usbredirect")}
# name → (title, mode, block, count)
CELLS = {"read_4k": ("4 KiB reads", "read", 4096, 400), "read_64k": ("64 KiB reads", "read", 65536, 160),
         "read_1m": ("1 MiB reads", "read", MIB, 16), "random_4k": ("4 KiB random reads", "random", 4096, 300),
         "write_4k": ("4 KiB writes", "write", 4096, 300), "write_64k": ("64 KiB writes", "write", 65536, 120),
         "write_1m": ("1 MiB writes", "write", MIB, 12)}
SERIAL = "benchstick"


def say(text):
    print(text, flush=True)


def measure(h, g, way, seed):
    """One way, one round."""
    plug, unplug, program = WAYS[way]
    begin = time.monotonic()
    getattr(h, plug)(SERIAL, g)
    disk = g.wait_disk(SERIAL)
    out = {"attach_ms": (time.monotonic() - begin) * 1e3}
    try:
        for name, (_, mode, block, count) in CELLS.items():
            before = h.cpu_ms(program)
            c = json.loads(g.run(f"blockio {mode} /dev/{disk} {block} {count} {seed}", timeout=300).splitlines()[-1])
            used = (h.cpu_ms(program) - before) / 1e3
            out[f"{name}_mb_s"] = c["bytes"] * 1e3 / c["ns"]
            out[f"{name}_p50_us"], out[f"{name}_p99_us"] = c["p50_ns"] / 1e3, c["p99_ns"] / 1e3
            out[f"{name}_cpu_s_per_gb"] = used * 1e9 / c["bytes"]
        before = h.cpu_ms(program)
        time.sleep(1)
        out["idle_cpu_ms_per_s"] = h.cpu_ms(program) - before
    finally:
        getattr(h, unplug)(SERIAL, g)
    return out


def run_rounds(h, g, n):
    results = []
    # Not counted: translation caches, first touch.
    for way in WAYS:
        measure(h, g, way, 1)
    for i in range(n):
        order = list(WAYS) if i % 2 == 0 else list(reversed(WAYS))
        one = {way: measure(h, g, way, 12345 + i) for way in order}
        results.append({way: one[way] for way in WAYS})
        say(f"  round {i + 1}/{n}: " + ", ".join(
            f"{CELLS[c][0]} {number(one['devbroker'][c + '_mb_s'])} / {number(one['usbredirect'][c + '_mb_s'])} MB/s"
            for c in ("read_64k", "write_64k")))
    return results


def column(rounds, way, key):
    return [r[way][key] for r in rounds]


def ratio(rounds, key):
    return [r["devbroker"][key] / r["usbredirect"][key] if r["usbredirect"][key] else 1.0 for r in rounds]


def rows():
    for name, (title, *_) in CELLS.items():
        yield f"{title}, MB/s", f"{name}_mb_s"
        yield "  p50, µs", f"{name}_p50_us"
        yield "  p99, µs", f"{name}_p99_us"
        yield "  CPU s per GB", f"{name}_cpu_s_per_gb"
    yield "attach to the guest's disk, ms", "attach_ms"
    yield "idle, CPU ms per s", "idle_cpu_ms_per_s"


def report(rounds):
    say(f"\nThe same stick, {len(rounds)} rounds, median (lowest–highest):")
    table(("", "devbroker-usb", "usbredirect", "ratio"),
          [(title, show_spread(column(rounds, "devbroker", key)), show_spread(column(rounds, "usbredirect", key)),
            show_spread(ratio(rounds, key))) for title, key in rows()])


def check_goals(rounds):
    say("\nGoals: ahead of usbredirect in every cell (ratio of medians of pairs)")
    goals = Goals()
    for title, key in rows():
        title = f"{key}: {title.strip()}"
        if key.endswith("_mb_s"):
            goals.at_least(title, spread(ratio(rounds, key))[0], 1, "times")
        elif key != "idle_cpu_ms_per_s":
            goals.at_most(title, spread(ratio(rounds, key))[0], 1, "times")
    goals.at_most("idle CPU", spread(column(rounds, "devbroker", "idle_cpu_ms_per_s"))[0], 0, "ms per s")
    return goals


def main():
    o = arguments("usb-host")
    all_images = images.Images(runner.SOURCE / "build/lab", runner.SOURCE, say=say)
    accel = accelerator(all_images)
    lab = runner.Lab("bench", all_images)
    data = {"schema": "devbroker.bench-usb-host/1", "host": host(accel), "image_mib": IMAGE_MIB}
    try:
        h = lab.host()
        g = lab.guest()
        h.plug("storage", SERIAL, image=lab.image(mib=IMAGE_MIB))
        h.wait_drivers(SERIAL, ["usb-storage"])
        say(f"A host and a guest ({accel}): devbroker-usb / usbredirect")
        data["rounds"] = run_rounds(h, g, o.rounds)
    finally:
        lab.close(keep=False)
    report(data["rounds"])
    finish(o, data, check_goals(data["rounds"]))


if __name__ == "__main__":
    main()
