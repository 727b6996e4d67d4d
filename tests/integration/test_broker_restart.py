#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""devbrokerd is killed, left or stopped and started again: what is lent goes on in its guest, or comes back, and never twice."""
import os
import signal
import socket
import subprocess
import threading
import time
import unittest
from pathlib import Path

from broker_case import BrokerCase, wait_until
import leftovers


def runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


class Load(threading.Thread):
    """A guest that writes and reads back all the while."""

    def __init__(self, vmm):
        super().__init__(daemon=True)
        self.vmm = vmm
        self.count = 0
        self.failed = []
        self.over = threading.Event()
        self.start()

    def run(self):
        while not self.over.is_set():
            lba, data = 8 + self.count % 1000, os.urandom(512).hex()
            written = self.vmm.ask("write", lba, data)
            read = self.vmm.ask("read", lba, 1)
            if not written.get("result") or read.get("data") != data:
                self.failed.append((lba, written, str(read)[:80]))
                return
            self.count += 1

    def more(self, n=10):
        target = self.count + n
        wait_until(lambda: self.count >= target or not self.is_alive(), timeout=30)

    def finish(self):
        self.over.set()
        self.join()


class RestartCase(BrokerCase):
    def setUp(self):
        super().setUp()
        self.start()

    def leave(self):
        process = self.broker.process
        process.send_signal(signal.SIGUSR1)
        self.assertEqual(process.wait(10), 0)
        self.broker.process = None

    def again(self, how=None):
        """The broker is killed, and another one is there."""
        (how or self.broker.kill)()
        self.broker.start()

    def workers_end(self):
        """Of a broker that was killed, before another one comes, which frees the guest's port."""
        vmm = self.vmm()
        self.disk()
        pid = self.attached(vmm)["worker_pid"]
        self.broker.kill()
        wait_until(lambda: not runs(pid))
        self.broker.start()
        wait_until(lambda: vmm.ask("devices")["devices"] == [])
        self.stopped()

    def worker(self, name="disk:stick"):
        return self.broker.device(name)["worker_pid"]

    def records(self):
        return sorted(p.name for p in (self.broker.run_dir / "workers").iterdir())

    def end(self, vmm):
        """All that is left can be given back, and nothing is left."""
        self.broker.cli("detach", "stick")
        self.assertEqual(vmm.ask("devices"), {"devices": [], "chardevs": [], "fds": []})
        self.assertEqual(self.records(), [])
        for name, q in self.broker.vm("win")["quota"].items():
            self.assertEqual(q["used"], 0, name)
        self.stopped()


class UnderLoad(RestartCase):
    def ten_times(self, how):
        vmm = self.vmm()
        self.disk()
        before = self.attached(vmm)
        quota = self.broker.vm("win")["quota"]
        load = Load(vmm)
        load.more()
        slowest = 0
        for _ in range(10):
            start = time.monotonic()
            self.again(how)
            slowest = max(slowest, time.monotonic() - start)
            d = self.broker.device("disk:stick")
            self.assertEqual((d["state"], d["worker_pid"]), ("configured", before["worker_pid"]), self.log()[-1500:])
            load.more()
        load.finish()
        print(f"  {load.count} writes and reads, {len(load.failed)} failed; broker back after {slowest:.2f} s at most",
              flush=True)
        self.assertEqual(load.failed, [])
        after = self.broker.device("disk:stick")
        for key in ("state", "worker_pid", "vm", "connect_usec", "configure_usec"):
            self.assertEqual(after.get(key), before.get(key), key)
        self.assertEqual(self.broker.vm("win")["quota"], quota)
        self.assertEqual(len(self.records()), 2)
        self.end(vmm)

    def test_killed_ten_times(self):
        self.ten_times(self.broker.kill)

    def test_left_ten_times(self):
        self.ten_times(self.leave)


