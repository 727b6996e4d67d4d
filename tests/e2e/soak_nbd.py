# SPDX-License-Identifier: MIT
"""Part of the soak suite: an NBD server that is stopped, which takes the worker 20 s to believe."""
import signal
import time

from test_usb_breadth_images import attach, end, serve_nbd


def test_nbd_server_stopped(lab):
    """an NBD server that says nothing any more: the guest reads of an I/O error before it gives up itself, nothing hangs"""
    server, uri = serve_nbd(lab, lab.image(mib=16), "--format=raw")
    b = lab.start_broker()
    g = lab.vm()
    _, disk = attach(lab, uri)
    worker = b.device("disk:net")["worker_pid"]
    server.send_signal(signal.SIGSTOP)
    g.begin(f"dd if=/dev/{disk} of=/dev/null bs=64k count=1 skip=100 iflag=direct; echo ended")
    start = time.monotonic()
    while "ended" not in g.run("cat /tmp/background"):
        assert time.monotonic() - start < 60, "the guest's read hangs"
        time.sleep(0.2)
    took = time.monotonic() - start
    lab.note(f"the guest's read failed after {took:.1f} s")
    now = b.device("disk:net")
    assert now["state"] == "configured" and now["worker_pid"] == worker, now
    # The worker has given it up, though it never hung up: another one can take its place.
    other = lab.image("other.img", mib=4)
    second, uri = serve_nbd(lab, other, "--format=raw")
    b.cli("disk", "add", uri, "--name", "net")
    start = time.monotonic()
    while (now := b.device("disk:net"))["state"] != "configured" or now["worker_pid"] == worker:
        assert time.monotonic() - start < 15, now
        time.sleep(0.05)
    assert int(g.run(f"cat /sys/block/{g.wait_disk(now['serial'])}/size")) == 4 << 11
    b.cli("detach", "net")
    server.send_signal(signal.SIGCONT)
    end(server)
    end(second)
