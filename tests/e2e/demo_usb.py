#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The main job, step by step: a USB stick into one of two running VMs, and out again while it is read."""
import hashlib
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lab"))
import images
import runner
from guest import LabError, accelerator, wait

BOLD, DIM, OFF = ("\033[1m", "\033[2m", "\033[0m") if sys.stdout.isatty() else ("", "", "")
PARTITION = 1 << 20
DEMO_TEXT = "Hello from the host.\n" * 4000


class Demo:
    def __init__(self):
        self.images = images.Images(runner.SOURCE / "build/lab", runner.SOURCE, say=lambda s: print(s, flush=True))
        self.lab = runner.Lab("demo", self.images)
        self.step_n = 0

    def step(self, text):
        self.step_n += 1
        print(f"\n{BOLD}{self.step_n}. {text}{OFF}", flush=True)

    def show(self, prompt, text):
        for line in text.strip("\n").splitlines():
            print(f"   {DIM}{prompt}{OFF} {line}", flush=True)

    def host(self, *argv):
        """Runs devbroker as a person would, and shows it."""
        print(f"   $ devbroker {shlex.join(map(str, argv))}", flush=True)
        p = subprocess.run(self.lab.broker.command(*argv), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.show(" ", p.stdout)
        if p.returncode:
            raise LabError(f"devbroker {argv[0]} exited {p.returncode}")

    def guest(self, guest, command, **kw):
        print(f"   {guest.name}# {command}", flush=True)
        out = guest.run(command, **kw)
        self.show(" ", out)
        return out


def make_stick(path):
    """64 MiB, one FAT partition with a file in it. Returns the file's sha256."""
    with open(path, "wb") as f:
        f.truncate(64 << 20)
    env = {**os.environ, "PATH": os.environ["PATH"] + ":/sbin:/usr/sbin"}
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": env}
    subprocess.run(["sfdisk", path], input=b"start=2048, type=c\n", **quiet)
    subprocess.run(["mkfs.vfat", "--offset", str(PARTITION // 512), "-n", "STICK", path, str(63 << 10)], **quiet)
    text = path.with_suffix(".txt")
    text.write_text(DEMO_TEXT)
    subprocess.run(["mcopy", "-i", f"{path}@@{PARTITION}", text, "::hello.txt"], **quiet)
    return hashlib.sha256(DEMO_TEXT.encode()).hexdigest()


def demo(d):
    lab = d.lab
    how = "KVM" if accelerator(d.images) == "kvm" else "software emulation (no usable KVM here)"

    d.step(f"Two virtual machines, with {how}, and the broker")
    first, second = lab.guest("vm1"), lab.guest("vm2")
    b = lab.start_broker()
    print("   $ devbrokerd --config etc --run-dir run", flush=True)
    for g in (first, second):
        d.host("vm", "add", g.name, "--qmp", g.qmp_path)
    b.wait_vm("vm1", "up")
    b.wait_vm("vm2", "up")
    d.host("status")

    d.step("A disk image with a partition and a file, as a USB stick")
    image = lab.work / "stick.img"
    wanted = make_stick(image)
    print(f"   hello.txt on the host: sha256 {wanted}", flush=True)
    d.host("disk", "add", image)

    d.step("Plug it into the second VM")
    first.forget_dmesg()
    second.forget_dmesg()
    d.host("attach", "stick", "vm2", "--wait")
    disk = second.wait_disk()
    second.wait_dmesg("Attached SCSI removable disk")

    d.step("What the second VM sees: the kernel's lines, the partition, the file")
    d.show("vm2 kernel:", "\n".join(l for l in second.dmesg().splitlines() if "usb" in l or "sd" in l))
    d.guest(second, f"fdisk -l /dev/{disk} | grep ^/dev")
    d.guest(second, f"mount -t vfat /dev/{disk}1 /mnt && ls -l /mnt")
    got = d.guest(second, "sha256sum /mnt/hello.txt").split()[0]
    if got != wanted:
        raise LabError(f"the file differs: {got}")
    print("   The same as on the host.", flush=True)

    d.step("A write that survives")
    d.guest(second, "dmesg | tail -400 > /mnt/log.txt && umount /mnt && sync")
    p = subprocess.run(["mtype", "-i", f"{image}@@{PARTITION}", "::log.txt"], stdout=subprocess.PIPE, check=True)
    print(f"   $ mtype -i stick.img@@1M ::log.txt | wc -c\n     {len(p.stdout)}", flush=True)
    if b"usb" not in p.stdout:
        raise LabError("what the guest wrote is not in the image")

    d.step("What the first VM saw")
    if first.dmesg().strip() or first.disks() != "0":
        raise LabError("the first VM saw something: " + first.dmesg())
    print("   Nothing: its kernel has not said a word, and it has no disk.", flush=True)
    d.host("list")

    d.step("Pull it out while the second VM reads from it")
    second.begin(f"while dd if=/dev/{disk} of=/dev/null bs=64k iflag=direct 2>/tmp/why; do :; done; cat /tmp/why")
    time.sleep(1)
    second.forget_dmesg()
    start = time.monotonic()
    process = subprocess.Popen(b.command("detach", "stick"), stdout=subprocess.PIPE, text=True)
    second.wait_dmesg("USB disconnect")
    took = time.monotonic() - start
    print(f"   $ devbroker detach stick\n     {process.communicate()[0].strip()}", flush=True)
    print(f"   vm2's kernel was told after {took * 1000:.0f} ms:", flush=True)
    wait("the end of the guest's read", lambda: "dd:" in second.run("cat /tmp/background"))
    d.show("vm2 kernel:", "\n".join(second.dmesg().splitlines()[:3]))
    d.show("vm2:", second.run("cat /tmp/background"))
    if second.objects() or any(q["used"] for q in b.vm("vm2")["quota"].values()):
        raise LabError("something is left behind")
    d.host("list")
    if b.stop() != 0:
        raise LabError("devbrokerd did not stop cleanly")
    print(f"\n{BOLD}Done: nothing is left behind.{OFF}")


def main(demo):
    """Runs it as a program."""
    d = Demo()
    code = 1
    try:
        demo(d)
        code = 0
    except LabError as e:
        print(f"\nThe demo failed: {e}", file=sys.stderr)
        print(d.lab.logs(), file=sys.stderr)
    finally:
        d.lab.close(keep=False)
    sys.exit(code)


if __name__ == "__main__":
    main(demo)
