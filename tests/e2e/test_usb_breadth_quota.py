#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The usb-breadth suite, rates: what a guest of a VM with a limit measures, beside one that runs free."""
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lab"))
import runner

MIB = 1 << 20
SMALL, LARGE = 4, 20  # MiB: what both take beside the reading is in neither's difference


def lend(lab, vm, name, mib):
    lab.broker.cli("disk", "add", lab.image(f"{name}.img", mib), "--name", name)
    device = lab.broker.cli("attach", name, vm.name, "--wait")["device"]
    return vm.wait_disk(device["serial"])


def seconds(vm, disk, mib):
    """By the guest's clock: the way of its console is in none of them."""
    # What was saved up since the last one is the same each time.
    out = vm.run(f"sleep 1; cat /proc/uptime; dd if=/dev/{disk} of=/dev/null bs=64k count={mib * 16} iflag=direct 2>/dev/null; "
                 "cat /proc/uptime", timeout=120).split()
    return float(out[2]) - float(out[0])


def rate(vm, disk):
    """MiB/s"""
    return (LARGE - SMALL) / (seconds(vm, disk, LARGE) - seconds(vm, disk, SMALL))


def test_bandwidth(lab):
    """a guest reads as fast as its VM may, within 5 %, also when that changes while it runs; the VM beside it runs free"""
    b = lab.start_broker()
    slow, free = lab.vm("slow"), lab.vm("free")
    slow_disk, free_disk = lend(lab, slow, "a", LARGE), lend(lab, free, "b", LARGE)
    free.run(f"while :; do dd if=/dev/{free_disk} of=/dev/null bs=64k iflag=direct 2>/dev/null && echo >>/tmp/rounds; done &")
    measured = []
    for limit in (4, 8):
        b.cli("quota", "set", "slow", f"usb.bandwidth={limit}M")
        got = rate(slow, slow_disk)
        measured.append(f"{got:.2f} of {limit} MiB/s ({(got / limit - 1) * 100:+.1f} %)")
        assert abs(got / limit - 1) <= 0.05, measured
    start, before = time.monotonic(), int(free.run("wc -l </tmp/rounds"))
    # With a limit beside it.
    seconds(slow, slow_disk, LARGE)
    beside = (int(free.run("wc -l </tmp/rounds")) - before) * LARGE / (time.monotonic() - start)
    assert beside > 12, f"the free VM: {beside:.1f} MiB/s"
    b.cli("quota", "set", "slow", "usb.bandwidth=none")
    unbound = LARGE / seconds(slow, slow_disk, LARGE)
    assert unbound > 9, f"without its limit: {unbound:.1f} MiB/s"
    lab.note(f"{', '.join(measured)}; without a limit {unbound:.1f}; the free VM beside it {beside:.1f} MiB/s")


if __name__ == "__main__":
    runner.main([sys.modules[__name__]])
