#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A worker that outlives its broker: it serves on, knows the next one by the cookie, and ends when none comes."""
import os
import socket
import struct
import threading
import time
import unittest

from lent import *
from usbredir import *

COOKIE = bytes(range(16))


class Orphan(unittest.TestCase):
    def lent(self, seconds=30):
        w = Lent(listen=True)
        self.addCleanup(w.close)
        w.keep(COOKIE, seconds)
        return w

    def end(self, w, s):
        w.detach()
        s.expect(DEVICE_DISCONNECT)
        s.send(DISCONNECT_ACK)
        self.assertEqual(w.done(), ("detached", 0, ""))
        self.assertEqual(w.code, 0)

    def check_held(self, w, held, state):
        self.assertEqual((held["version"], held["stages"], held["state"]), (VERSION, SANDBOX_ALL, state))
        # The open image itself, with its locks and flags: whoever has it may unlock it.
        there, ours = os.fstat(held["fd"]), w.image.stat()
        self.assertEqual((there.st_dev, there.st_ino), (ours.st_dev, ours.st_ino))
        os.close(held["fd"])

    def test_ten_brokers_under_load(self):
        w = self.lent()
        s = Stick(w.sock).start().ready()
        over = threading.Event()
        done, failed = [], []

        def load():
            while not over.is_set():
                data = os.urandom(512)
                lba = len(done) % 1000
                if not s.write(lba, data) or s.read(lba, 1) != data:
                    failed.append(lba)
                done.append(lba)
        thread = threading.Thread(target=load)
        thread.start()
        connected = set()
        for _ in range(10):
            before = len(done)
            w.hang_up()
            while len(done) < before + 20 and thread.is_alive():
                time.sleep(0.005)
            held = w.adopt(COOKIE)
            peer = w.control.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            # The kernel says so, not the worker.
            self.assertEqual(struct.unpack("3i", peer)[0], w.pid)
            connected.add(held["connect_ns"])
            self.check_held(w, held, "configured")
            self.assertGreater(w.counters()["transfers"], 0)
        over.set()
        thread.join()
        self.assertEqual(failed, [])
        self.assertEqual(len(connected), 1)
        self.end(w, s)

    def test_only_with_the_cookie(self):
        w = self.lent()
        s = Stick(w.sock).start().ready()
        early = w.connect()
        w.hang_up()
        wrong = [struct.pack("<II16s", ADOPT, 24, bytes(16)), struct.pack("<II15s", ADOPT, 23, COOKIE[:15]),
                 struct.pack("<IIQ", PING, 16, 1), struct.pack("<II", DETACH, 8), struct.pack("<II16s", ADOPT, 25, COOKIE),
                 b"x", bytes(4096)]
        for message in wrong:
            with w.connect() as c:
                c.send(message)
                self.assertEqual(c.recv(100), b"")
        # One that has connected, and says nothing, is in nobody's way.
        silent = w.connect()
        self.check_held(w, w.adopt(COOKIE), "configured")
        for c in (early, silent):
            c.settimeout(5)
            self.assertEqual(c.recv(100), b"")
            c.close()
        self.assertEqual(len(s.read(0, 8)), 4096)
        self.end(w, s)

    def test_not_while_its_broker_lives(self):
        w = self.lent()
        s = Stick(w.sock).start().ready()
        with w.connect() as c:
            c.send(struct.pack("<II16s", ADOPT, 24, COOKIE))
            c.settimeout(0.3)
            with self.assertRaises(TimeoutError):
                c.recv(100)
            self.assertEqual(len(s.read(0, 8)), 4096)
        self.end(w, s)

    def test_nobody_comes(self):
        w = self.lent(1)
        s = Stick(w.sock).start().ready()
        data = os.urandom(512)
        self.assertTrue(s.write(77, data))
        begin = time.monotonic()
        w.hang_up()
        s.expect(DEVICE_DISCONNECT, 5)
        self.assertGreater(time.monotonic() - begin, 0.9)
        s.send(DISCONNECT_ACK)
        self.assertEqual(w.image.read_bytes()[77 * 512:78 * 512], data)
        self.assertEqual(w.wait(5), EXIT_BROKER_GONE)

    def test_guest_goes_meanwhile(self):
        """What became of it is told to the next broker."""
        w = self.lent()
        Stick(w.sock).start().ready()
        w.hang_up()
        w.sock.shutdown(socket.SHUT_RDWR)
        time.sleep(0.2)
        os.close(w.adopt(COOKIE)["fd"])
        self.assertEqual(w.done(), ("peer-closed", 0, ""))

    def test_guest_goes_and_nobody_comes(self):
        w = self.lent(1)
        Stick(w.sock).start().ready()
        w.hang_up()
        w.sock.shutdown(socket.SHUT_RDWR)
        self.assertEqual(w.wait(5), 0)

    def test_ends_as_before_where_it_was_not_asked_to_stay(self):
        w = Lent(listen=True)
        self.addCleanup(w.close)
        s = Stick(w.sock).start().ready()
        w.hang_up()
        s.expect(DEVICE_DISCONNECT, 1)
        s.send(DISCONNECT_ACK)
        self.assertEqual(w.wait(5), EXIT_BROKER_GONE)


if __name__ == "__main__":
    leftovers.main(verbosity=2)
