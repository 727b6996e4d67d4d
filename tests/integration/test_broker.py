#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""devbrokerd, its workers and its QMP helper, sandbox on, against VMMs without VMs: the life of a lease."""
import os
import signal
import time
import unittest

from broker_case import BrokerCase, wait_until
import leftovers


class Lending(BrokerCase):
    def setUp(self):
        super().setUp()
        self.start()

    def test_attach_use_detach(self):
        vmm = self.vmm()
        image = self.disk()
        was = image.read_bytes()
        d = self.attached(vmm)
        self.assertGreater(d["connect_usec"], 0)
        self.assertEqual(bytes.fromhex(vmm.ask("read", 3, 64)["data"]), was[3 * 512:67 * 512])
        self.assertTrue(vmm.ask("write", 100, "a5" * 512)["result"])
        quota = self.broker.vm("win")["quota"]
        self.assertEqual(quota["devices"]["used"], 1)
        self.assertEqual(quota["transfers-in-flight"]["used"], 64)
        self.broker.cli("detach", "stick")
        self.wait_reason("disk:stick", "present", "user-detach")
        self.assertEqual(image.read_bytes(), was[:51200] + b"\xa5" * 512 + was[51712:])
        self.assertEqual(vmm.ask("devices"), {"devices": [], "chardevs": [], "fds": []})
        self.nothing_left("win")
        self.stopped()

    def test_guest_is_told_at_once(self):
        vmm = self.vmm()
        self.disk()
        self.attached(vmm)
        # The VMM's answer to the unplug is not waited for before the guest is told.
        vmm.process.stdin.write(b"wait-disconnect\n")
        vmm.wait("waits")
        self.broker.cli("detach", "stick", "--no-wait")
        answer = vmm.wait("answer")
        self.assertTrue(answer["told"], answer)
        self.assertLess(answer["after"], 1)
        self.wait_reason("disk:stick", "present", "user-detach")

    def test_eject_in_guest(self):
        vmm = self.vmm()
        self.disk()
        self.attached(vmm)
        vmm.ask("eject")
        self.wait_reason("disk:stick", "present", "guest-ejected")
        self.assertEqual(vmm.ask("devices")["devices"], [])
        self.nothing_left("win")

    def test_unplugged_in_vmm(self):
        vmm = self.vmm()
        self.disk()
        self.attached(vmm)
        vmm.ask("unplug")
        self.wait_reason("disk:stick", "present", "vmm-unplugged")
        self.assertEqual(self.broker.vm("win")["state"], "up")
        self.nothing_left("win")

    def test_vm_dies_and_comes_back(self):
        vmm = self.vmm()
        self.disk()
        self.attached(vmm)
        vmm.kill()
        self.wait_reason("disk:stick", "decided", "vm-gone")
        self.broker.wait_vm("win", "gone")
        # Without a VMM there is no pidfd of it to watch.
        wait_until(lambda: self.broker.idle() == {**self.before, "fds": self.before["fds"] - 1})
        quota = self.broker.vm("win")["quota"]
        self.assertEqual({k: q["used"] for k, q in quota.items()},
                         {"devices": 1, "bytes-in-flight": 0, "transfers-in-flight": 0, "bandwidth": 0,
                          "transfers-per-second": 0, "gpu-memory": 0})
        self.vmm(add=False)
        self.broker.wait_state("disk:stick", "configured")

    def test_vm_comes_later(self):
        self.disk()
        # In a directory that does not exist yet either.
        self.broker.cli("vm", "add", "later", "--qmp", self.work / "there" / "later.qmp")
        self.broker.cli("attach", "stick", "later")
        self.wait_reason("disk:stick", "decided", "vm-gone")
        (self.work / "there").mkdir()
        self.vmm("there/later", add=False)
        self.broker.wait_state("disk:stick", "configured")
        self.assertEqual(self.broker.vm("later")["state"], "up")

    def test_detach_of_what_waits(self):
        self.disk()
        self.broker.cli("vm", "add", "later", "--qmp", self.work / "later.qmp")
        self.broker.cli("attach", "stick", "later")
        self.broker.cli("detach", "stick")
        self.assertEqual(self.broker.vm("later")["quota"]["devices"]["used"], 0)
        self.assertEqual(self.refused(13, "detach", "stick")["code"], "not-attached")

    def test_worker_killed(self):
        vmm = self.vmm()
        self.disk()
        pid = self.attached(vmm)["worker_pid"]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: self.broker.device("disk:stick")["worker_pid"] not in (0, pid))
        self.broker.wait_state("disk:stick", "configured")
        self.assertEqual(len(vmm.ask("devices")["devices"]), 1)
        self.assertIn("signal 9", self.log())

    def test_worker_killed_again_and_again(self):
        vmm = self.vmm()
        self.disk()
        pid = self.attached(vmm)["worker_pid"]
        for n in range(4):
            os.kill(pid, signal.SIGKILL)
            if n < 3:
                wait_until(lambda: self.broker.device("disk:stick")["worker_pid"] not in (0, pid))
                self.broker.wait_state("disk:stick", "configured")
                pid = self.broker.device("disk:stick")["worker_pid"]
        # Three restarts, and no more.
        self.wait_reason("disk:stick", "present", "worker-died")
        self.assertEqual(vmm.ask("devices")["devices"], [])
        self.nothing_left("win")

    def test_worker_stopped(self):
        vmm = self.vmm()
        self.disk()
        pid = self.attached(vmm)["worker_pid"]
        os.kill(pid, signal.SIGSTOP)
        start = time.monotonic()
        wait_until(lambda: self.broker.device("disk:stick")["worker_pid"] != pid)
        self.assertLess(time.monotonic() - start, 2.5)
        self.assertIn("does not answer", self.log())
        self.broker.wait_state("disk:stick", "configured")

    def test_four_at_once(self):
        vmm = self.vmm()
        for n in range(4):
            self.disk(f"s{n}")
        for n in range(4):
            self.broker.cli("attach", f"s{n}", "win")
        for n in range(4):
            self.broker.wait_state(f"disk:s{n}", "configured")
        self.assertEqual(len(vmm.ask("devices")["devices"]), 4)
        for n in range(4):
            self.broker.cli("detach", f"s{n}", "--no-wait")
        self.nothing_left("win")
        self.assertEqual(vmm.ask("devices")["devices"], [])

    def test_two_vms_know_nothing_of_each_other(self):
        one, two = self.vmm("one"), self.vmm("two")
        self.disk()
        self.attached(two, vm="two")
        self.assertEqual(one.ask("devices")["devices"], [])
        self.assertEqual(self.refused(8, "attach", "stick", "one")["code"], "busy")
        self.assertEqual(one.ask("devices")["devices"], [])

    def test_stop_with_leases(self):
        vmm = self.vmm()
        image = self.disk()
        self.attached(vmm)
        vmm.ask("write", 0, "77" * 512)
        self.stopped()
        self.assertEqual(image.read_bytes()[:512], b"\x77" * 512)
        self.assertEqual(vmm.ask("devices")["devices"], [])


