#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Ways to a VM without QMP: slots, streams in both directions, exports; their ends, their refusals, a broker's restart."""
import contextlib
import os
import select
import socket
import stat
import threading
import unittest

from broker_case import BrokerCase, wait_until
import leftovers
import usbredir


class Guest(threading.Thread):
    """A VMM with one usb-redir device: over each connection that connect() gives it drives what it is shown."""

    def __init__(self, connect, again=True):
        super().__init__(daemon=True)
        self.connect = connect
        self.again = again
        self.over = threading.Event()
        self.stick = None
        self.sock = None
        self.connections = 0
        self.error = None
        self.start()

    def run(self):
        while not self.over.is_set():
            try:
                self.sock = self.connect()
            except OSError:
                self.over.wait(0.1)
                continue
            self.connections += 1
            self.serve()
            self.sock.close()
            if not self.again:
                return
            self.over.wait(0.2)

    def serve(self):
        stick = usbredir.Stick(self.sock)
        try:
            while not self.over.is_set() and not self.readable():
                pass
            # A VMM says hello when it has connected; what it says is read when there is a device.
            stick.start().ready()
            self.stick = stick
            # What is read belongs to who uses the stick.
            end = select.poll()
            end.register(self.sock, select.POLLRDHUP)
            while not self.over.is_set() and not end.poll(100):
                pass
        except (OSError, usbredir.PeerError) as e:
            self.error = e
        finally:
            self.stick = None

    def readable(self):
        return bool(select.select([self.sock], [], [], 0.1)[0])

    def hang_up(self):
        self.sock.shutdown(socket.SHUT_RDWR)

    def end(self):
        self.over.set()
        if self.sock:
            try:
                self.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self.join(10)


def to_unix(path):
    def connect():
        s = socket.socket(socket.AF_UNIX)
        try:
            s.connect(str(path))
        except OSError:
            s.close()
            raise
        return s
    return connect


def to_tcp(port):
    return lambda: socket.create_connection(("127.0.0.1", port), timeout=5)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class WaysCase(BrokerCase):
    def guest(self, connect, again=True):
        g = Guest(connect, again)
        self.addCleanup(g.end)
        return g

    def usable(self, guest, image):
        """What the guest writes is in the image."""
        wait_until(lambda: guest.stick)
        data = os.urandom(512)
        self.assertTrue(guest.stick.write(5, data))
        self.assertEqual(guest.stick.read(5, 1), data)
        self.assertEqual(image.read_bytes()[5 * 512:6 * 512], data)

    def slot(self, i=0, vm="win"):
        return self.broker.run_dir / "vm" / vm / f"usb{i}.sock"


