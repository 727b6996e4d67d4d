#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The worker and its broker: what it says on the control socket, in which order, and how each end ends."""
import array
import os
import socket
import struct
import sys
import time
import unittest

from lent import *
from usbredir import *


class States(unittest.TestCase):
    def test_ready_attached_configured(self):
        with Lent() as w:
            w.until(lambda: w.messages)
            self.assertEqual(w.messages, [("ready", VERSION, SANDBOX_ALL)])
            # Hellos go both ways before anything is attached.
            self.assertEqual(w.counters()["state"], STATES.index("connecting"))
            before = time.monotonic_ns()
            s = Stick(w.sock)
            s.greet()
            w.wait_state("attached")
            self.assertEqual(s.configure(1), struct.pack("<BB", OK, 1))
            w.wait_state("configured")
            self.assertEqual(s.configure(0), struct.pack("<BB", OK, 0))
            w.until(lambda: len(w.messages) == 4)
            self.assertEqual(s.configure(1), struct.pack("<BB", OK, 1))
            w.until(lambda: len(w.messages) == 5)
            self.assertEqual(w.states(), ["attached", "configured", "attached", "configured"])
            connected = {m[2] for m in w.messages if m[0] == "state"}
            self.assertEqual(len(connected), 1)
            self.assertTrue(before < connected.pop() < time.monotonic_ns())

    def test_counters(self):
        with Lent() as w:
            s = Stick(w.sock).start().ready()
            was = w.counters()
            self.assertEqual(len(s.read(0, 64)), 64 * 512)
            self.assertTrue(s.write(0, bytes(16 * 512)))
            now = w.counters()
            # A command is three transfers: 31 bytes out, data, 13 bytes in.
            self.assertEqual(now["transfers"] - was["transfers"], 6)
            self.assertEqual(now["bytes_in"] - was["bytes_in"], 64 * 512 + 2 * 13)
            self.assertEqual(now["bytes_out"] - was["bytes_out"], 16 * 512 + 2 * 31)
            self.assertEqual(now["refused"], was["refused"])
            for i in range(10):
                s.send(BULK, s.bulk_body(s.ep_in | 0x80, 1000), 1 << 33 | i)
            s.send(BULK, s.bulk_body(0x8f, 64), 1 << 34)
            self.assertEqual(s.expect(BULK)[0], 1 << 34)
            now = w.counters()
            self.assertEqual((now["in_flight"], now["in_flight_bytes"]), (10, 10000))
            self.assertGreaterEqual(now["in_flight_peak"], 10)
            self.assertEqual(now["refused"], was["refused"] + 1)
            s.send(RESET)
            # The ids come back as they were sent, with their upper halves.
            self.assertEqual({s.expect(BULK)[0] for _ in range(10)}, {1 << 33 | i for i in range(10)})
            self.assertEqual(w.counters()["in_flight"], 0)
            self.assertEqual(w.counters()["in_flight_bytes"], 0)

    def test_eject_is_told_and_the_broker_decides(self):
        with Lent() as w:
            s = Stick(w.sock).start().ready()
            self.assertEqual(s.scsi_out(bytes([0x1b, 0, 0, 0, 2, 0])), 0)
            w.wait_state("ejected")
            # It goes on answering (there is no medium) until it is told to go.
            self.assertEqual(s.scsi_out(bytes(6)), 1)
            self.assertEqual(s.sense()[:2], (2, 0x3a))
            w.detach()
            s.expect(DEVICE_DISCONNECT)
            s.send(DISCONNECT_ACK)
            self.assertEqual(w.done(), ("detached", 0, ""))
            self.assertEqual(w.states()[-2:], ["ejected", "flushing"])


