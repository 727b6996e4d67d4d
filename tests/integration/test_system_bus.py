#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The control API on a message bus of the test's own: busctl and gdbus as clients of several users, and a polkit that
says what the test wants."""
import json
import os
import pwd
import shutil
import subprocess
import sys
import time
import unittest
from pathlib import Path

from broker_case import IFACE, ROOT, BrokerCase, cpu_seconds, wait_until
import leftovers

# dbus-daemon lets in only users that it finds in passwd.
OWNER, OTHER, THIRD = (pwd.getpwnam(name).pw_uid for name in ("daemon", "bin", "games"))
DENIED = "org.devbroker.Error.Denied"
QUOTA = "org.devbroker.Error.Quota"

CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path={socket}</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><deny own="*"/><deny send_type="method_call"/>
<allow send_type="signal"/><allow send_requested_reply="true" send_type="method_return"/>
<allow send_requested_reply="true" send_type="error"/><allow receive_type="method_call"/>
<allow receive_type="method_return"/><allow receive_type="error"/><allow receive_type="signal"/>
<allow send_destination="org.freedesktop.DBus"/><allow send_destination="org.freedesktop.PolicyKit1"/></policy>
<policy user="root"><allow own="org.freedesktop.PolicyKit1"/></policy>
<include>{policy}</include>
<limit name="max_connections_per_user">512</limit></busconfig>
"""


def as_user(uid):
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"] if uid else []


