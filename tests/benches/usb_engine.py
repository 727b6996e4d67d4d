#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""tests/bench usb-engine: our worker by hand and usbredirect, both over the same stub libusb, and the bare socket.

The device is made up (stub-libusb.c): its transfers complete at once, so that what is measured is the software between
a guest's stream and libusb. The guest's side is one program (engine-bench) for all: bulk in and out at several sizes and
depths, control at depth 1. In each round every cell is measured with one target right after the other (the others are
stopped meanwhile), usbredirect first in even rounds and last in odd ones; a ratio is that of a round's pair, and its median
is printed. Everything is done twice: with the processes where the kernel puts them, and with all of them on one CPU. The
second is the fair one: usbredirect never sleeps, which costs its guest nothing as long as there is another CPU.

Limit: a process that answers messages of the same sizes over the same kind of socket and does nothing else. Floor: it
makes the system calls, too, that an event loop has to make between a socket and the stub libusb.
"""
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(SOURCE / "tests/benches"))
from measure import Goals, arguments, finish, host, number, show_spread, spread, table  # noqa: E402

BUILD = Path(os.environ.get("DEVBROKER_BUILD", SOURCE / "build"))
STUB = BUILD / "tests/benches/libusb-1.0.so.0"
BENCH = BUILD / "tests/benches/engine-bench"
WORKER = BUILD / "usb/devbroker-usb"
SIZES = (64, 1024, 4096, 16384, 65536, 262144, 1048576)
DEPTHS = (1, 4, 16)
CELLS = [*((m, s, d) for m in ("in", "out") for d in DEPTHS for s in SIZES), ("control", 18, 1)]
IDLE = ("idle", 0, 0)
IDLE_MS = 1000
CALLS_CELLS = (("in", 64, 1), ("in", 64, 16), ("out", 65536, 1))
SERVED = ("usbredirect", "ours-tcp", "ours-unix")
TARGETS = (*SERVED, "limit-tcp", "limit-unix", "floor-tcp", "floor-unix")
PLACES = ("one-cpu", "unpinned")
MIB = 1 << 20
# Transfers whose system calls are counted: the difference of two runs, so that starting doesn't count.
FEW, MANY = 100, 2100


def say(text):
    print(text, flush=True)


def pin(place):
    """For the child between fork and exec."""
    cpu = min(os.sched_getaffinity(0))
    return (lambda: os.sched_setaffinity(0, {cpu})) if place == "one-cpu" else None


def tcp_listener():
    return socket.create_server(("127.0.0.1", 0))


def stub_environment(options=""):
    return dict(os.environ, LD_PRELOAD=str(STUB), STUB_LIBUSB=options)


class Target:
    """A process that serves the stub's device, and the guest's end of its stream."""

    def __init__(self, name, place, wrap=()):
        self.name = name
        {"usbredirect": self.start_usbredirect, "ours-tcp": self.start_tcp, "ours-unix": self.start_unix}[name](place, wrap)

    def popen(self, place, wrap, argv, fds=()):
        # Under strace only the traced program is to have the stub.
        env = stub_environment() if not wrap else None
        if wrap:
            wrap = [*wrap, f"--env=LD_PRELOAD={STUB}"]
        self.process = subprocess.Popen([*wrap, *argv], env=env, pass_fds=fds, preexec_fn=pin(place),
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def start_usbredirect(self, place, wrap):
        with tcp_listener() as listener:
            listener.settimeout(20)
            port = listener.getsockname()[1]
            self.popen(place, wrap, ["usbredirect", "--device", "1209:0001", "--to", f"127.0.0.1:{port}"])
            self.stream, _ = listener.accept()
        self.stream.settimeout(None)
        self.stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def start_worker(self, place, wrap, stream):
        device = os.open("/dev/null", os.O_RDWR)
        os.set_inheritable(device, True)
        self.popen(place, wrap, [WORKER, f"--device-fd={device}", f"--stream-fd={stream.fileno()}", "--sandbox=off",
                                 "--max-bytes=32M", "--log-level=error"], (device, stream.fileno()))
        os.close(device)
        stream.close()

    def start_tcp(self, place, wrap):
        with tcp_listener() as listener:
            theirs = socket.create_connection(listener.getsockname())
            self.stream, _ = listener.accept()
        self.stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.start_worker(place, wrap, theirs)

    def start_unix(self, place, wrap):
        self.stream, theirs = socket.socketpair()
        self.start_worker(place, wrap, theirs)

    def close(self):
        self.stream.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def cell_name(cell):
    return ":".join(map(str, cell))


def run(names, place, ms, count=0, cells=tuple(CELLS), wrap=()):
    """{target: {"attach_ns", "rss_kib", "peak_kib", "cells": {name: result}}}, cell by cell one target after the other."""
    targets, args = [], []
    found = {name: {"cells": {}} for name in names}
    try:
        for name in names:
            if name.split("-")[0] in ("limit", "floor"):
                args.append(f"{name}={name.replace('-', ':')}")
            else:
                targets.append(Target(name, place, wrap))
                args.append(f"{name}={targets[-1].stream.fileno()}:{targets[-1].process.pid}")
        done = subprocess.run([BENCH, str(ms), str(count), *args, "--", *map(cell_name, cells)], stdout=subprocess.PIPE,
                              check=True, text=True, pass_fds=[t.stream.fileno() for t in targets],
                              preexec_fn=pin(place), timeout=600)
    finally:
        for t in targets:
            t.close()
    for line in map(json.loads, done.stdout.splitlines()):
        target = found[line.pop("target")]
        if "mode" in line:
            target["cells"][cell_name((line.pop("mode"), line.pop("size"), line.pop("depth")))] = line
        else:
            target.update(line)
    return found


def idle(name):
    """The share of a CPU that it uses while the guest wants nothing."""
    result = run([name], "one-cpu", IDLE_MS, cells=[IDLE])[name]["cells"][cell_name(IDLE)]
    return result["cpu_s"] * 1e9 / result["ns"]


def system_calls(name, cell):
    """Per transfer, with strace's help, which makes everything slow: a program that spins spins more."""
    calls = []
    for count in (FEW, MANY):
        with tempfile.NamedTemporaryFile("r") as summary:
            run([name], "one-cpu", 0, count, (cell,), ("strace", "-f", "-c", "-o", summary.name))
            total = re.search(r"^\s*100\.00\s+\S+\s+\S+\s+(\d+)", summary.read(), re.M)
        calls.append(int(total.group(1)))
    return (calls[1] - calls[0]) / (MANY - FEW)


