# SPDX-License-Identifier: MIT
"""The soak suite: a broker that is killed again and again."""
import time

import restarts


def test_50_restarts(lab):
    """broker killed and started again 50 times under I/O to a disk: no error in the guest, nothing grows"""
    b = lab.start_broker()
    g = lab.vm()
    b.cli("disk", "add", lab.image(mib=4), "--name", "stick")
    b.cli("attach", "stick", "guest", "--wait")
    worker = b.device("disk:stick")["worker_pid"]
    disk = g.wait_disk(b.device("disk:stick")["serial"])
    restarts.restart(lab, g, disk, "disk:stick", 5, b.kill, b.start)
    time.sleep(0.5)
    before = (b.rss_kib(worker), b.fds(), g.fds())
    restarts.restart(lab, g, disk, "disk:stick", 45, b.kill, b.start)
    deadline = time.monotonic() + 10
    # The connection of the last command may still be there.
    while (after := (b.rss_kib(worker), b.fds(), g.fds()))[1:] != before[1:] and time.monotonic() < deadline:
        time.sleep(0.1)
    lab.note(f"worker's KiB, broker's fds, QEMU's fds: {before} before, {after} after")
    assert after[0] <= before[0] + 256 and after[1:] == before[1:], (before, after)
    b.cli("detach", "stick")
