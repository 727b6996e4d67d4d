#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""tests/bench hotplug: from the kernel's event about a device that is plugged in to the guest that uses it.

The host is a VM (a real kernel with udevd), the guest another one beside it; a stick of dummy_hcd is plugged in over and
over, and a rule sends it to the guest. Times are those of the host VM's clock: the kernel's uevent "add" as a program
beside the broker hears it; the broker's decision, which comes when udevd is through with its rules; usbredir's
device_connect as the worker writes it; "configured" as the broker hears that the guest has chosen a configuration. Between
the last two lies the guest's own kernel. Under TCG everything is emulated: these are no times of a machine.
"""
import json
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "lab"), str(Path(__file__).resolve().parent)]
import gadgets
import images
import runner
from guest import LabError, accelerator
from measure import Goals, arguments, finish, host, number, percentile, show_spread, table

UDC = f"{gadgets.CONFIGFS}/stick/UDC"
RULES = {"policy.d/50-bench.conf": "[rule bench]\nMatch=serial=stick\nAction=attach guest\n"}
# What is measured: title, from, to.
STEPS = (("uevent to decision (udevd)", "add", "decided"), ("decision to device_connect", "decided", "connect"),
         ("uevent to device_connect", "add", "connect"), ("device_connect to configured (guest)", "connect", "configured"),
         ("uevent to configured", "add", "configured"))


def plug(h):
    """Pulls the stick and plugs it in again; returns when the broker has said "configured" once more."""
    h.run(f"echo '' >{UDC}; i=0; until tail -n 1 /tmp/watch | grep -q '\"event\":\"removed\"'; do usleep 50000; i=$((i + 1)); "
          "[ $i -lt 400 ] || exit 1; done; sleep 1; "
          f"echo dummy_udc.0 >{UDC}; i=0; until tail -n 1 /tmp/watch | grep -q '\"state\":\"configured\"'; do usleep 50000; "
          "i=$((i + 1)); [ $i -lt 600 ] || exit 1; done", timeout=120)


def times(h):
    """A list of one {what: µs} for each plug."""
    adds = [int(line.split()[0]) for line in h.run("cat /tmp/uevents").splitlines()
            if line.split()[1:2] == ["add"] and "/dummy_hcd.0/" in line]
    out, one = [], None
    for line in h.run("cat /tmp/watch", timeout=120).splitlines():
        event = json.loads(line)
        values = event["values"]
        if event["kind"] != "device" or "since_usec" not in values:
            continue
        state = values.get("state")
        if state == "decided":
            before = [t for t in adds if t <= values["since_usec"]]
            one = {"add": before[-1], "decided": values["since_usec"]} if before else None
        elif state == "attached" and one:
            one["connect"] = one["decided"] + values["connect_usec"]
        elif state == "configured" and one:
            one["configured"] = values["since_usec"]
            out.append(one)
            one = None
    return out


def main():
    o = arguments("hotplug", rounds=(100, "plugs"))
    all_images = images.Images(runner.SOURCE / "build/lab", runner.SOURCE, say=lambda s: print(s, flush=True))
    accel = accelerator(all_images)
    data = {"schema": "devbroker.bench-hotplug/1", "host": host(accel)}
    lab = runner.Lab("bench", all_images)
    try:
        h = lab.host()
        b = lab.start_broker(RULES)
        lab.vm()
        h.run("uevent-times >/tmp/uevents 2>&1 & devbroker --run-dir /run/devbroker watch --json >/tmp/watch 2>&1 & "
              "until grep -q ready /tmp/uevents && [ -s /tmp/watch ]; do usleep 50000; done", timeout=30)
        gadgets.mass_storage(h, "stick", mib=1)
        b.wait_state(next(d["name"] for d in b.cli("list")["devices"] if d["serial"] == "stick"), "configured")
        for i in range(o.rounds):
            plug(h)
            if i % 10 == 9:
                print(f"  {i + 1}/{o.rounds}", flush=True)
        # The first brought code into memory.
        plugs = times(h)[1:]
        if len(plugs) != o.rounds:
            raise LabError(f"{len(plugs)} of {o.rounds} plugs were seen")
    finally:
        lab.close(keep=False)
    data["plugs_usec"] = [{k: p[k] - p["add"] for k in p} for p in plugs]
    print(f"\n{o.rounds} plugs ({accel}), ms:")
    columns = {title: [(p[to] - p[begin]) / 1e3 for p in plugs] for title, begin, to in STEPS}
    table(("", "median (lowest–highest)", "p99"),
          [(title, show_spread(v), number(percentile(v, 99))) for title, v in columns.items()])
    finish(o, data, Goals())


if __name__ == "__main__":
    main()