class BadVms(BrokerCase):
    def setUp(self):
        super().setUp()
        self.start()

    def test_guest_breaks_the_protocol(self):
        vmm = self.vmm("win", "--guest=bad")
        self.disk()
        self.broker.cli("attach", "stick", "win")
        self.wait_reason("disk:stick", "present", "peer-violation")
        self.assertEqual(vmm.ask("devices")["devices"], [])
        self.nothing_left("win")

    def test_vmm_refuses(self):
        self.vmm("win", "--refuse=no port is free")
        self.disk()
        self.assertEqual(self.refused(16, "attach", "stick", "win", "--wait")["code"], "vmm-refused")
        d = self.wait_reason("disk:stick", "present", "vmm-refused")
        self.assertIn("no port is free", d["detail"])
        self.nothing_left("win")

    def test_qmp_socket_is_taken(self):
        bad = self.vmm("win", "--no-greeting", state="busy")
        self.disk()
        self.broker.cli("attach", "stick", "win")
        self.wait_reason("disk:stick", "decided", "vm-busy")
        self.assertIn("another program", self.broker.vm("win")["detail"])
        bad.kill()
        self.vmm(add=False)
        self.broker.wait_state("disk:stick", "configured")

    def test_paused(self):
        vmm = self.vmm("win", "--paused", state="paused")
        self.disk()
        self.broker.cli("attach", "stick", "win")
        self.broker.wait_state("disk:stick", "connecting")
        self.assertEqual(self.broker.vm("win")["state"], "paused")
        vmm.ask("resume")
        self.broker.wait_state("disk:stick", "configured")

    def test_guest_without_driver(self):
        self.vmm("win", "--guest=no-driver")
        self.disk()
        self.broker.cli("attach", "stick", "win")
        self.broker.wait_state("disk:stick", "attached")
        self.assertEqual(self.broker.device("disk:stick")["detail"], "")
        wait_until(lambda: "10 s" in self.broker.device("disk:stick")["detail"], 12)
        self.assertEqual(self.broker.device("disk:stick")["state"], "attached")

    def test_stale_socket_file(self):
        self.vmm().kill()
        self.broker.wait_vm("win", "gone")
        self.disk()
        self.broker.cli("attach", "stick", "win")
        self.wait_reason("disk:stick", "decided", "vm-gone")


if __name__ == "__main__":
    leftovers.main(verbosity=2)
