# SPDX-License-Identifier: MIT
"""The broker killed, or told to leave, and started again while a guest writes to a disk and reads back."""
import time

from guest import LabError

LOAD = """dd if=/dev/urandom of=/tmp/wanted bs=64k count=2 2>/dev/null
n=0
echo 0 >/tmp/count
while [ ! -e /tmp/stop ]; do
at=$((n % 16 * 2))
dd if=/tmp/wanted of=/dev/{disk} bs=64k seek=$at count=2 oflag=direct conv=notrunc 2>/tmp/err || {{ echo write $at $(cat /tmp/err) >/tmp/bad; break; }}
dd if=/dev/{disk} of=/tmp/got bs=64k skip=$at count=2 iflag=direct 2>/tmp/err || {{ echo read $at $(cat /tmp/err) >/tmp/bad; break; }}
cmp -s /tmp/wanted /tmp/got || {{ echo different at $at >/tmp/bad; break; }}
n=$((n + 1))
echo $n >/tmp/count.new; mv /tmp/count.new /tmp/count
done
echo ended"""


def count(guest):
    bad = guest.run("cat /tmp/bad 2>/dev/null; true")
    if bad:
        raise LabError(f"the guest's I/O failed: {bad}; kernel: {guest.dmesg()[-800:]}")
    return int(guest.run("cat /tmp/count"))


def more(guest, n, timeout=30):
    """Waits for n rounds of I/O more; returns how many there are."""
    target = count(guest) + n
    deadline = time.monotonic() + timeout
    while (now := count(guest)) < target:
        if time.monotonic() > deadline:
            raise LabError(f"the guest's I/O stands still at {now}; kernel: {guest.dmesg()[-800:]}")
        time.sleep(0.05)
    return now


def charges(broker, vm):
    """What is charged to it; its rates come and go."""
    return {k: v for k, v in broker.vm(vm)["quota"].items() if k not in ("bandwidth", "transfers-per-second")}


def restart(lab, guest, disk, name, times, end, again):
    """Under I/O: end(), I/O goes on without a broker, again(), and the device is where it was, with the same worker."""
    b = lab.broker
    before = b.device(name)
    quota = charges(b, before["vm"])
    guest.forget_dmesg()
    # Those of the load before this one.
    guest.run("rm -f /tmp/count /tmp/stop /tmp/bad")
    guest.begin(LOAD.format(disk=disk))
    deadline = time.monotonic() + 20
    while "no" in guest.run("[ -e /tmp/count ] || echo no; true"):
        assert time.monotonic() < deadline, "the load did not start"
        time.sleep(0.05)
    more(guest, 2)
    slowest = alone = 0
    for _ in range(times):
        end()
        was = count(guest)
        alone += more(guest, 1) - was
        start = time.monotonic()
        again()
        slowest = max(slowest, time.monotonic() - start)
        now = b.device(name)
        for key in ("state", "worker_pid", "vm"):
            assert now[key] == before[key], f"{key}: {now[key]}, not {before[key]}; {b.log_text()[-1500:]}"
    guest.run("touch /tmp/stop")
    deadline = time.monotonic() + 30
    while "ended" not in guest.run("cat /tmp/background"):
        assert time.monotonic() < deadline, "the load did not end"
        time.sleep(0.1)
    rounds = count(guest)
    b.wait_vm(before["vm"], "up")
    assert charges(b, before["vm"]) == quota, (charges(b, before["vm"]), quota)
    for word in ("disconnect", "reset", "error", "offline", "timed out"):
        assert word not in guest.dmesg(), f"{word}: {guest.dmesg()[-800:]}"
    lab.note(f"{times} restarts, ready again after {slowest:.2f} s at most; {rounds} times 128 KiB written and read back "
             f"without an error, {alone} of them while there was no broker")
