#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What devbrokerd answers to requests that it can't fulfil, and how it starts and stops."""
import os
import signal
import subprocess
import time
import unittest
from pathlib import Path

from broker_case import IFACE, ROOT, BrokerCase, processes_with_parent, wait_until
import leftovers


class Requests(BrokerCase):
    def setUp(self):
        super().setUp()
        self.start()

    def busctl(self, *words, code=0):
        p = subprocess.run(["busctl", f"--address=unix:path={self.broker.run_dir}/bus", *words],
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=20)
        self.assertEqual(p.returncode != 0, code != 0, p.stdout)
        return p.stdout

    def test_names(self):
        for name in ("alpha", "alpine", "beta"):
            self.disk(name, "--serial", f"{name.upper()}0123456789")
        self.broker.cli("vm", "add", "v", "--qmp", self.work / "v.qmp")
        self.broker.cli("vm", "add", "vmx", "--qmp", self.work / "vmx.qmp")
        # A full name stands over the names that it begins; so do a short name, a serial number, a prefix.
        for name, device in (("disk:alpha", "disk:alpha"), ("alpine", "disk:alpine"),
                             ("BETA0123456789", "disk:beta"), ("b", "disk:beta"), ("disk:b", "disk:beta")):
            self.broker.cli("attach", name, "v")
            self.assertEqual(self.broker.device(device)["vm"], "v")
            self.broker.cli("detach", name)
        error = self.refused(6, "attach", "alp", "v")
        self.assertIn("disk:alpha", error["message"])
        self.assertIn("disk:alpine", error["message"])
        self.assertNotIn("disk:beta", error["message"])
        self.assertEqual(self.refused(5, "attach", "gamma", "v")["code"], "not-found")
        self.assertEqual(self.refused(5, "attach", "", "v")["code"], "not-found")
        self.assertEqual(self.refused(5, "attach", "alpha", "w")["code"], "not-found")
        # Nothing of a client's words reaches the terminal or the log as it is.
        self.assertNotIn("\x1b", self.refused(5, "attach", "\x1b[31mred", "v")["message"])

    def test_images(self):
        image = self.image()
        self.broker.cli("disk", "add", image, "--name", "one")
        error = self.refused(12, "disk", "add", image, "--name", "two")
        self.assertIn("disk:one", error["message"])
        # The same under another name of the file.
        os.link(image, self.work / "link.img")
        self.refused(12, "disk", "add", self.work / "link.img", "--name", "two")
        self.assertEqual(self.refused(7, "disk", "add", self.image("other.img"), "--name", "one")["code"], "exists")
        self.broker.cli("disk", "remove", "one")
        self.broker.cli("disk", "add", image, "--name", "two")
        self.broker.cli("disk", "remove", "two")
        self.assertEqual(self.broker.cli("list")["devices"], [])
        self.nothing_left()

    def test_what_is_lent_stays(self):
        vmm = self.vmm()
        self.disk()
        self.attached(vmm)
        self.assertEqual(self.refused(8, "disk", "remove", "stick")["code"], "busy")
        self.assertEqual(self.refused(8, "vm", "remove", "win")["code"], "busy")
        self.assertEqual(self.broker.device("disk:stick")["state"], "configured")
        self.broker.cli("detach", "stick")
        self.broker.cli("disk", "remove", "stick")
        self.broker.cli("vm", "remove", "win")
        wait_until(lambda: self.broker.idle()["children"] == ["spawner"])

    def test_device_quota(self):
        self.broker.cli("vm", "add", "win", "--qmp", self.work / "win.qmp", "--devices-max", "2")
        for n in range(3):
            self.disk(f"s{n}")
        self.broker.cli("attach", "s0", "win")
        self.broker.cli("attach", "s1", "win")
        self.assertIn("2 of 2", self.refused(10, "attach", "s2", "win")["message"])
        self.broker.cli("detach", "s0")
        self.broker.cli("attach", "s2", "win")
        self.assertEqual(self.broker.vm("win")["quota"]["devices"], {"used": 2, "limit": 2})

    def test_busctl_understands_it(self):
        self.disk()
        self.broker.cli("vm", "add", "win", "--qmp", self.work / "win.qmp")
        tree = self.busctl("tree", "--list", IFACE)
        for path in (ROOT, f"{ROOT}/device/disk_3astick", f"{ROOT}/vm/win"):
            self.assertIn(path, tree.split())
        text = self.busctl("introspect", IFACE, ROOT)
        for member in ("AddVM", "Attach", "Detach", "RefreshVMs", "Refused", "GetManagedObjects"):
            self.assertIn(member, text)
        self.busctl("call", IFACE, ROOT, IFACE, "Attach", "ssa{sv}", "stick", "win", "0")
        self.assertIn('"decided"', self.busctl("get-property", IFACE, f"{ROOT}/device/disk_3astick",
                                               "org.devbroker.Device1", "State"))

    def test_options_are_checked(self):
        def add_vm(*options):
            return self.busctl("call", IFACE, ROOT, IFACE, "AddVM", "sa{sv}", "x", str(len(options) // 3), *options,
                               code=1)
        qmp = str(self.work / "x.qmp")
        for options, word in (((), "QMP socket"),
                              (("qmp", "s", "relative.qmp"), "absolute"),
                              (("qmp", "s", "/" + "x" * 200), "QMP socket"),
                              (("qmp", "u", "7"), "wrong type"),
                              (("qmp", "s", qmp, "colour", "s", "red"), "no option colour"),
                              (("qmp", "s", qmp, "bus", "s", "x,addr=1"), "no name of a bus"),
                              (("qmp", "s", qmp, "bus", "s", "x" * 5000), "no name of a bus"),
                              (("qmp", "s", qmp, "devices-max", "u", "65"), "at most 64"),
                              (("qmp", "s", qmp, "transfers-in-flight-max", "u", "0"), "between 1 and"),
                              (("qmp", "s", qmp, "bytes-in-flight-max", "t", "1"), "between 1 and 32 MiB")):
            with self.subTest(options=[o[:20] for o in options]):
                self.assertIn(word, add_vm(*options))
        self.assertEqual(self.broker.cli("vm", "list")["vms"], [])
        for name in ("", "a/b", "-x", "x" * 64, "a b"):
            self.assertIn("no name", self.busctl("call", IFACE, ROOT, IFACE, "AddVM", "sa{sv}", "--", name, "1",
                                                 "qmp", "s", qmp, code=1))

    def test_read_by_others_but_not_changed(self):
        if os.getuid() != 0:
            self.skipTest("takes root")
        bus = self.broker.run_dir / "bus"
        nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "busctl",
                  f"--address=unix:path={bus}"]
        self.assertEqual(bus.stat().st_mode & 0o777, 0o660)
        self.assertNotEqual(subprocess.run([*nobody, "tree", IFACE], capture_output=True).returncode, 0)
        # An administrator may open it up for reading.
        bus.chmod(0o666)
        p = subprocess.run([*nobody, "get-property", IFACE, ROOT, IFACE, "Version"], capture_output=True, text=True)
        self.assertEqual(p.returncode, 0, p.stderr)
        self.disk()
        self.broker.cli("vm", "add", "x", "--qmp", self.work / "x.qmp")
        self.broker.cli("attach", "stick", "x")
        for call in (["AddVM", "sa{sv}", "x", "1", "qmp", "s", "/x"], ["RemoveVM", "s", "x"],
                     ["RemoveDisk", "s", "stick"], ["Attach", "ssa{sv}", "stick", "x", "0"],
                     ["Detach", "sa{sv}", "stick", "0"]):
            p = subprocess.run([*nobody, "call", IFACE, ROOT, IFACE, *call], capture_output=True, text=True)
            self.assertIn("may not", p.stderr, call)
        # What is the owner's: neither where things are nor sentences about them.
        p = subprocess.run([*nobody, "call", IFACE, ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects"],
                           capture_output=True, text=True)
        self.assertIn("disk:stick", p.stdout)
        self.assertNotIn(str(self.work), p.stdout)
        self.broker.cli("detach", "stick")
        self.assertEqual([d["name"] for d in self.broker.cli("list")["devices"]], ["disk:stick"])


class Start(BrokerCase):
    def run_to_the_end(self):
        p = subprocess.run(self.broker.argv(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=20)
        self.assertEqual(processes_with_parent(os.getpid()), [])
        return p.returncode, p.stdout

    def test_configuration_errors(self):
        """Exit code 20, one sentence with file and line, nothing done."""
        image = self.image()
        good = f"[disk]\nimage={image}\nvm=win\n"
        vm = f"[vm]\nqmp={self.work}/win.qmp\n"
        for files, place in (({"devbroker.conf": "[broker]\nsandbox=none\n"}, "devbroker.conf:2:"),
                             ({"devbroker.conf": "[broker]\n\ncolour=red\n"}, "devbroker.conf:3:"),
                             ({"vms.d/win.conf": "[vm]\nqmp=relative\n"}, "vms.d/win.conf:2:"),
                             ({"vms.d/win.conf": vm + "[quota]\ndevices=many\n"}, "vms.d/win.conf:4:"),
                             ({"disks.d/s.conf": good}, "disks.d/s.conf:3:"),
                             # The first disk is lent before the second one is looked at.
                             ({"vms.d/win.conf": vm, "disks.d/a.conf": good,
                               "disks.d/b.conf": good.replace("vm=win", "vm=w")}, "disks.d/b.conf:3:")):
            with self.subTest(files=list(files)):
                for name in ("devbroker.conf", "vms.d/win.conf", "disks.d/s.conf"):
                    (self.broker.config / name).unlink(missing_ok=True)
                for name, text in files.items():
                    path = self.broker.config / name
                    path.write_text(text)
                    path.chmod(0o644)
                code, said = self.run_to_the_end()
                self.assertEqual(code, 20, said)
                self.assertIn(place, said)
                self.assertEqual(len(said.strip().splitlines()), 1, said)
                self.assertFalse((self.broker.run_dir / "bus").exists())

    def test_missing_image_stops_nothing(self):
        conf = self.broker.config / "disks.d/late.conf"
        image = self.work / "late.img"
        conf.write_text(f"[disk]\nimage={image}\n")
        conf.chmod(0o644)
        self.start()
        d = self.broker.device("disk:late")
        self.assertEqual((d["state"], d["reason"], d["size_bytes"]), ("present", "image-invalid", 0), d)
        self.vmm()
        self.assertEqual(self.refused(11, "attach", "late", "win")["code"], "image-invalid")
        image.write_bytes(bytes(1 << 20))
        self.broker.cli("attach", "late", "win", "--wait")
        self.assertEqual(self.broker.device("disk:late")["size_bytes"], 1 << 20)

    def test_second_one_is_refused(self):
        self.start()
        code, said = self.run_second()
        self.assertEqual(code, 8, said)
        self.assertIn(f"another devbrokerd (pid {self.broker.process.pid})", said)
        self.assertEqual(self.broker.cli("list")["devices"], [])

    def run_second(self):
        p = subprocess.run(self.broker.argv(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=20)
        return p.returncode, p.stdout

    def test_stop_while_busy(self):
        """Stopping is bounded whatever is under way."""
        for moment in ("claiming", "stopped worker", "no greeting"):
            with self.subTest(moment=moment):
                self.broker.start()
                vmm = self.vmm("win", *(["--no-greeting"] if moment == "no greeting" else []),
                               state="busy" if moment == "no greeting" else "up")
                self.disk()
                if moment == "stopped worker":
                    os.kill(self.attached(vmm)["worker_pid"], signal.SIGSTOP)
                else:
                    self.broker.cli("attach", "stick", "win")
                start = time.monotonic()
                self.stopped()
                self.assertLess(time.monotonic() - start, 10)
                vmm.kill()

    def test_bad_command_lines(self):
        for words in (["--colour"], ["--log-level", "loud"], ["argument"]):
            p = subprocess.run([self.broker.argv()[0], *words], capture_output=True, text=True, timeout=10)
            self.assertEqual(p.returncode, 2, words)
            self.assertTrue(p.stderr.strip(), words)
        p = subprocess.run([*self.broker.argv(), "--libexec", str(self.work)], capture_output=True, text=True, timeout=10)
        self.assertNotEqual(p.returncode, 0)
        self.assertIn("devbroker-usb", p.stderr)


if __name__ == "__main__":
    leftovers.main(verbosity=2)