class Slots(WaysCase):
    def setUp(self):
        super().setUp()
        self.start()
        self.broker.cli("vm", "add", "win", "--slots", "2")
        self.images = [self.disk(f"s{i}") for i in range(3)]
        self.note_idle()

    def test_lent_returned_and_lent_again(self):
        self.assertEqual(stat.S_IMODE(self.slot().stat().st_mode), 0o600)
        self.assertEqual(self.broker.vm("win")["state"], "gone")
        self.broker.cli("attach", "s0", "win")
        guests = [self.guest(to_unix(self.slot(i))) for i in range(2)]
        self.broker.wait_state("disk:s0", "configured")
        wait_until(lambda: any(g.stick for g in guests))
        self.usable(next(g for g in guests if g.stick), self.images[0])
        vm = self.broker.vm("win")
        self.assertEqual((vm["state"], vm["vmm_pid"], vm["qmp"]), ("up", os.getpid(), ""))
        self.assertEqual(sorted(s["state"] for s in vm["streams"]), ["connected", "lent"])
        self.attached(None, "disk:s1")
        # All are in use: said at once, and nothing is kept.
        error = self.refused(10, "attach", "s2", "win")
        self.assertEqual(error["code"], "quota")
        self.assertIn("all of its 2 slots are in use", error["message"])
        # Each detach ends the connection: the next device is seen by a VMM with a clean state.
        before = sum(g.connections for g in guests)
        self.broker.cli("detach", "s0")
        self.attached(None, "disk:s2")
        self.assertEqual(sum(g.connections for g in guests), before + 1)
        self.assertEqual(self.log().count("vm win: gone"), 0, "it flapped")
        for d in ("s1", "s2"):
            self.broker.cli("detach", d)
        for g in guests:
            g.end()
        self.broker.wait_vm("win", "gone")
        self.nothing_left("win")
        self.broker.cli("vm", "remove", "win")
        self.assertFalse(self.slot().exists())
        self.stopped()

    def test_vmm_restarts(self):
        guest = self.guest(to_unix(self.slot()))
        self.attached(None, "disk:s0")
        for _ in range(3):
            guest.end()
            self.wait_reason("disk:s0", "decided", "vm-gone")
            self.broker.wait_vm("win", "gone")
            guest = self.guest(to_unix(self.slot()))
            self.broker.wait_state("disk:s0", "configured", 5)
            self.usable(guest, self.images[0])
        # Its only connection is gone for a moment, which is no end of the VM.
        gone = self.log().count("vm win: gone")
        self.assertEqual(gone, 3)
        self.broker.cli("detach", "s0")
        wait_until(lambda: guest.connections == 2)
        self.broker.wait_vm("win", "up")
        self.assertEqual(self.log().count("vm win: gone"), gone)
        guest.end()
        self.broker.wait_vm("win", "gone")
        self.nothing_left("win")
        self.stopped()

    def test_hangs_up_each_time(self):
        """It is tried less and less, not in a loop."""
        self.broker.cli("attach", "s0", "win")
        for _ in range(40):
            with contextlib.suppress(OSError), to_unix(self.slot())() as s:
                s.settimeout(0.05)
                s.recv(1)
        self.assertLessEqual(self.log().count("disk:s0: connecting"), 4)
        self.broker.cli("detach", "s0")
        self.nothing_left("win")

    def test_silent_and_loud_without_a_device(self):
        """What comes while nothing is lent stays in the kernel, and costs nothing."""
        s = to_unix(self.slot())()
        self.broker.wait_vm("win", "up")
        s.setblocking(False)
        sent = 0
        try:
            while sent < 64 << 20:
                sent += s.send(bytes(65536))
        except BlockingIOError:
            pass
        self.assertLess(sent, 8 << 20)
        second = to_unix(self.slot())()
        second.settimeout(0.2)
        self.assertRaises(TimeoutError, second.recv, 1)
        s.close()
        second.close()
        self.broker.wait_vm("win", "gone")
        self.nothing_left("win")
        self.stopped()

    def test_broker_restarts(self):
        guest = self.guest(to_unix(self.slot()))
        d = self.attached(None, "disk:s0")
        for _ in range(2):
            self.broker.kill()
            self.broker.start()
            after = self.broker.device("disk:s0")
            self.assertEqual((after["state"], after["worker_pid"]), ("configured", d["worker_pid"]), self.log()[-1500:])
            self.broker.wait_vm("win", "up")
            self.usable(guest, self.images[0])
        self.images[1] = self.disk("s1")
        self.note_idle()
        self.broker.cli("attach", "s1", "win")
        self.assertEqual(self.broker.device("disk:s1")["state"], "decided")
        second = self.guest(to_unix(self.slot(1)))
        self.broker.wait_state("disk:s1", "configured")
        self.assertEqual(guest.connections, 1)
        for i, g in ((0, guest), (1, second)):
            self.usable(g, self.images[i])
            self.broker.cli("detach", f"s{i}")
            g.end()
        self.broker.wait_vm("win", "gone")
        self.stopped()


class Streams(WaysCase):
    def setUp(self):
        super().setUp()
        self.ports = [free_port(), free_port()]
        self.files = {
            "vms.d/calls.conf": f"[usb]\nstream=tcp:127.0.0.1:{self.ports[0]}\nstream=unix:{self.work}/out.sock\n",
            "vms.d/called.conf": f"[usb]\nlisten=tcp:127.0.0.1:{self.ports[1]}\nlisten=unix:{self.work}/in.sock\n"}
        from broker import Broker
        self.broker = Broker(os.environ["DEVBROKER_BUILD"], self.work, self.files)
        self.addCleanup(self.broker.kill)

    def server(self, family, address):
        s = socket.socket(family)
        if family == socket.AF_INET:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(address)
        s.listen(1)
        s.settimeout(5)
        self.addCleanup(s.close)
        return lambda: s.accept()[0]

    def test_it_calls(self):
        self.start()
        images = [self.disk(f"s{i}") for i in range(2)]
        for i in range(2):
            self.broker.cli("attach", f"s{i}", "calls")
        guests = [self.guest(self.server(socket.AF_INET, ("127.0.0.1", self.ports[0]))),
                  self.guest(self.server(socket.AF_UNIX, f"{self.work}/out.sock"))]
        for i in range(2):
            self.broker.wait_state(f"disk:s{i}", "configured")
        by_device = {s["device"]: s["address"] for s in self.broker.vm("calls")["streams"]}
        for i in range(2):
            guest = guests[0] if by_device[f"disk:s{i}"].startswith("tcp:") else guests[1]
            self.usable(guest, images[i])
            self.broker.cli("detach", f"s{i}")
        wait_until(lambda: all(s["state"] == "connected" for s in self.broker.vm("calls")["streams"]))
        for g in guests:
            g.end()
        self.stopped()

    def test_it_is_called(self):
        (self.work / "in.sock").write_text("")
        with self.assertRaises(Exception):
            self.broker.start(1)
        self.assertIn("something else is there", self.log())
        (self.work / "in.sock").unlink()
        self.broker.process = None
        self.start()
        image = self.disk("s0")
        for connect in (to_tcp(self.ports[1]), to_unix(self.work / "in.sock")):
            guest = self.guest(connect)
            self.attached(None, "disk:s0", "called")
            self.usable(guest, image)
            self.broker.cli("detach", "s0")
            guest.end()
        self.stopped()
        self.assertFalse((self.work / "in.sock").exists())