class Ends(RestartCase):
    """How a lease that was adopted ends."""

    def adopted(self, *options):
        vmm = self.vmm("win", *options)
        self.disk()
        self.pid = self.attached(vmm)["worker_pid"]
        self.again()
        self.broker.wait_vm("win", "up")
        return vmm

    def test_vm_dies_and_comes_back(self):
        vmm = self.adopted()
        vmm.kill()
        self.wait_reason("disk:stick", "decided", "vm-gone")
        wait_until(lambda: not runs(self.pid))
        again = self.vmm("win", add=False)
        self.broker.wait_state("disk:stick", "configured")
        self.end(again)

    def test_unplugged_in_the_vmm(self):
        vmm = self.adopted()
        vmm.ask("unplug")
        self.wait_reason("disk:stick", "present", "vmm-unplugged")
        self.stopped()

    def test_worker_killed(self):
        vmm = self.adopted()
        os.kill(self.pid, signal.SIGKILL)
        wait_until(lambda: self.worker() not in (0, self.pid))
        self.broker.wait_state("disk:stick", "configured")
        self.end(vmm)

    def test_worker_stopped(self):
        vmm = self.adopted()
        os.kill(self.pid, signal.SIGSTOP)
        wait_until(lambda: self.worker() not in (0, self.pid))
        self.assertFalse(runs(self.pid))
        self.broker.wait_state("disk:stick", "configured")
        self.end(vmm)

    def test_broker_stops(self):
        """A stop, other than a restart, gives back what was adopted too, and forgets the VMs of clients."""
        vmm = self.adopted()
        self.stopped()
        self.assertFalse(runs(self.pid))
        self.assertEqual(vmm.ask("devices"), {"devices": [], "chardevs": [], "fds": []})
        self.assertEqual(self.records(), [])
        self.broker.start()
        self.assertEqual(self.broker.cli("vm", "list")["vms"], [])
        self.assertEqual(self.broker.cli("list")["devices"], [])


class Meanwhile(RestartCase):
    """What happens while there is no broker."""

    def alone(self, *options):
        vmm = self.vmm("win", *options)
        self.disk()
        self.pid = self.attached(vmm)["worker_pid"]
        self.broker.kill()
        return vmm

    def test_vm_dies(self):
        self.alone().kill()
        self.broker.start()
        self.wait_reason("disk:stick", "decided", "vm-gone")
        wait_until(lambda: not runs(self.pid))
        again = self.vmm("win", add=False)
        self.broker.wait_state("disk:stick", "configured")
        self.end(again)

    def test_vm_is_another_one(self):
        self.alone().kill()
        again = self.vmm("win", add=False)
        self.broker.start()
        self.broker.wait_state("disk:stick", "configured")
        wait_until(lambda: not runs(self.pid))
        self.end(again)

    def test_unplugged_in_the_vmm(self):
        vmm = self.alone()
        vmm.ask("unplug")
        self.broker.start()
        self.wait_reason("disk:stick", "present", "vmm-unplugged")
        self.assertEqual(self.records(), [])
        self.stopped()

    def test_ejected(self):
        vmm = self.alone()
        vmm.ask("eject")
        self.broker.start()
        self.wait_reason("disk:stick", "present", "guest-ejected")
        self.assertEqual(vmm.ask("devices"), {"devices": [], "chardevs": [], "fds": []})
        self.stopped()

    def test_worker_dies(self):
        """A disk of a client is lost with its last image fd, and that is said; the guest's port is not."""
        vmm = self.alone()
        os.kill(self.pid, signal.SIGKILL)
        wait_until(lambda: not runs(self.pid))
        self.broker.start()
        self.assertIn("is not here any more", self.log())
        wait_until(lambda: vmm.ask("devices")["devices"] == [])
        self.assertEqual(self.records(), [])
        self.stopped()

    def test_worker_hangs(self):
        """It is ended before anything else is done with its device."""
        vmm = self.alone()
        os.kill(self.pid, signal.SIGSTOP)
        self.broker.start()
        self.assertFalse(runs(self.pid))
        wait_until(lambda: vmm.ask("devices")["devices"] == [])
        self.stopped()

    def test_second_broker(self):
        """Two leases on one device can't be: its image is locked all the while."""
        self.alone()
        self.broker.start()
        code, said = self.broker.run_cli(["disk", "add", str(self.work / "stick.img"), "--name", "twin"], 20)[::2]
        self.assertNotEqual(code, 0)
        self.assertIn("disk:stick", said)

    def test_configuration_is_broken(self):
        """A broker that does not start takes nothing away from anybody."""
        vmm = self.alone()
        conf = self.broker.config / "devbroker.conf"
        conf.write_text("[broker]\nsandbox=perhaps\n")
        conf.chmod(0o644)
        code = subprocess.run(self.broker.argv(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=20).returncode
        self.assertNotEqual(code, 0)
        self.assertTrue(runs(self.pid))
        conf.unlink()
        self.broker.start()
        self.assertEqual(self.worker(), self.pid)
        self.end(vmm)


class OtherConfiguration(RestartCase):
    files = {"devbroker.conf": "[broker]\nworker-orphan-time=1\n"}

    def test_nobody_comes(self):
        self.workers_end()

    def test_sandbox_is_another_one(self):
        """A worker in a sandbox that is not as configured now is replaced by one that is."""
        vmm = self.vmm()
        self.disk()
        pid = self.attached(vmm)["worker_pid"]
        (self.broker.config / "devbroker.conf").write_text("[broker]\nsandbox=reduced:landlock\n")
        self.again()
        wait_until(lambda: self.worker() not in (0, pid))
        self.broker.wait_state("disk:stick", "configured")
        self.end(vmm)


class WithoutOrphans(RestartCase):
    files = {"devbroker.conf": "[broker]\nworker-orphan-time=0\n"}

    def test_workers_end_with_it(self):
        self.workers_end()


class Configured(RestartCase):
    """A disk and a VM of configuration."""

    def setUp(self):
        BrokerCase.setUp(self)
        image = self.image()
        for name, text in (("vms.d/win.conf", f"[vm]\nqmp={self.work}/win.qmp\n"),
                           ("disks.d/stick.conf", f"[disk]\nimage={image}\nvm=win\n")):
            (self.broker.config / name).write_text(text)
            (self.broker.config / name).chmod(0o644)
        self.broker.start()
        self.v = self.vmm("win", add=False)
        self.broker.wait_state("disk:stick", "configured")

    def test_killed(self):
        pid = self.worker()
        self.again()
        self.assertEqual((self.broker.device("disk:stick")["state"], self.worker()), ("configured", pid))
        self.assertNotIn("holds its image", self.log())
        self.assertEqual(len(self.v.ask("devices")["devices"]), 1)
        self.end(self.v)

    def test_worker_dies_meanwhile(self):
        pid = self.worker()
        self.broker.kill()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not runs(pid))
        self.broker.start()
        self.broker.wait_state("disk:stick", "configured")
        self.assertEqual(len(self.v.ask("devices")["devices"]), 1)
        self.end(self.v)

    def test_image_is_another_one(self):
        """The file of that name is not the one that is lent: that worker ends, and the new image is lent."""
        pid = self.worker()
        self.broker.kill()
        fresh = self.image("fresh.img")
        fresh.rename(self.work / "stick.img")
        self.broker.start()
        wait_until(lambda: not runs(pid))
        self.broker.wait_state("disk:stick", "configured")
        # What is left of the other one is taken away when its worker has ended.
        wait_until(lambda: len(self.v.ask("devices")["devices"]) == 1)
        self.assertEqual(self.v.ask("read", 0, 1)["data"], (self.work / "stick.img").read_bytes()[:512].hex())
        self.end(self.v)

    def test_detached_by_hand_and_given_to_another(self):
        """What somebody wanted counts more than what configuration says at start."""
        other = self.vmm("other")
        self.broker.cli("detach", "stick")
        self.broker.cli("attach", "stick", "other", "--wait")
        pid = self.worker()
        self.again()
        d = self.broker.device("disk:stick")
        self.assertEqual((d["vm"], d["worker_pid"]), ("other", pid))
        self.assertEqual(len(other.ask("devices")["devices"]), 1)
        self.stopped()


