#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The guest suite: a disk image as a USB stick in a real QEMU with a real Debian kernel."""
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lab"))
import restarts
import runner
from broker import CliError
from guest import LabError, Qmp


def sha256(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def attach(lab, image, vm="guest", name="stick", *options):
    """Adds image as a disk and attaches it; returns (device as JSON, block device in the guest)."""
    b = lab.broker
    b.cli("disk", "add", image, "--name", name, *options)
    device = b.cli("attach", name, vm, "--wait")["device"]
    guest = next(g for g in lab.guests if g.name == vm)
    return device, guest.wait_disk(device["serial"])


def expect_refusal(code, call, *args):
    try:
        call(*args)
    except CliError as e:
        assert e.error.get("code") == code, e
        assert e.error["message"] and e.error["remedy"], e.error
        return e
    raise LabError(f"was not refused with {code}")


def test_read_whole_image(lab):
    """a guest reads the whole image: sha256 equal, at super and at high speed"""
    b = lab.start_broker()
    g = lab.vm()
    idle = b.idle()
    for speed, says in (("super", "new SuperSpeed USB device"), ("high", "new high-speed USB device")):
        image = lab.image(f"{speed}.img", 24)
        _, disk = attach(lab, image, "guest", speed, "--speed", speed)
        assert says in g.dmesg(), g.dmesg()
        got = g.run(f"dd if=/dev/{disk} bs=1M 2>/dev/null | sha256sum", timeout=120).split()[0]
        assert got == sha256(image), f"{speed}: {got}"
        b.cli("detach", speed)
    b.check_idle(idle, ["guest"])
    assert not g.objects(), g.objects()


def test_write_sync_read_back(lab):
    """what a guest wrote and synced is in the image on the host while it is still attached"""
    b = lab.start_broker()
    g = lab.vm()
    image = lab.image(mib=16, random=False)
    _, disk = attach(lab, image)
    g.run(f"dd if=/dev/urandom of=/tmp/data bs=1M count=5 2>/dev/null; "
          f"dd if=/tmp/data of=/dev/{disk} bs=1M seek=3 2>/dev/null; sync", timeout=60)
    wanted = g.run("sha256sum /tmp/data").split()[0]
    with open(image, "rb") as f:
        f.seek(3 << 20)
        assert hashlib.sha256(f.read(5 << 20)).hexdigest() == wanted
        f.seek(0)
        assert f.read(3 << 20) == bytes(3 << 20)
    b.cli("detach", "stick")


def test_unsynced_write_survives_detach(lab):
    """direct writes that were answered are on the host's disk after a detach"""
    b = lab.start_broker()
    g = lab.vm()
    image = lab.image(mib=8, random=False)
    _, disk = attach(lab, image)
    g.run(f"dd if=/dev/urandom of=/tmp/data bs=64k count=16 2>/dev/null; "
          f"dd if=/tmp/data of=/dev/{disk} bs=64k oflag=direct 2>/dev/null")
    wanted = g.run("sha256sum /tmp/data").split()[0]
    b.cli("detach", "stick")
    assert hashlib.sha256(image.read_bytes()[:1 << 20]).hexdigest() == wanted


def test_eject_in_guest(lab):
    """ejecting in the guest releases the device, reason guest-ejected"""
    b = lab.start_broker()
    g = lab.vm()
    idle = b.idle()
    _, disk = attach(lab, lab.image())
    g.run(f"blockio eject /dev/{disk}")
    b.wait_state("disk:stick", "present")
    assert b.device("disk:stick")["reason"] == "guest-ejected"
    g.wait_dmesg("USB disconnect")
    b.check_idle(idle, ["guest"])
    assert not g.objects(), g.objects()


def test_detach_idle(lab):
    """detach while idle: the guest is told within 1 s, nothing is left behind"""
    b = lab.start_broker()
    g = lab.vm()
    idle, fds = b.idle(), g.fds()
    attach(lab, lab.image())
    g.forget_dmesg()
    p = subprocess.Popen(b.command("detach", "stick"), stdout=subprocess.DEVNULL)
    took = g.wait_dmesg("USB disconnect")
    assert p.wait(20) == 0
    lab.note(f"told after {took * 1000:.0f} ms")
    assert took < 1, took
    b.check_idle(idle, ["guest"])
    assert not g.objects() and not [c for c in g.chardevs() if c.startswith("devbroker")]
    assert g.fds() == fds, f"QEMU's fds: {fds} before, {g.fds()} after"


def test_detach_in_io(lab):
    """detach in the middle of a read: the guest is told within 1 s, its read fails, nothing hangs"""
    b = lab.start_broker()
    g = lab.vm()
    idle = b.idle()
    _, disk = attach(lab, lab.image(mib=64))
    g.begin(f"while dd if=/dev/{disk} of=/dev/null bs=64k iflag=direct 2>/dev/null; do :; done; echo ended")
    time.sleep(0.7)
    g.forget_dmesg()
    p = subprocess.Popen(b.command("detach", "stick"), stdout=subprocess.DEVNULL)
    took = g.wait_dmesg("USB disconnect")
    assert p.wait(20) == 0
    lab.note(f"told after {took * 1000:.0f} ms")
    assert took < 1, took
    for _ in range(100):
        if "ended" in g.run("cat /tmp/background"):
            break
        time.sleep(0.1)
    else:
        raise LabError("the guest's read hangs")
    b.check_idle(idle, ["guest"])
    assert not g.objects(), g.objects()


def test_detach_in_write(lab):
    """detach in the middle of writes: every block that the guest was told is written is on the host"""
    b = lab.start_broker()
    g = lab.vm()
    image = lab.image(mib=64, random=False)
    _, disk = attach(lab, image)
    g.begin(f"i=0; while dd if=/dev/urandom of=/tmp/block bs=4k count=1 2>/dev/null && dd if=/tmp/block "
            f"of=/dev/{disk} bs=4k seek=$i oflag=direct conv=notrunc 2>/dev/null; do "
            f"sha256sum </tmp/block; i=$((i + 1)); done; echo ended")
    time.sleep(1.5)
    b.cli("detach", "stick")
    deadline = time.monotonic() + 10
    while "ended" not in g.run("tail -n 1 /tmp/background"):
        assert time.monotonic() < deadline, "the guest's write hangs"
        time.sleep(0.1)
    sums = [line.split()[0] for line in g.run("cat /tmp/background").splitlines()[:-1]]
    assert sums
    with open(image, "rb") as f:
        for i, wanted in enumerate(sums):
            assert hashlib.sha256(f.read(4096)).hexdigest() == wanted, f"block {i} of {len(sums)}"
    lab.note(f"{len(sums)} blocks")


def test_four_devices(lab):
    """four devices at once in one guest, all read in parallel with the right contents"""
    b = lab.start_broker()
    g = lab.vm()
    idle = b.idle()
    found = []
    for i in range(4):
        image = lab.image(f"d{i}.img", 8)
        found.append((image, attach(lab, image, "guest", f"d{i}")[1]))
    assert len({disk for _, disk in found}) == 4
    sums = g.run("; ".join(f"(sha256sum /dev/{d} >/tmp/sum{i}) &" for i, (_, d) in enumerate(found)).replace("&;", "&")
                 + " wait; cat /tmp/sum0 /tmp/sum1 /tmp/sum2 /tmp/sum3", timeout=120)
    for line, (image, disk) in zip([l for l in sums.splitlines() if "/dev/sd" in l], found):
        assert line.split()[0] == sha256(image) and disk in line, (line, image)
    used = b.vm("guest")["quota"]["devices"]["used"]
    assert used == 4, used
    for i in range(4):
        b.cli("detach", f"d{i}")
    b.check_idle(idle, ["guest"])


def test_only_the_chosen_vm(lab):
    """two VMs: the device appears in the chosen one, and the other kernel says nothing at all"""
    b = lab.start_broker()
    first, second = lab.vm("first"), lab.vm("second")
    first.forget_dmesg()
    _, disk = attach(lab, lab.image(), "second")
    assert second.run(f"cat /sys/block/{disk}/size") == str(16 * 2048)
    assert first.disks() == "0" and "usb" not in first.dmesg(), first.dmesg()
    b.cli("detach", "stick")


def test_vm_killed_and_back(lab):
    """VM killed in mid-read: worker gone, charges zero, device back when the VM comes back"""
    b = lab.start_broker()
    g = lab.vm()
    idle = b.idle()
    image = lab.image(mib=64)
    _, disk = attach(lab, image)
    g.begin(f"while dd if=/dev/{disk} of=/dev/null bs=64k iflag=direct 2>/dev/null; do :; done")
    time.sleep(0.3)
    g.kill()
    took = b.wait_state("disk:stick", "decided")
    lab.note(f"lease freed after {took * 1000:.0f} ms")
    assert b.device("disk:stick")["reason"] == "vm-gone"
    # The decision stays, and so does the charge of one device; nothing else may.
    deadline = time.monotonic() + 5
    while len(b.children()) > len(idle["children"]):
        assert time.monotonic() < deadline, b.children()
        time.sleep(0.02)
    quota = b.vm("guest")["quota"]
    assert quota["bytes-in-flight"]["used"] == 0 and quota["transfers-in-flight"]["used"] == 0, quota
    again = lab.guest("guest")
    b.wait_state("disk:stick", "configured", 30)
    disk = again.wait_disk()
    assert again.run(f"sha256sum /dev/{disk}", timeout=120).split()[0] == sha256(image)
    b.cli("detach", "stick")
    quota = b.vm("guest")["quota"]
    assert not any(q["used"] for q in quota.values()), quota


def test_worker_killed(lab):
    """worker killed in mid-read: the guest sees it go and gets it back, nothing left behind"""
    b = lab.start_broker()
    g = lab.vm()
    idle, fds = b.idle(), g.fds()
    image = lab.image(mib=64)
    device, disk = attach(lab, image)
    g.begin(f"dd if=/dev/{disk} of=/dev/null bs=64k iflag=direct")
    time.sleep(0.3)
    g.forget_dmesg()
    os.kill(b.device("disk:stick")["worker_pid"], signal.SIGKILL)
    took = g.wait_dmesg("USB disconnect")
    lab.note(f"the guest saw it go after {took * 1000:.0f} ms")
    assert took < 1, took
    b.wait_state("disk:stick", "configured", 20)
    disk = g.wait_disk(device["serial"])
    assert g.run(f"sha256sum /dev/{disk}", timeout=120).split()[0] == sha256(image)
    b.cli("detach", "stick")
    b.check_idle(idle, ["guest"])
    assert not g.objects() and g.fds() == fds, (g.objects(), fds, g.fds())


def test_worker_stopped(lab):
    """a worker that hangs (SIGSTOP) is ended within 2 s, and the device comes back"""
    b = lab.start_broker()
    g = lab.vm()
    attach(lab, lab.image())
    pid = b.device("disk:stick")["worker_pid"]
    g.forget_dmesg()
    os.kill(pid, signal.SIGSTOP)
    took = g.wait_dmesg("USB disconnect", 6)
    lab.note(f"ended after {took:.1f} s")
    assert took < 2, took
    b.wait_state("disk:stick", "configured", 20)
    assert b.device("disk:stick")["worker_pid"] != pid
    b.cli("detach", "stick")


def runs(pid):
    """Whether it is there and no zombie: whoever inherits it may take its time to reap."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_broker_killed(lab):
    """broker killed (SIGKILL) and started again 10 times under I/O: no error in the guest, the worker goes on"""
    b = lab.start_broker()
    g = lab.vm()
    idle = b.idle()
    _, disk = attach(lab, lab.image(mib=4))
    worker = b.device("disk:stick")["worker_pid"]
    restarts.restart(lab, g, disk, "disk:stick", 10, b.kill, b.start)
    b.cli("detach", "stick")
    assert not runs(worker), "its worker is left"
    assert not g.objects() and not [c for c in g.chardevs() if c.startswith("devbroker")], g.chardevs()
    b.check_idle(idle, ["guest"])


def test_broker_killed_for_good(lab):
    """broker killed, and none comes: workers end in their own order; the next one frees the guest's port"""
    b = lab.start_broker({"devbroker.conf": "[broker]\nworker-orphan-time=1\n"})
    g = lab.vm()
    attach(lab, lab.image(mib=4))
    worker = b.device("disk:stick")["worker_pid"]
    g.forget_dmesg()
    b.kill()
    g.wait_dmesg("USB disconnect", 10)
    deadline = time.monotonic() + 10
    while runs(worker):
        assert time.monotonic() < deadline, "a worker outlived its time"
        time.sleep(0.02)
    b.start()
    b.wait_vm("guest", "up")
    deadline = time.monotonic() + 10
    while g.objects() or [c for c in g.chardevs() if c.startswith("devbroker")]:
        assert time.monotonic() < deadline, g.chardevs()
        time.sleep(0.1)


def test_guest_rebooted(lab):
    """the guest reboots: the stick is there again with the same contents"""
    b = lab.start_broker()
    g = lab.vm()
    image = lab.image()
    device, _ = attach(lab, image)
    g.forget_dmesg()
    g.qmp.call("system_reset")
    g._wait_ready(120)
    g.run("true", timeout=60)
    disk = g.wait_disk(device["serial"], 30)
    assert g.run(f"sha256sum /dev/{disk}", timeout=120).split()[0] == sha256(image)
    assert b.device("disk:stick")["state"] == "configured"
    b.cli("detach", "stick")
    assert not g.objects(), g.objects()


def test_vm_comes_later(lab):
    """a VM that is not there yet gets its device when it comes"""
    b = lab.start_broker()
    b.cli("disk", "add", lab.image(), "--name", "stick")
    g = lab.guest("late", start=False)
    b.cli("vm", "add", "late", "--qmp", g.qmp_path)
    d = b.cli("attach", "stick", "late")["device"]
    assert d["state"] == "decided" and d["reason"] == "vm-gone", d
    g.start()
    b.wait_state("disk:stick", "configured", 30)
    g.wait_disk(d["serial"])
    b.cli("detach", "stick")


def test_from_configuration(lab):
    """vms.d and disks.d alone put the stick into the VM, in either order"""
    image = lab.image()
    g = lab.guest("guest")
    b = lab.start_broker({
        "vms.d/guest.conf": f"[vm]\nqmp={g.qmp_path}\nbus=xhci.0\n",
        "disks.d/stick.conf": f"[disk]\nimage={image}\nvm=guest\nserial=CONF00000001\n",
    })
    b.wait_state("disk:stick", "configured", 30)
    disk = g.wait_disk("CONF00000001")
    assert g.run(f"sha256sum /dev/{disk}", timeout=120).split()[0] == sha256(image)
    assert b.stop() == 0
    g.wait_dmesg("USB disconnect")
    assert not g.objects(), g.objects()


def test_paused_vm(lab):
    """a VM started with -S is shown as paused; it configures the device when it goes on"""
    b = lab.start_broker()
    g = lab.guest("guest", paused=True)
    b.cli("vm", "add", "guest", "--qmp", g.qmp_path)
    assert b.wait_vm("guest", "paused")
    b.cli("disk", "add", lab.image(), "--name", "stick")
    b.cli("attach", "stick", "guest")
    time.sleep(1)
    assert b.device("disk:stick")["state"] in ("connecting", "attached"), b.device("disk:stick")
    assert b.vm("guest")["state"] == "paused"
    g.qmp.call("cont")
    b.wait_state("disk:stick", "configured", 20)
    assert b.vm("guest")["state"] == "up"
    b.cli("detach", "stick")


def test_stopped_vm(lab):
    """a VM that is stopped while it has a device is shown as paused, and gives it back even so"""
    b = lab.start_broker()
    g = lab.vm()
    idle = b.idle()
    attach(lab, lab.image())
    g.qmp.call("stop")
    b.wait_vm("guest", "paused")
    b.cli("detach", "stick")
    b.check_idle(idle, ["guest"])
    assert not g.objects(), g.objects()
    g.qmp.call("cont")
    g.wait_dmesg("USB disconnect")
    b.wait_vm("guest", "up")


def test_qmp_socket_taken(lab):
    """a QMP socket that another client holds: the VM is busy, and the device comes when it is free"""
    b = lab.start_broker()
    g = lab.guest()
    other = Qmp(g.qmp_path)
    b.cli("vm", "add", "guest", "--qmp", g.qmp_path)
    b.wait_vm("guest", "busy")
    b.cli("disk", "add", lab.image(), "--name", "stick")
    d = b.cli("attach", "stick", "guest")["device"]
    assert d["state"] == "decided" and d["reason"] == "vm-busy", d
    other.close()
    b.wait_state("disk:stick", "configured", 60)
    b.cli("detach", "stick")


def test_read_only(lab):
    """a read-only stick refuses writes in the guest, and the image stays as it is"""
    b = lab.start_broker()
    g = lab.vm()
    image = lab.image()
    before = sha256(image)
    image.chmod(0o444)
    _, disk = attach(lab, image, "guest", "stick", "--read-only")
    assert g.run(f"cat /sys/block/{disk}/ro") == "1"
    code, _ = g.run(f"dd if=/dev/zero of=/dev/{disk} bs=4k count=1", check=False)
    assert code != 0
    b.cli("detach", "stick")
    assert sha256(image) == before


def test_host_disk_full(lab):
    """a full disk on the host is an error in the guest, not a lie"""
    if os.geteuid() != 0:
        lab.note("skipped: mounting a small tmpfs takes root")
        return
    b = lab.start_broker()
    g = lab.vm()
    small = lab.work / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", small], check=True)
    try:
        image = small / "sparse.img"
        with open(image, "wb") as f:
            f.truncate(16 << 20)
        _, disk = attach(lab, image)
        code, out = g.run(f"dd if=/dev/zero of=/dev/{disk} bs=64k oflag=direct", check=False, timeout=90)
        assert code != 0, out
        lab.note(out.splitlines()[0])
        assert "error" in g.dmesg().lower(), g.dmesg()[-500:]
        b.cli("detach", "stick")
    finally:
        b.kill()
        subprocess.run(["umount", "-l", small], check=True)


def test_image_truncated(lab):
    """an image that somebody cuts off while it is lent: errors in the guest, and the worker lives"""
    b = lab.start_broker()
    g = lab.vm()
    image = lab.image(mib=4)
    _, disk = attach(lab, image)
    worker = b.device("disk:stick")["worker_pid"]
    os.truncate(image, 1 << 20)
    code, _ = g.run(f"dd if=/dev/{disk} of=/dev/null bs=64k iflag=direct", check=False, timeout=90)
    assert code != 0
    assert g.run(f"dd if=/dev/{disk} bs=64k count=16 iflag=direct 2>/dev/null | sha256sum").split()[0] == sha256(image)
    assert b.device("disk:stick")["worker_pid"] == worker
    b.cli("detach", "stick")


def test_busy_image(lab):
    """an image that a QEMU holds is refused with the holder named; one of ours is refused to QEMU"""
    b = lab.start_broker()
    image = lab.image()
    g = lab.guest("holder", start=False, extra=["-S", "-drive", f"if=none,id=d,format=raw,file={image}", "-device",
                                                      "usb-storage,drive=d,bus=xhci.0"])
    g._spawn()
    g.qmp = None
    deadline = time.monotonic() + 10
    while True:
        try:
            b.cli("disk", "add", image, "--name", "stick")
            b.cli("disk", "remove", "stick")
            assert time.monotonic() < deadline, "QEMU's lock was never seen"
            time.sleep(0.05)
        except CliError as e:
            error = e.error
            break
    assert error["code"] == "image-busy", error
    assert str(g.process.pid) in error["message"] and "qemu" in error["message"], error
    lab.note(error["message"])
    g.kill()
    lab.vm("guest")
    attach(lab, image)
    q = subprocess.Popen(["qemu-system-x86_64", "-M", "q35", "-S", "-display", "none", "-drive",
                          f"if=virtio,format=raw,file={image}"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                         text=True)
    try:
        out, _ = q.communicate(timeout=10)
    except subprocess.TimeoutExpired:
        q.kill()
        raise LabError("QEMU opened an image that is lent")
    assert q.returncode != 0 and "lock" in out, out
    b.cli("detach", "stick")


def test_refusals(lab):
    """bad input: one sentence, its exit code, nothing changed"""
    b = lab.start_broker()
    g = lab.vm()
    image = lab.image()
    before = b.cli("list"), b.cli("vm", "list")
    idle = b.idle()
    expect_refusal("image-invalid", b.cli, "disk", "add", lab.work / "missing.img")
    expect_refusal("image-invalid", b.cli, "disk", "add", lab.work)
    expect_refusal("image-invalid", b.cli, "disk", "add", "/dev/null")
    (lab.work / "empty.img").write_bytes(b"")
    expect_refusal("image-invalid", b.cli, "disk", "add", lab.work / "empty.img")
    expect_refusal("exists", b.cli, "vm", "add", "guest", "--qmp", "/run/x.sock")
    expect_refusal("invalid", b.cli, "vm", "add", "bad/name", "--qmp", "/run/x.sock")
    expect_refusal("invalid", b.cli, "disk", "add", image, "--name", "bad name")
    expect_refusal("not-found", b.cli, "attach", "nothing", "guest")
    assert (b.cli("list"), b.cli("vm", "list")) == before
    b.cli("disk", "add", image, "--name", "stick")
    expect_refusal("image-busy", b.cli, "disk", "add", image, "--name", "again")
    expect_refusal("exists", b.cli, "disk", "add", lab.image("other.img"), "--name", "stick")
    expect_refusal("not-found", b.cli, "attach", "stick", "nobody")
    expect_refusal("not-attached", b.cli, "detach", "stick")
    b.cli("disk", "add", lab.work / "other.img", "--name", "stick2")
    e = expect_refusal("ambiguous", b.cli, "attach", "sti", "guest")
    assert "disk:stick" in e.error["message"] and "disk:stick2" in e.error["message"]
    b.cli("attach", "stick", "guest", "--wait")
    expect_refusal("busy", b.cli, "disk", "remove", "stick")
    expect_refusal("busy", b.cli, "vm", "remove", "guest")
    g2 = lab.vm("other")
    expect_refusal("busy", b.cli, "attach", "stick", "other")
    b.cli("detach", "stick")
    b.cli("vm", "remove", "other")
    b.cli("vm", "add", "small", "--qmp", g2.qmp_path, "--devices-max", "1")
    b.wait_vm("small", "up")
    b.cli("attach", "stick", "small", "--wait")
    expect_refusal("quota", b.cli, "attach", "stick2", "small")
    b.cli("detach", "stick")


def test_no_free_port(lab):
    """a controller without a free port is a refusal, not a hidden USB 1.1 hub"""
    b = lab.start_broker()
    g = lab.vm()
    for i in range(9):
        b.cli("disk", "add", lab.image(f"p{i}.img", 1), "--name", f"p{i}")
    for i in range(8):
        b.cli("attach", f"p{i}", "guest", "--wait")
    try:
        b.cli("attach", "p8", "guest", "--wait")
        raise LabError("a ninth device found a port")
    except CliError as e:
        assert e.error["code"] == "vmm-refused" and "no free port" in e.error["message"], e
    assert "hub" not in " ".join(o["name"] for o in g.qmp.call("qom-list", path="/machine/peripheral-anon"))
    for i in range(8):
        b.cli("detach", f"p{i}")
    assert not g.objects(), g.objects()


def test_unprivileged(lab):
    """the same works for a broker that is not root, and status says what that weakens"""
    if os.geteuid() != 0:
        lab.note("this whole run is unprivileged")
        return
    nobody = 65534
    image = lab.image()
    g = lab.guest("guest")
    for p in [lab.work, g.work, g.qmp_path, image]:
        os.chown(p, nobody, nobody)
    from broker import Broker
    # A copy: the build folder may lie in a home that nobody can't enter.
    build = lab.work / "build"
    for name in ("broker/devbrokerd", "broker/devbroker", "usb/devbroker-usb", "usb/devbroker-qmp", "usb/devbroker-claim"):
        (build / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(runner.build_dir() / name, build / name)
    b = lab.broker = Broker(build, lab.work)
    for p in [b.config, *b.config.rglob("*")]:
        os.chown(p, nobody, nobody)
    plain = b.argv
    b.argv = lambda: ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--pdeathsig=keep", *plain()]
    b.log.touch()
    b.start()
    assert any("own uid" in w for w in b.cli("status")["warnings"]), b.cli("status")
    b.cli("vm", "add", "guest", "--qmp", g.qmp_path)
    _, disk = attach(lab, image)
    assert g.run(f"sha256sum /dev/{disk}", timeout=120).split()[0] == sha256(image)
    b.cli("detach", "stick")
    assert not g.objects(), g.objects()


if __name__ == "__main__":
    runner.main([sys.modules[__name__]])