class Exports(WaysCase):
    def setUp(self):
        super().setUp()
        self.start()
        self.image_of = self.disk("stick")
        self.note_idle()
        self.port = free_port()

    def export(self, *options, port=None):
        return self.broker.cli("export", "stick", "--listen", f"127.0.0.1:{port or self.port}", *options)

    def no_vm(self):
        wait_until(lambda: self.broker.cli("vm", "list")["vms"] == [])

    def test_one_client(self):
        d = self.export()["device"]
        name = f"export:127.0.0.1:{self.port}"
        self.assertEqual((d["vm"], d["state"]), (name, "decided"))
        guest = self.guest(to_tcp(self.port), again=False)
        self.broker.wait_state("disk:stick", "configured")
        self.usable(guest, self.image_of)
        self.assertEqual(self.broker.device("disk:stick")["vm"], name)
        guest.end()
        self.wait_reason("disk:stick", "present", "vm-gone")
        self.no_vm()
        self.assertRaises(OSError, to_tcp(self.port))
        self.nothing_left()
        self.stopped()

    def test_keeps_and_is_taken_back(self):
        self.export("--keep", "--read-only")
        for _ in range(2):
            guest = self.guest(to_tcp(self.port), again=False)
            self.broker.wait_state("disk:stick", "configured")
            wait_until(lambda: guest.stick)
            self.assertFalse(guest.stick.write(5, bytes(512)))
            self.assertEqual(guest.stick.sense()[0], 7)
            guest.end()
            self.broker.wait_state("disk:stick", "decided")
        self.broker.cli("detach", "stick")
        self.no_vm()
        self.nothing_left()
        self.stopped()

    def test_unix_socket_of_the_client(self):
        path = self.work / "mine.sock"
        self.broker.cli("export", "stick", "--listen", path)
        guest = self.guest(to_unix(path), again=False)
        self.broker.wait_state("disk:stick", "configured")
        self.usable(guest, self.image_of)
        self.assertEqual(self.broker.device("disk:stick")["vm"], "export:unix:0")
        self.broker.cli("detach", "stick")
        self.no_vm()
        self.broker.cli("export", "stick", "--listen", path)
        self.assertEqual(self.refused(1, "export", "stick", "--listen", path)["code"], "failed")
        self.broker.cli("detach", "stick")
        self.stopped()

    def test_broker_restarts(self):
        path = self.work / "mine.sock"
        other = self.disk("other")
        self.export("--keep")
        self.broker.cli("export", "other", "--listen", path)
        guests = [self.guest(to_tcp(self.port), again=False), self.guest(to_unix(path), again=False)]
        for d in ("disk:stick", "disk:other"):
            self.broker.wait_state(d, "configured")
        self.broker.kill()
        self.broker.start()
        for d, guest, image in (("disk:stick", guests[0], self.image_of), ("disk:other", guests[1], other)):
            self.broker.wait_state(d, "configured")
            self.usable(guest, image)
            guest.end()
        self.broker.wait_state("disk:other", "present")
        self.broker.wait_state("disk:stick", "decided")
        guest = self.guest(to_tcp(self.port), again=False)
        self.broker.wait_state("disk:stick", "configured")
        self.usable(guest, self.image_of)
        self.broker.cli("detach", "stick")
        self.no_vm()
        # One that waited at a socket of the client's can't go on: it is over.
        path.unlink()
        self.broker.cli("export", "other", "--listen", path)
        self.broker.kill()
        self.broker.start()
        self.no_vm()
        self.stopped()

    def test_refusals(self):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            s.listen()
            e = self.refused(8, "export", "stick", "--listen", f"127.0.0.1:{s.getsockname()[1]}")
        self.assertEqual(e["code"], "busy")
        for address in ("0.0.0.0:4000", "[::]:4000", "192.0.2.1:4000"):
            e = self.refused(9, "export", "stick", "--listen", address)
            self.assertEqual(e["code"], "denied")
            self.assertIn("neither authentication nor encryption", e["message"])
        for address in ("4000", "host:4000", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:99999"):
            self.assertEqual(self.refused(4, "export", "stick", "--listen", address)["code"], "invalid")
        self.refused(2, "export", "stick")
        self.export()
        self.assertEqual(self.refused(8, "export", "stick", "--listen", "127.0.0.1:1")["code"], "busy")
        self.disk("other")
        self.assertEqual(self.refused(8, "export", "other", "--listen", f"127.0.0.1:{self.port}")["code"], "busy")
        self.broker.cli("detach", "stick")
        self.no_vm()
        self.stopped()


if __name__ == "__main__":
    leftovers.main(verbosity=2)