def measure(rounds, ms):
    data = {"rounds": [], "idle": {}, "system_calls": {}}
    for i in range(rounds):
        order = TARGETS if i % 2 == 0 else TARGETS[::-1]
        data["rounds"].append({place: run(order, place, ms) for place in PLACES})
        say(f"Round {i + 1} of {rounds}")
    for name in SERVED:
        data["idle"][name] = idle(name)
        data["system_calls"][name] = {cell_name(c): system_calls(name, c) for c in CALLS_CELLS}
    return data


class Numbers:
    """The rounds of one placement."""

    def __init__(self, rounds, place):
        self.place = place
        self.rounds = [r[place] for r in rounds]

    def per_round(self, target, cell, f):
        return [f(r[target]["cells"][cell_name(cell)]) for r in self.rounds]

    def rate(self, target, cell):
        """Transfers per second. On one CPU both ends' CPU time is what a transfer takes when nobody else is there; other
        processes of the machine don't count."""
        if self.place == "one-cpu":
            return self.per_round(target, cell, lambda c: c["n"] / (c["cpu_s"] + c["guest_cpu_s"]))
        return self.per_round(target, cell, lambda c: c["n"] * 1e9 / c["ns"])

    def per_cpu(self, target, cell):
        """Transfers per CPU second of the process that serves."""
        return self.per_round(target, cell, lambda c: c["n"] / c["cpu_s"] if c["cpu_s"] > 0 else float("nan"))

    def ratio(self, f, a, b, cell):
        """The median of the rounds' ratios."""
        return statistics.median(x / y for x, y in zip(f(a, cell), f(b, cell)))

    def median(self, target, cell, key):
        return statistics.median(self.per_round(target, cell, lambda c: c[key]))


def title(cell):
    mode, size, depth = cell
    if mode == "control":
        return f"control {size} B"
    return f"{mode} {size // 1024} KiB × {depth}" if size >= 1024 else f"{mode} {size} B × {depth}"


def limits(n, kind, cell):
    """The bare socket's rate, ours beside it, ours beside the floor."""
    return (number(spread(n.rate(f"limit-{kind}", cell))[0]), number(n.ratio(n.rate, f"ours-{kind}", f"limit-{kind}", cell)),
            number(n.ratio(n.rate, f"ours-{kind}", f"floor-{kind}", cell)))