class Bus:
    """A dbus-daemon with devbroker's policy file."""

    def __init__(self, work):
        self.socket = work / "bus.sock"
        self.config = work / "bus.conf"
        policy = Path(__file__).resolve().parent.parent.parent / "data/org.devbroker.Broker1.conf"
        (work / "policy.conf").write_text(policy.read_text())
        self.config.write_text(CONFIG.format(socket=self.socket, policy=work / "policy.conf"))
        self.address = f"unix:path={self.socket}"
        self.process = None

    def start(self):
        self.socket.unlink(missing_ok=True)
        self.process = subprocess.Popen(["dbus-daemon", "--nofork", "--nopidfile", f"--config-file={self.config}"],
                                        stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(self.socket.exists)

    def stop(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None


@unittest.skipUnless(os.getuid() == 0, "takes root")
class SystemBus(BrokerCase):
    files = {}

    def setUp(self):
        super().setUp()
        self.bus = Bus(self.work)
        self.addCleanup(self.bus.stop)
        plain = self.broker.argv
        self.broker.argv = lambda: [*plain(), "--system-bus", self.bus.address]
        # Of one owner each, and one of nobody.
        (self.broker.config / "vms.d/mine.conf").write_text(
            f"[vm]\nqmp={self.work}/mine.qmp\nowner=daemon 4711\n")
        (self.broker.config / "vms.d/theirs.conf").write_text(f"[vm]\nqmp={self.work}/theirs.qmp\nowner={THIRD}\n")
        self.polkit = None

    def start(self, bus=True):
        if bus:
            self.bus.start()
        super().start()
        if bus:
            self.wait_served()
        return self.broker

    def wait_served(self):
        wait_until(lambda: self.busctl(0, "get-property", IFACE, ROOT, IFACE, "Version").returncode == 0, step=0.1,
                   timeout=30)

    def client(self, uid, *argv):
        return subprocess.run([*as_user(uid), *map(str, argv)], capture_output=True, text=True, timeout=30,
                              env={**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": self.bus.address, "LC_ALL": "C"})

    def busctl(self, uid, *args):
        return self.client(uid, "busctl", f"--address={self.bus.address}", "--timeout=10", *args)

    def gdbus(self, uid, *args):
        return self.client(uid, "gdbus", "call", "--address", self.bus.address, "--dest", IFACE, *args)

    def attach(self, uid, device, vm, *options):
        return self.gdbus(uid, "--object-path", ROOT, "--method", f"{IFACE}.Attach", device, vm, "{}")

    def detach(self, uid, device):
        return self.gdbus(uid, "--object-path", ROOT, "--method", f"{IFACE}.Detach", device, "{}")

    def fake_polkit(self, answer):
        """answer: yes, no, challenge, never. Returns the file that each question is written to."""
        log = self.work / "polkit.log"
        log.write_text("")
        p = subprocess.Popen([sys.executable, str(Path(__file__).with_name("fake_polkit.py")), self.bus.address, answer,
                              str(log)], stdout=subprocess.PIPE, text=True)
        self.addCleanup(lambda: (p.kill(), p.wait(), p.stdout.close()))
        self.assertEqual(p.stdout.readline(), "ready\n")
        self.polkit = p
        return log

    def cli(self, uid, *args):
        # Where a user that may not enter the build folder can run it.
        program = self.work / "devbroker"
        if not program.exists():
            shutil.copy(Path(os.environ["DEVBROKER_BUILD"]) / "broker/devbroker", program)
        return self.client(uid, program, *args)

    def records(self, *args):
        return self.broker.cli("log", *args)["records"]


class Who(SystemBus):
    def test_foreign_clients(self):
        """busctl and gdbus: introspect, tree, properties, calls, signals."""
        self.start()
        p = self.busctl(OTHER, "tree", IFACE)
        self.assertIn("/org/devbroker/vm/mine", p.stdout, p.stderr)
        p = self.busctl(OTHER, "introspect", IFACE, ROOT)
        for word in ("Attach", "Detach", "Log", "Refused", "Offered"):
            self.assertIn(word, p.stdout)
        p = self.client(OTHER, "gdbus", "introspect", "--address", self.bus.address, "--dest", IFACE, "--object-path",
                        "/org/devbroker/vm/mine")
        self.assertIn("interface org.devbroker.VM1", p.stdout, p.stderr)
        monitors = {}
        for name, argv in {"busctl": ["busctl", f"--address={self.bus.address}", "monitor", "--match",
                                      "type='signal',path_namespace='/org/devbroker'"],
                           "gdbus": [*as_user(OTHER), "gdbus", "monitor", "--address", self.bus.address, "--dest", IFACE]
                           }.items():
            out = self.work / f"{name}.out"
            with open(out, "w") as f:
                m = subprocess.Popen(argv, stdout=f, stderr=subprocess.STDOUT)
            self.addCleanup(lambda m=m: (m.kill(), m.wait()))
            monitors[name] = out
        time.sleep(1)  # nobody says when a monitor has begun; below it is asked again until it has
        self.disk()

        def seen():
            self.busctl(0, "call", IFACE, ROOT, IFACE, "Attach", "ssa{sv}", "stick", "mine", "0")
            self.busctl(0, "call", IFACE, ROOT, IFACE, "Detach", "sa{sv}", "stick", "0")
            texts = {n: o.read_text() for n, o in monitors.items()}
            return all("PropertiesChanged" in t and "decided" in t and "Logged" in t for t in texts.values())
        wait_until(seen, timeout=20, step=0.2)
        text = monitors["gdbus"].read_text()
        # Everybody hears these: no sentences, no paths.
        self.assertNotIn(str(self.work), text)
        self.assertIn("['Detail'", text)
        self.assertNotIn("on request", text)

    def test_an_unprivileged_user_on_somebody_elses_vm(self):
        """Refused by name, and nothing changes; the owner may take out, an administrator put in."""
        self.start()
        self.disk()
        for uid in (OTHER, THIRD):
            p = self.attach(uid, "stick", "mine")
            self.assertIn(DENIED, p.stderr)
            self.assertIn("vm mine is somebody else's", p.stderr)
            self.assertIn("group devbroker", p.stderr)
        print(p.stderr.strip())
        # Of its own VM it may not take what no rule offers.
        p = self.attach(OWNER, "stick", "mine")
        self.assertIn("no rule offers it to vm mine", p.stderr)
        self.assertEqual(self.broker.device("disk:stick")["state"], "present")
        self.assertEqual(self.attach(0, "stick", "mine").returncode, 0)
        self.assertEqual(self.broker.device("disk:stick")["vm"], "mine")
        p = self.detach(OTHER, "stick")
        self.assertIn(DENIED, p.stderr)
        p = self.detach(OWNER, "stick")
        self.assertEqual(p.returncode, 0, p.stderr)
        self.assertEqual(self.broker.device("disk:stick")["vm"], "")
        for member, *args in (("RemoveVM", "mine"), ("Forget", "x"), ("ReloadPolicy",), ("RemoveDisk", "stick"),
                              ("AddVM", "v", "{'qmp': <'/x'>}")):
            p = self.gdbus(OWNER, "--object-path", ROOT, "--method", f"{IFACE}.{member}", *args)
            self.assertIn(DENIED, p.stderr, member)
        self.assertEqual(len(self.broker.cli("vm", "list")["vms"]), 2)
        # Who, what, where, why.
        refused = [r for r in self.records("--vm", "mine") if r["action"] == "refused"]
        self.assertEqual([r["uid"] for r in refused], [OTHER, THIRD, OWNER, OTHER])
        self.assertEqual({r["reason"] for r in refused}, {"denied"})

    def test_what_others_see(self):
        self.start()
        self.disk()
        self.broker.cli("attach", "stick", "mine")

        def prop(uid, path, interface, name):
            return self.busctl(uid, "get-property", IFACE, path, interface, name).stdout.strip()
        device, vm = "/org/devbroker/device/disk_3astick", "/org/devbroker/vm/mine"
        for uid, seen in ((0, True), (OWNER, True), (OTHER, False)):
            self.assertEqual(str(self.work) in prop(uid, device, "org.devbroker.Device1", "Path"), seen, uid)
            self.assertEqual(str(self.work) in prop(uid, vm, "org.devbroker.VM1", "Qmp"), seen, uid)
            self.assertEqual(prop(uid, vm, "org.devbroker.VM1", "Owners"), f"au 2 {OWNER} 4711" if seen else "au 0")
            self.assertEqual(prop(uid, device, "org.devbroker.Device1", "VM"), 's "mine"')
            p = self.busctl(uid, "call", IFACE, ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects")
            self.assertEqual(str(self.work / "mine.qmp") in p.stdout, seen)
            self.assertEqual(str(self.work / "theirs.qmp") in p.stdout, uid == 0)

    def test_cli_of_an_ordinary_user(self):
        """It goes by the system bus where the private socket is closed to it, with the same exit codes."""
        self.start()
        self.disk()
        self.broker.cli("attach", "stick", "mine")
        p = self.cli(OTHER, "--system", "detach", "stick", "--json")
        self.assertEqual((p.returncode, json.loads(p.stderr)["code"]), (9, "denied"))
        p = self.cli(OTHER, "--run-dir", self.broker.run_dir, "list")
        self.assertEqual(p.returncode, 3)
        self.assertIn("may not connect", p.stderr)
        for uid, all_of in ((OWNER, True), (OTHER, False)):
            p = self.cli(uid, "--system", "log", "--json")
            self.assertEqual(p.returncode, 0, p.stderr)
            records = json.loads(p.stdout)["records"]
            self.assertEqual(any(r["action"] == "attach" for r in records), all_of, records)
            self.assertTrue(all(r["vm"] == "mine" or r["uid"] == uid for r in records), records)
        p = self.cli(OWNER, "--system", "detach", "stick")
        self.assertEqual(p.returncode, 0, p.stderr)
        p = self.cli(OWNER, "--system", "list", "--json")
        self.assertEqual([d["state"] for d in json.loads(p.stdout)["devices"]], ["present"])
        p = self.cli(OTHER, "--system", "vm", "show", "mine", "--json")
        self.assertEqual((p.returncode, json.loads(p.stdout)["vm"]["owners"]), (0, []))


class Polkit(SystemBus):
    def test_it_is_asked_and_obeyed(self):
        self.start()
        self.disk()
        log = self.fake_polkit("yes")
        self.assertEqual(self.attach(OTHER, "stick", "mine").returncode, 0)
        self.assertEqual(self.broker.device("disk:stick")["vm"], "mine")
        self.assertRegex(log.read_text(), r"^org\.devbroker\.lend :1\.\d+ 0\n$")
        # gdbus does not let it ask for a password; busctl does.
        p = self.busctl(OTHER, "call", IFACE, ROOT, IFACE, "Detach", "sa{sv}", "stick", "0")
        self.assertEqual(p.returncode, 0, p.stderr)
        self.assertRegex(log.read_text(), r"org\.devbroker\.lend :1\.\d+ 1\n$")
        # It speaks for one call, and not for all of them.
        p = self.gdbus(OTHER, "--object-path", ROOT, "--method", f"{IFACE}.AddVM", "v", "{'qmp': <'/x'>}")
        self.assertIn(DENIED, p.stderr)
        # Whose VM it is, or who is root, is nobody's question.
        n = len(log.read_text().splitlines())
        self.attach(0, "stick", "mine")
        self.detach(OWNER, "stick")
        self.assertEqual(len(log.read_text().splitlines()), n)

    def test_no_challenge_never_and_none(self):
        self.start()
        self.disk()
        self.fake_polkit("no")
        self.assertIn(DENIED, self.attach(OTHER, "stick", "mine").stderr)
        self.polkit.kill()
        self.polkit.wait()
        self.fake_polkit("challenge")
        self.assertIn("InteractiveAuthorizationRequired", self.attach(OTHER, "stick", "mine").stderr)
        self.polkit.kill()
        self.polkit.wait()
        # Without it: administrators only.
        self.assertIn(DENIED, self.attach(OTHER, "stick", "mine").stderr)
        log = self.fake_polkit("never")
        # Held, while others are served; a caller that leaves is asked for no more.
        p = subprocess.Popen([*as_user(OTHER), "busctl", f"--address={self.bus.address}", "call", IFACE, ROOT, IFACE,
                              "Attach", "ssa{sv}", "stick", "mine", "0"], stderr=subprocess.DEVNULL)
        wait_until(lambda: "org.devbroker.lend" in log.read_text())
        self.assertEqual(self.attach(0, "stick", "mine").returncode, 0)
        p.kill()
        p.wait()
        wait_until(lambda: "cancel devbroker-" in log.read_text())
        start = time.monotonic()
        self.assertIn(DENIED, self.detach(OTHER, "stick").stderr)
        self.assertLess(time.monotonic() - start, 25)
        self.assertEqual(self.broker.device("disk:stick")["vm"], "mine")
        self.broker.cli("detach", "stick")
        self.stopped()


class BusItself(SystemBus):
    def test_it_comes_late_goes_and_comes_back(self):
        """A bus that is not there is no error; one that comes is found; nothing spins."""
        self.start(bus=False)
        self.assertEqual(self.broker.cli("list")["devices"], [])
        before = cpu_seconds(self.broker.process.pid)
        time.sleep(2)
        self.assertLess(cpu_seconds(self.broker.process.pid) - before, 0.3)
        for _ in range(2):
            self.bus.start()
            self.wait_served()
            self.bus.stop()
            self.assertEqual(self.broker.cli("list")["devices"], [])
        self.assertTrue("the connection is lost" in self.log())
        self.stopped()

    def test_a_user_who_floods(self):
        """Its requests are refused; another user is served meanwhile; the log says so once in a while."""
        self.start()
        code = ("import sys\nsys.path.insert(0, sys.argv[2])\nfrom broker_case import *\n"
                "c = RawBus(sys.argv[1])\n"
                "import os, time\n"
                "c.call('/org/freedesktop/DBus', 'org.freedesktop.DBus', 'Hello', destination='org.freedesktop.DBus')\n"
                "end = time.monotonic() + 4\nok = no = 0\n"
                "while time.monotonic() < end:\n"
                "    kind, body = c.call('/org/devbroker', 'org.devbroker.Broker1', 'Attach', 'x', 'mine', options=True,\n"
                "                        destination='org.devbroker.Broker1')\n"
                "    if b'asks more than' in body: no += 1\n"
                "    else: ok += 1\n"
                "    if no > 600: break\n"
                "print(ok, no, flush=True)\n")
        here = str(Path(__file__).resolve().parent)
        shutil.copytree(here, self.work / "py", ignore=lambda d, names: [n for n in names if not n.endswith(".py")])
        shutil.copytree(Path(here).parent / "lab", self.work / "lab",
                        ignore=lambda d, names: [n for n in names if not n.endswith(".py")])
        flood = subprocess.Popen([*as_user(OTHER), "/usr/bin/python3", "-c", code, str(self.bus.socket),
                                  str(self.work / "py")], stdout=subprocess.PIPE, text=True)
        slowest = 0
        while flood.poll() is None:
            start = time.monotonic()
            p = self.busctl(OWNER, "get-property", IFACE, ROOT, IFACE, "Version")
            slowest = max(slowest, time.monotonic() - start)
            self.assertEqual(p.returncode, 0, p.stderr)
        ok, no = map(int, flood.stdout.read().split())
        flood.stdout.close()
        print(f"flood: {ok} answered, {no} refused; another user's slowest busctl took {slowest:.2f} s")
        self.assertGreater(no, 300)
        self.assertLess(ok, 500)
        self.assertLess(slowest, 5)
        quota = [r for r in self.records() if r["action"] == "quota"]
        self.assertTrue(0 < len(quota) <= 40, len(quota))
        self.assertEqual({r["uid"] for r in quota}, {OTHER})


if __name__ == "__main__":
    leftovers.main(verbosity=2)