class Ends(unittest.TestCase):
    def busy(self, s, w):
        """Leaves a read in the middle: the replies' first bytes are in the socket, the rest waits for a guest that reads."""
        transfers = w.counters()["transfers"]
        s.bulk_out(s.ep_out, s.cbw(struct.pack(">BBIBHB", 0x28, 0, 0, 0, 8192, 0), 4 << 20, True))
        for _ in range(4):
            s.send(BULK, s.bulk_body(s.ep_in | 0x80, 1 << 20), s.new_id())
        w.wait_counter("transfers", transfers + 5)

    def test_detach(self):
        for busy, caps in ((False, ALL_CAPS), (True, ALL_CAPS), (False, ()), (True, ())):
            with self.subTest(busy=busy, caps=caps), Lent(8 << 20) as w:
                s = Stick(w.sock, caps).start().ready()
                data = os.urandom(32 * 512)
                self.assertTrue(s.write(100, data))
                if busy and caps:
                    self.busy(s, w)
                start = time.monotonic()
                w.detach()
                before = 0
                while s.receive()[0] != DEVICE_DISCONNECT:
                    before += 1
                self.assertLess(time.monotonic() - start, 1)
                # The news overtakes every reply but the one that has begun.
                self.assertEqual(before, 1 if busy and caps else 0)
                if CAP_ACK in caps:
                    # It waits for the guest's word that it is done with the device.
                    time.sleep(0.1)
                    self.assertIsNone(w.process.poll())
                    s.send(DISCONNECT_ACK)
                self.assertEqual(w.done(), ("detached", 0, ""))
                self.assertLess(time.monotonic() - start, 1)
                self.assertEqual(w.code, 0)
                self.assertEqual(w.states()[-1], "flushing")
                self.assertEqual(w.image.read_bytes()[100 * 512:132 * 512], data)

    def test_detach_while_the_guest_does_nothing(self):
        """Neither a guest that never acknowledges nor one that never reads keeps the device."""
        for reading in (True, False):
            with self.subTest(reading=reading), Lent(8 << 20) as w:
                s = Stick(w.sock).start().ready()
                if not reading:
                    self.busy(s, w)
                start = time.monotonic()
                w.detach()
                self.assertEqual(w.done(), ("detached", 0, ""))
                self.assertTrue(0.5 < time.monotonic() - start < 2.5, time.monotonic() - start)

    def test_detach_before_hello(self):
        with Lent() as w:
            start = time.monotonic()
            w.detach()
            self.assertEqual(w.done(), ("detached", 0, ""))
            self.assertLess(time.monotonic() - start, 1)

    def test_detach_in_the_middle_of_a_packet(self):
        """The rest of a write's payload never comes; what was answered before is on the disk."""
        with Lent() as w:
            s = Stick(w.sock).start().ready()
            data = os.urandom(512)
            self.assertTrue(s.write(3, data))
            was = w.image.read_bytes()
            s.bulk_out(s.ep_out, s.cbw(struct.pack(">BBIBHB", 0x2a, 0, 0, 0, 256, 0), 256 * 512, False))
            body = s.bulk_body(s.ep_out, 256 * 512, bytes(1000))
            s.send(BULK, body, 7, length=len(body) - 1000 + 256 * 512)
            w.wait_counter("in_flight_bytes", 256 * 512)
            w.detach()
            s.expect(DEVICE_DISCONNECT)
            s.send_raw(bytes(256 * 512 - 1000))
            s.send(DISCONNECT_ACK)
            self.assertEqual(w.done(), ("detached", 0, ""))
            self.assertEqual(w.image.read_bytes(), was)

    def test_guest_closes(self):
        for where in ("before hello", "idle", "busy", "in a packet"):
            with self.subTest(where=where), Lent(8 << 20) as w:
                s = Stick(w.sock)
                data = os.urandom(512)
                if where != "before hello":
                    s.start().ready()
                    self.assertTrue(s.write(9, data))
                if where == "busy":
                    self.busy(s, w)
                if where == "in a packet":
                    s.send_raw(s.packet(BULK, s.bulk_body(s.ep_out, 31, bytes(31)), 1)[:30])
                w.sock.shutdown(socket.SHUT_WR) if where == "idle" else w.sock.close()
                self.assertEqual(w.done()[0], "peer-closed")
                self.assertEqual(w.code, 0)
                self.assertNotIn("malformed", [m[0] for m in w.messages])
                if where != "before hello":
                    self.assertEqual(w.image.read_bytes()[9 * 512:10 * 512], data)

    def test_guests_filter_rejects_it(self):
        with Lent() as w:
            s = Stick(w.sock)
            s.greet()
            s.send(FILTER_REJECT)
            s.expect(DEVICE_DISCONNECT)
            s.send(DISCONNECT_ACK)
            reason, _, detail = w.done()
            self.assertEqual(reason, "peer-closed")
            self.assertIn("filter", detail)

    def test_violation_says_which(self):
        ids = 16
        for name, packet, detail in (
                ("unknown", lambda s: s.packet(77, b"", 1), "unknown packet type"),
                ("host's own", lambda s: s.packet(DEVICE_CONNECT, bytes(10), 1), "unknown packet type"),
                ("short", lambda s: s.packet(SET_CONFIGURATION, b"", 1), "frame too short"),
                ("long", lambda s: s.packet(SET_CONFIGURATION, b"ab", 1), "frame of a wrong size"),
                ("large", lambda s: s.packet(BULK, b"", 1, length=(1 << 20) + 11), "frame too large"),
                ("differ", lambda s: s.packet(BULK, s.bulk_body(s.ep_out, 5, b"four"), 1), "payload and length differ"),
                ("in with data", lambda s: s.packet(BULK, s.bulk_body(0x81, 4, b"four"), 1), "payload and length differ"),
                ("hello", lambda s: s.hello_packet() + bytes(ids), "second hello")):
            with self.subTest(name), Lent() as w:
                s = Stick(w.sock).start()
                s.send_raw(packet(s))
                self.assertEqual(w.done(), ("peer-violation", 0, detail))
                self.assertEqual(w.code, EXIT_PEER_BAD)
        with Lent() as w:
            Peer(w.sock).send(RESET)
            self.assertEqual(w.done(), ("peer-violation", 0, "packet before hello"))

    def test_broker_dies(self):
        """The guest is told, and what it wrote stays written."""
        for hello in (True, False):
            with self.subTest(hello=hello), Lent() as w:
                s = Stick(w.sock)
                if hello:
                    s.start().ready()
                    data = os.urandom(512)
                    self.assertTrue(s.write(77, data))
                w.hang_up()
                if hello:
                    s.expect(DEVICE_DISCONNECT, 1)
                    s.send(DISCONNECT_ACK)
                    self.assertEqual(w.image.read_bytes()[77 * 512:78 * 512], data)
                self.assertEqual(w.wait(2), EXIT_BROKER_GONE)

    def test_broker_says_what_is_no_message(self):
        good = struct.pack("<IIQ", PING, 16, 1)
        for bad in (b"x", good[:8], good + bytes(8), struct.pack("<IIQ", PING, 17, 1), struct.pack("<II", DONE, 8),
                    struct.pack("<II", 99, 8), struct.pack("<IIII", READY, 16, 1, 63), bytes(8), bytes(4096)):
            with self.subTest(bad=bad[:16]), Lent() as w:
                s = Stick(w.sock).start()
                w.send_control(bad)
                s.expect(DEVICE_DISCONNECT, 1)
                s.send(DISCONNECT_ACK)
                self.assertEqual(w.wait(2), EXIT_BROKER_GONE)

    def test_broker_sends_fds(self):
        """None is in the contract: the worker keeps none, and goes as after any message that is none."""
        ours, theirs = socket.socketpair()
        with Lent() as w:
            s = Stick(w.sock).start().ready()
            w.control.sendmsg([struct.pack("<IIQ", PING, 16, 0)],
                              [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [theirs.fileno()]))])
            theirs.close()
            s.expect(DEVICE_DISCONNECT, 1)
            # The worker still lives, and has not kept it.
            ours.settimeout(1)
            self.assertEqual(ours.recv(1), b"")
            s.send(DISCONNECT_ACK)
            self.assertEqual(w.wait(2), EXIT_BROKER_GONE)
        ours.close()

    def test_broker_that_never_reads(self):
        """Its questions cost nothing; when it reads again, it gets the newest answer and everything that counts."""
        with Lent(heartbeat=None) as w:
            s = Stick(w.sock).start().ready()
            for i in range(5000):
                w.control.settimeout(5)
                w.send_control(struct.pack("<IIQ", PING, 16, 1 + i))
                if i % 1000 == 0:
                    self.assertEqual(s.configure(i // 1000 % 2), struct.pack("<BB", OK, i // 1000 % 2))
            self.assertEqual(s.configure(1)[0], OK)
            self.assertEqual(len(s.ready().read(0, 8)), 4096)
            if not SANITIZED:
                self.assertLess(w.peak_kib(), 8 << 10)
            w.detach()
            s.expect(DEVICE_DISCONNECT)
            s.send(DISCONNECT_ACK)
            # It has nothing left to do but to be heard.
            time.sleep(0.5)
            self.assertIsNone(w.process.poll())
            while not w.ended:
                w.receive_control()
            self.assertEqual(w.pong["seq"], 5000)
            self.assertEqual(w.messages[0], ("ready", VERSION, SANDBOX_ALL))
            self.assertEqual(w.messages[-1], ("done", "detached", 0, ""))
            self.assertEqual(w.wait(), 0)


if __name__ == "__main__":
    leftovers.main(verbosity=2)
