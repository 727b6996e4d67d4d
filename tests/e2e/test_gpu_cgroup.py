#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What stands behind a GPU's accounting, in the host in a VM with systemd and its message bus: a cgroup for each renderer."""
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lab"))
import runner

SLICE = "/sys/fs/cgroup/devbroker.slice"
MIB = 1 << 20


def scopes(host):
    """Those that there are, with the processes in them."""
    out = host.run(f"cd {SLICE} 2>/dev/null && for s in *.scope; do echo $s $(cat $s/cgroup.procs 2>/dev/null); done; true")
    return {words[0]: words[1:] for words in map(str.split, out.splitlines()) if len(words) > 1}


def wait_scope(host, other=None):
    deadline = time.monotonic() + 30
    while True:
        found = [name for name, pids in scopes(host).items() if len(pids) == 1 and name != other]
        if len(found) == 1:
            return found[0]
        assert time.monotonic() < deadline, f"scopes: {scopes(host)}; log: {host.run('tail -20 /run/devbrokerd.log')}"
        time.sleep(0.2)


def test_renderer_in_a_cgroup(lab):
    """a renderer has memory.max, no swap, pids.max and cpu.weight; one that the kernel ends for its memory is replaced"""
    h = lab.host(systemd=True)
    b = lab.start_broker({"vms.d/one.conf": "[vm]\nqmp=/run/vm/one.qmp\n[gpu]\nmemory=32M\n"})
    h.run("until grep -q 'serving as' /run/devbrokerd.log; do usleep 100000; done", timeout=30)
    h.run("mkfifo /tmp/hold; hold-socket /run/devbroker/vm/one/gpu.sock </tmp/hold & exec 5>/tmp/hold")
    name = wait_scope(h)
    pid = scopes(h)[name][0]
    assert name == f"devbroker-gpu-one-{pid}.scope", name
    assert "--renderer" in h.run(f"tr '\\0' ' ' </proc/{pid}/cmdline")
    limits = {k: h.run(f"cat {SLICE}/{name}/{k}").strip()
              for k in ("memory.max", "memory.swap.max", "pids.max", "cpu.weight")}
    assert limits == {"memory.max": str((32 + 1280) * MIB), "memory.swap.max": "0", "pids.max": "128", "cpu.weight": "100"}, limits
    # As if it had allocated what nobody charged.
    h.run(f"echo 0 >{SLICE}/{name}/memory.max")
    after = wait_scope(h, name)
    assert name not in scopes(h), scopes(h)
    log = b.log_text()
    assert "its renderer ended with status 137" in log, log[-600:]
    assert b.cli("gpu", "show", "one")["gpu"]["state"] == "connected"
    h.run("exec 5>&-")
    deadline = time.monotonic() + 20
    while scopes(h):
        assert time.monotonic() < deadline, scopes(h)
        time.sleep(0.2)
    lab.note(f"{name}: {limits}; killed by the kernel, then {after}; none is left when the VMM has gone")


if __name__ == "__main__":
    runner.main([sys.modules[__name__]])