class AtEveryMoment(RestartCase):
    """Killed in each state of a lease, and at random: the device ends up in its VM, or where it was told to be."""

    def attach_and_kill(self, vmm, wait):
        self.disk()
        self.broker.cli("attach", "stick", "win")
        wait()
        self.broker.kill()
        self.broker.start()

    def test_while_plugging(self):
        vmm = self.vmm("win", "--hang-on=device_add")
        self.attach_and_kill(vmm, lambda: vmm.wait("hangs"))
        # That VMM never plugs anything. The next one does.
        vmm.kill()
        again = self.vmm("win", add=False)
        self.broker.wait_state("disk:stick", "configured", 30)
        self.assertEqual(len(again.ask("devices")["devices"]), 1)
        self.end(again)

    def test_paused(self):
        """Plugged, and no hello yet: it stays plugged."""
        vmm = self.vmm("win", "--paused", state="paused")
        self.attach_and_kill(vmm, lambda: wait_until(
            lambda: any("plugged=yes" in p.read_text() for p in (self.broker.run_dir / "workers").glob("*[0-9a-f]"))))
        pid = self.worker()
        self.assertEqual(self.broker.device("disk:stick")["state"], "connecting")
        vmm.ask("resume")
        self.broker.wait_state("disk:stick", "configured")
        self.assertEqual(self.worker(), pid)
        self.end(vmm)

    def test_attached(self):
        vmm = self.vmm("win", "--guest=no-driver")
        self.attach_and_kill(vmm, lambda: self.broker.wait_state("disk:stick", "attached"))
        self.assertEqual(self.broker.device("disk:stick")["state"], "attached")
        self.end(vmm)

    def test_waiting_for_its_vm(self):
        self.broker.cli("vm", "add", "later", "--qmp", self.work / "later.qmp")
        self.disk()
        self.broker.cli("attach", "stick", "later")
        self.again()
        # Nobody holds that image any more, and no client's path is opened.
        self.assertEqual(self.broker.cli("list")["devices"], [])
        self.assertEqual([v["name"] for v in self.broker.cli("vm", "list")["vms"]], ["later"])
        self.assertEqual(self.records(), [])
        self.stopped()

    def test_while_unplugging(self):
        """A detach that was begun stays one."""
        vmm = self.vmm("win", "--hang-on=device_del")
        self.disk()
        self.attached(vmm)
        self.broker.cli("detach", "stick", "--no-wait")
        vmm.wait("hangs")
        self.broker.kill()
        vmm.kill()
        self.vmm("win", add=False)
        self.broker.start()
        wait_until(lambda: all(d["state"] == "present" for d in self.broker.cli("list")["devices"]))
        wait_until(lambda: self.records() == [])
        self.stopped()

    def test_at_random(self):
        vmm = self.vmm()
        image = self.disk()
        self.broker.cli("attach", "stick", "win")
        for n in range(25):
            time.sleep(n * 0.007)
            self.again()
            if not self.broker.cli("list")["devices"]:
                # Its image was nobody's when the broker was killed: not connected yet, or just released.
                # A worker that it had just started may have it for a moment.
                wait_until(lambda: self.broker.run_cli(["disk", "add", str(image), "--name", "stick"], 20)[0] == 0)
            if self.broker.device("disk:stick")["state"] == "present":
                self.broker.cli("attach", "stick", "win")
            elif n % 3 == 2:
                self.broker.cli("detach", "stick", "--no-wait")
        if self.broker.device("disk:stick")["state"] == "releasing":
            self.broker.wait_state("disk:stick", "present")
        if self.broker.device("disk:stick")["state"] == "present":
            self.broker.cli("attach", "stick", "win")
        self.broker.wait_state("disk:stick", "configured", 30)
        self.assertEqual(len(vmm.ask("devices")["devices"]), 1)
        self.assertIsNotNone(vmm.ask("read", 0, 1)["data"])
        self.end(vmm)

    def test_client_waits(self):
        """A client whose broker is killed under it gets an error that says so."""
        self.vmm("win", "--guest=no-driver")
        self.disk()
        p = subprocess.Popen(self.broker.command("attach", "stick", "win", "--wait"), stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True)
        self.broker.wait_state("disk:stick", "attached")
        self.broker.kill()
        _, error = p.communicate(timeout=10)
        self.assertEqual(p.returncode, 3, error)
        self.assertIn("devbrokerd closed the connection", error)


