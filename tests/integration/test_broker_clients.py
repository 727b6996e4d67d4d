#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Clients of the control socket that are hostile, broken or too many, while a stick is lent and must not notice."""
import os
import random
import resource
import struct
import time
import unittest

# Memory is measured here, and what is filled with a pattern counts as used.
os.environ.pop("MALLOC_PERTURB_", None)

from broker_case import IFACE, ROOT, BrokerCase, RawBus, cpu_seconds, wait_until
import leftovers

MANAGER = (ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects")
RETURN, ERROR = 2, 3


class Clients(BrokerCase):
    def setUp(self):
        super().setUp()
        self.start()
        self.guest = self.vmm()
        self.image_path = self.disk()
        self.worker = self.attached(self.guest)["worker_pid"]
        self.fds = None
        wait_until(lambda: self.fds == (now := self.broker.fds()) or setattr(self, "fds", now), step=0.05)

    def tearDown(self):
        """The lease has not noticed, nothing of the clients is left, and the broker ends in order."""
        self.assertEqual(self.guest.ask("read", 0, 1)["data"], self.image_path.read_bytes()[:512].hex())
        d = self.broker.device("disk:stick")
        self.assertEqual((d["state"], d["worker_pid"]), ("configured", self.worker))
        wait_until(lambda: self.broker.fds() <= self.fds)
        self.stopped()

    def answers(self):
        """Somebody else is served at once."""
        start = time.monotonic()
        with RawBus(self.broker) as c:
            self.assertEqual(c.call(*MANAGER)[0], RETURN)
        return time.monotonic() - start

    def test_raw_client_is_understood(self):
        with RawBus(self.broker) as c:
            self.assertEqual(c.call("/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello")[0], RETURN)
            kind, body = c.call(*MANAGER)
            self.assertEqual(kind, RETURN)
            self.assertIn(b"disk:stick", body)
            kind, body = c.call(ROOT, IFACE, "RemoveVM", "nothing")
            self.assertEqual(kind, ERROR)
            self.assertIn(b"there is no VM nothing\nSee what there is", body)
            for wrong in ((ROOT, IFACE, "NoSuchMethod"), (ROOT + "/device/nothing", IFACE, "X"),
                          (ROOT, IFACE, "RemoveVM"), (ROOT, IFACE, "RemoveVM", "a", "b")):
                self.assertEqual(c.call(*wrong)[0], ERROR, wrong)

    def test_malformed_bytes(self):
        """10,000 messages with a few bytes changed, cut or invented, a new connection whenever it was too much."""
        rng = random.Random(2)
        rss = self.broker.rss_kib()
        sent = connections = 0
        while sent < 10000:
            connections += 1
            c = RawBus(self.broker)
            good = [c.message(*MANAGER), c.message(ROOT, IFACE, "Attach", "stick", "win"),
                    c.message(ROOT, IFACE, "RemoveDisk", "nothing")]
            try:
                # The answers are read, or it would be dropped for another reason.
                for _ in range(50):
                    data = bytearray(rng.choice(good))
                    for _ in range(rng.randint(1, 4)):
                        data[rng.randrange(len(data))] = rng.randrange(256)
                    if rng.random() < 0.1:
                        data = data[:rng.randrange(len(data))]
                    sent += 1
                    c.sock.sendall(data)
                    c.sock.setblocking(False)
                    try:
                        if not c.sock.recv(1 << 20):
                            break
                    except BlockingIOError:
                        pass
                    c.sock.settimeout(10)
            except (BrokenPipeError, ConnectionResetError):
                pass
            c.close()
            if connections % 50 == 0:
                self.assertLess(self.answers(), 1)
        print(f"{sent} messages on {connections} connections, memory {rss} to {self.broker.rss_kib()} KiB")
        if "asan" not in os.environ["DEVBROKER_BUILD"]:
            self.assertLess(self.broker.rss_kib(), rss + 8192)

    def test_malformed_authentication(self):
        rng = random.Random(3)
        for n in range(300):
            c = RawBus(self.broker, authenticate=False)
            try:
                c.sock.sendall(rng.choice([b"\0AUTH EXTERNAL 30\r\n" * 50, bytes(rng.randbytes(200)), b"GET / HTTP/1.1\r\n\r\n",
                                           b"\0" * 4096, b"\0AUTH ANONYMOUS\r\n", b"\0AUTH EXTERNAL zz\r\nBEGIN\r\n",
                                           b"\0BEGIN\r\n", b"x" * 70000]))
            except (BrokenPipeError, ConnectionResetError):
                pass
            c.close()
        self.assertLess(self.answers(), 1)

    def test_somebody_elses_uid(self):
        with RawBus(self.broker, authenticate=False) as c:
            c.sock.sendall(b"\0AUTH EXTERNAL " + b"12345".hex().encode() + b"\r\nBEGIN\r\n")
            try:
                self.assertFalse(c.sock.recv(100).startswith(b"OK"))
            except ConnectionResetError:
                pass

    def test_never_authenticates(self):
        c = RawBus(self.broker, authenticate=False)
        c.sock.sendall(b"\0AUTH EXT")
        start = time.monotonic()
        c.sock.settimeout(15)
        self.assertEqual(c.sock.recv(1), b"")
        self.assertLess(time.monotonic() - start, 12)
        c.close()

    def test_never_reads_answers(self):
        rss = self.broker.rss_kib()
        c = RawBus(self.broker)
        c.sock.settimeout(2)
        call = c.message(*MANAGER)
        with self.assertRaises((BrokenPipeError, ConnectionResetError, TimeoutError)):
            for _ in range(100000):
                c.sock.sendall(call)
        wait_until(lambda: "does not read; dropped" in self.log())
        self.assertLess(self.answers(), 1)
        if "asan" not in os.environ["DEVBROKER_BUILD"]:
            self.assertLess(self.broker.rss_kib(), rss + 16384)
        c.close()

    def test_never_reads_signals(self):
        rss = self.broker.rss_kib()
        self.broker.cli("vm", "add", "other", "--qmp", self.work / "other.qmp")
        self.disk("o")
        with RawBus(self.broker) as deaf, RawBus(self.broker) as busy:
            self.assertEqual(deaf.call(*MANAGER)[0], RETURN)
            for n in range(3000):
                # Each tells everybody what has changed.
                self.assertEqual(busy.call(ROOT, IFACE, "Attach", "o", "other", options=True)[0], RETURN)
                self.assertEqual(busy.call(ROOT, IFACE, "Detach", "o", options=True)[0], RETURN)
                if n % 50 == 0 and "does not read; dropped" in self.log():
                    break
            # Not assertIn: it would print the whole log.
            self.assertTrue("does not read; dropped" in self.log())
        if "asan" not in os.environ["DEVBROKER_BUILD"]:
            self.assertLess(self.broker.rss_kib(), rss + 8192)
        self.broker.cli("disk", "remove", "o")
        self.broker.cli("vm", "remove", "other")

    def endless_message(self, connections):
        """Each begins a message of 100 MiB and sends a tenth of it, if it may. Returns MiB sent, and those that stay."""
        rss, sent = self.broker.rss_kib(), 0
        before = self.log().count("sends a message that is too long; dropped")
        held = [RawBus(self.broker) for _ in range(connections)]
        for c in held:
            c.sock.settimeout(10)
            c.sock.sendall(struct.pack("<cBBBIII", b"l", 1, 0, 1, 100 << 20, 1, 8) + bytes(8))
            try:
                for _ in range(10 << 4):
                    c.sock.sendall(bytes(1 << 16))
                    sent += 1 << 16
            except (BrokenPipeError, ConnectionResetError):
                pass
        wait_until(lambda: self.log().count("sends a message that is too long; dropped") >= before + connections)
        left = self.broker.rss_kib() - rss
        for c in held:
            c.close()
        self.assertLess(self.answers(), 1)
        return sent >> 20, left >> 10

    # A sanitizer's heap is not the one whose growth is looked at.
    @unittest.skipIf("asan" in os.environ["DEVBROKER_BUILD"], "not with sanitizers")
    def test_messages_without_end(self):
        if os.getuid() == 0:
            (self.broker.run_dir / "bus").chmod(0o666)
            os.seteuid(65534)  # a connection is of who connects
            try:
                sent, memory = self.endless_message(8)
            finally:
                os.seteuid(0)
            print(f"8 connections of nobody: {sent} MiB sent, {memory} MiB of memory stay")
            self.assertLess(memory, 24)
        sent, memory = self.endless_message(4)
        print(f"4 connections of the broker's user: {sent} MiB sent, {memory} MiB of memory stay")
        self.assertLess(memory, 24)

    def test_connection_flood(self):
        """One user gets so many connections; beyond them there is an end at once, and no harm."""
        held, refused = [], 0
        for _ in range(500):
            c = RawBus(self.broker, authenticate=False)
            try:
                c.authenticate()
                held.append(c)
            except (IndexError, AssertionError, BrokenPipeError, ConnectionResetError):
                refused += 1
                c.close()
        self.assertLessEqual(len(held), 32)
        self.assertGreaterEqual(refused, 468)
        self.assertLessEqual(self.broker.fds(), self.fds + 34)
        for c in held:
            c.close()
        wait_until(lambda: self.broker.fds() <= self.fds)
        self.assertLess(self.answers(), 1)

    def test_out_of_fds(self):
        """Accepting pauses, nothing spins, what is lent goes on; it recovers."""
        pid = self.broker.process.pid
        limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (self.fds + 2, limits[1]))
        held = []
        for _ in range(10):
            held.append(RawBus(self.broker, authenticate=False))
        wait_until(lambda: "out of file descriptors" in self.log())
        before = cpu_seconds(pid)
        time.sleep(1)
        self.assertLess(cpu_seconds(pid) - before, 0.3)
        self.assertEqual(self.guest.ask("read", 5, 1)["data"], self.image_path.read_bytes()[2560:3072].hex())
        for c in held:
            c.close()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        self.assertLess(self.answers(), 1)


if __name__ == "__main__":
    leftovers.main(verbosity=2)