def report_rates(n, place):
    say(f"\nTransfers/s, {place}, median of {len(n.rounds)} rounds; ÷ is ours beside it:")
    rows = []
    for cell in CELLS:
        rows.append((title(cell), show_spread(n.rate("usbredirect", cell)), show_spread(n.rate("ours-tcp", cell)),
                     number(n.ratio(n.rate, "ours-tcp", "usbredirect", cell)),
                     *limits(n, "tcp", cell), show_spread(n.rate("ours-unix", cell)), *limits(n, "unix", cell)))
    table(("", "usbredirect", "ours, TCP", "÷", "bare TCP", "÷", "floor÷", "ours, AF_UNIX", "bare AF_UNIX", "÷", "floor÷"), rows)


def report_costs(n, place):
    say(f"\n{place}: MB/s, latency p50/p99 in µs, and CPU µs per transfer of the process that serves:")
    rows = []
    for cell in CELLS:
        row = [title(cell)]
        for target in ("usbredirect", "ours-tcp", "ours-unix"):
            rate = spread(n.rate(target, cell))[0]
            p50, p99 = (n.median(target, cell, k) / 1e3 for k in ("p50_ns", "p99_ns"))
            cpu = 1e6 / spread(n.per_cpu(target, cell))[0]
            row += [number(rate * cell[1] / 1e6), f"{number(p50)}/{number(p99)}", number(cpu)]
        row.append(number(n.ratio(n.per_cpu, "ours-tcp", "usbredirect", cell)))
        rows.append(row)
    table(("", "usbredirect", "µs", "CPU", "ours, TCP", "µs", "CPU", "AF_UNIX", "µs", "CPU", "CPU ÷"), rows)


def report_process(data):
    say("\nAttach, memory, idle CPU, system calls per transfer:")
    rows = []
    for name in SERVED:
        runs = [r["one-cpu"][name] for r in data["rounds"]]
        calls = data["system_calls"][name]
        rows.append((name, show_spread([r["attach_ns"] / 1e6 for r in runs]), spread([r["rss_kib"] for r in runs])[0],
                     spread([r["peak_kib"] for r in runs])[0], f"{data['idle'][name] * 100:.2f}",
                     *(number(c) for c in calls.values())))
    table(("", "hello to connect, ms", "RSS attached, KiB", "at its peak", "idle CPU, %", *data["system_calls"]["ours-tcp"]),
          rows)


def check_goals(data):
    say("\nGoals:")
    goals = Goals()
    for place in PLACES:
        n = Numbers(data["rounds"], place)
        for kind in ("tcp", "unix"):
            ours, limit = f"ours-{kind}", f"limit-{kind}"
            for cell in (c for c in CELLS if c[2] == 1 and place == "one-cpu"):
                goals.at_most(f"{place}, {kind}, {title(cell)}: the bare socket's rate beside ours",
                              n.ratio(n.rate, limit, ours, cell), 1.2, "times")
            for mode in ("in", "out"):
                goals.at_least(f"{place}, {kind}, {mode} 64 B × 16", spread(n.rate(ours, (mode, 64, 16)))[0] / 1e3, 250,
                               "k/s")
                goals.at_least(f"{place}, {kind}, {mode} 64 KiB × 16",
                               spread(n.rate(ours, (mode, 65536, 16)))[0] * 65536 / 1e9, 4, "GB/s")
        for cell in (c for c in CELLS if c[1] <= 16384):
            goals.at_least(f"{place}, {title(cell)}: transfers per CPU second, beside usbredirect's",
                           n.ratio(n.per_cpu, "ours-tcp", "usbredirect", cell), 5, "times")
    for name in ("ours-tcp", "ours-unix"):
        goals.at_most(f"{name}: CPU when idle", data["idle"][name] * 100, 0.01, "%")
        goals.at_most(f"{name}: RSS, attached", max(r[p][name]["rss_kib"] for r in data["rounds"] for p in PLACES), 4096,
                      "KiB")
    return goals


def main():
    o = arguments("usb-engine", ms=(60, "of each cell and target"))
    data = {"schema": "devbroker.bench-usb-engine/1", "host": host("none"), "ms": o.ms}
    data.update(measure(o.rounds, o.ms))
    for place in PLACES:
        n = Numbers(data["rounds"], place)
        report_rates(n, place)
        report_costs(n, place)
    report_process(data)
    finish(o, data, check_goals(data))


if __name__ == "__main__":
    main()