class Records(RestartCase):
    """What stands in the directory of records is checked."""

    def test_what_is_no_record(self):
        vmm = self.vmm()
        self.disk()
        pid = self.attached(vmm)["worker_pid"]
        self.broker.kill()
        folder = self.broker.run_dir / "workers"
        name, = (p for p in folder.iterdir() if not p.name.endswith(".sock"))
        text = name.read_text()
        self.assertEqual(folder.stat().st_mode & 0o777, 0o700)
        self.assertEqual(name.stat().st_mode & 0o777, 0o600)
        for other, content in (("0" * 16, text), ("1" * 16, ""), ("2" * 16, "x" * 20000), ("a", text[:100]),
                               ("3" * 16, text.replace(name.name, "3" * 16).replace("disk:stick", "disk:other"))):
            (folder / other).write_text(content)
        (folder / ("4" * 16)).symlink_to("/etc/passwd")
        os.mkfifo(folder / ("5" * 16))
        self.broker.start()
        self.assertEqual(self.worker(), pid)
        self.assertEqual(self.log().count("is no record"), 6)
        self.assertEqual(sorted(self.records()), sorted([name.name, name.name + ".sock"]))
        self.end(vmm)

    def test_cookie_of_another(self):
        """A worker that does not know the cookie is not this lease's."""
        vmm = self.vmm()
        self.disk()
        pid = self.attached(vmm)["worker_pid"]
        self.broker.kill()
        name, = (p for p in (self.broker.run_dir / "workers").iterdir() if not p.name.endswith(".sock"))
        lines = [f"cookie={'0' * 32}" if l.startswith("cookie=") else l for l in name.read_text().splitlines()]
        name.write_text("\n".join(lines) + "\n")
        self.broker.start()
        self.assertEqual(self.broker.cli("list")["devices"], [])
        self.assertIn("somebody who is not its next devbrokerd connected", self.log())
        os.kill(pid, signal.SIGKILL)

    def test_somebody_else_listens(self):
        """A process that is not the record's is neither adopted nor harmed."""
        vmm = self.vmm()
        self.disk()
        pid = self.attached(vmm)["worker_pid"]
        self.broker.kill()
        path, = (self.broker.run_dir / "workers").glob("*.sock")
        path.unlink()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
            s.bind(str(path))
            s.listen()
            self.broker.start()
        self.assertEqual(self.broker.cli("list")["devices"], [])
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not runs(pid))
        self.stopped()


if __name__ == "__main__":
    leftovers.main(verbosity=2)
