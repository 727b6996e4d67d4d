#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Hostile guests against the real worker in its sandbox: bounded memory, an honest end or going on, nobody else hurt."""
import os
import random
import signal
import struct
import sys
import tempfile
import threading
import time
import unittest

from usbredir import *

LIMIT_KIB = 64 << 10
EXIT_PEER_BAD = 3
SANITIZED = b"__asan_init" in open(os.environ["DEVBROKER_USB"], "rb").read()
MUTATIONS = 10000 if not SANITIZED else 2000


class Hostile(unittest.TestCase):
    def setUp(self):
        # A second device, with a polite guest, at work during all of it.
        self.neighbour = Worker()
        self.polite = Stick(self.neighbour.sock).start().ready()

    def tearDown(self):
        self.assertEqual(self.polite.read(0, 64), self.neighbour.image.read_bytes()[:64 * 512])
        self.neighbour.close()

    def check_memory(self, w):
        try:
            peak = w.peak_kib()
        except (PeerError, OSError, TypeError):
            # It may have ended by now, as it should after some of this.
            self.assertIsNotNone(w.process.wait(10))
        else:
            print(f"  {self.id().split('.')[-1]}: peak {peak} KiB", file=sys.stderr)
            if not SANITIZED:
                self.assertLess(peak, LIMIT_KIB)

    def check_dropped(self, w, why=None):
        """The worker ends by itself, says why, and has not crashed."""
        self.assertEqual(w.wait(15), EXIT_PEER_BAD, w.said())
        self.assertIn("peer-violation", w.said())
        if why:
            self.assertIn(why, w.said())

    def check_alive(self, s, w):
        self.assertEqual(s.read(0, 8), w.image.read_bytes()[:4096])

    def test_traffic_before_hello(self):
        for kind in (RESET, SET_CONFIGURATION, BULK, CONTROL, CANCEL, FILTER_FILTER, 999):
            with self.subTest(kind=kind), Worker() as w:
                p = Peer(w.sock)
                p.send(kind, bytes(10), 1)
                self.check_dropped(w)

    def test_second_hello(self):
        with Worker() as w:
            s = Stick(w.sock).start()
            s.send(HELLO, b"again".ljust(64, b"\0") + bytes(4))
            self.check_dropped(w)

    def test_hello_with_garbage(self):
        for body in (b"", bytes(63), b"x" * 64, b"\xff" * 68, b"\xff" * 1024):
            with self.subTest(length=len(body)), Worker() as w:
                p = Peer(w.sock)
                p.send_raw(struct.pack("<III", HELLO, len(body), 0) + body)
                time.sleep(0.05)
                # Either it is refused, or what both don't know is ignored; never a crash.
                p.sock.shutdown(socket.SHUT_WR)
                self.assertIn(w.wait(10), (0, EXIT_PEER_BAD), w.said())

    def test_huge_frames(self):
        for length in ((1 << 20) + 64, 128 << 20, 0xffffffff):
            for kind in (BULK, CONTROL, FILTER_FILTER, 77):
                with self.subTest(length=length, kind=kind), Worker() as w:
                    s = Stick(w.sock).start()
                    s.send(kind, bytes(16), 5, length=length)
                    flood(s, bytes(4 << 20))
                    self.check_memory(w)
                    self.check_dropped(w)

    def test_frame_that_never_comes(self):
        with Worker() as w:
            s = Stick(w.sock).start().ready()
            body = s.bulk_body(s.ep_out, 1 << 20, bytes(1000))
            s.send(BULK, body, 7, length=len(body) - 1000 + (1 << 20))
            time.sleep(0.3)
            self.check_memory(w)
            self.assertIsNone(w.process.poll())

    def test_40000_pending_reads(self):
        with Worker() as w:
            s = Stick(w.sock).start().ready()
            one = b"".join(s.packet(BULK, s.bulk_body(s.ep_in | 0x80, 4096), 1000 + i) for i in range(40000))
            # Unread at first, then read while the rest is sent: the worker stops reading in between.
            sent = flood(s, one)
            self.check_memory(w)
            rest = threading.Thread(target=s.send_raw, args=(one[sent:], 60))
            rest.start()
            # 1024 refusals wait for their turn behind what was taken.
            for _ in range(40000 - 64 - 1024):
                kind, _, body = s.receive(20)
                self.assertEqual((kind, s.bulk_reply(body)[1] in (OK, STALL)), (BULK, False))
            rest.join()
            # Those that were taken are still waiting; cancelled, they come back once each.
            for i in range(64):
                s.send(CANCEL, b"", 1000 + i)
            for _ in range(64):
                self.assertEqual(s.bulk_reply(s.expect(BULK)[1])[1], CANCELLED)
            for _ in range(1024):
                self.assertNotIn(s.bulk_reply(s.expect(BULK)[1])[1], (OK, STALL, CANCELLED))
            self.check_alive(s, w)

    def test_never_reading_peer(self):
        # From the page cache, and (a tmpfs has no RWF_NOWAIT before Linux 6.6) through the I/O thread.
        for place in (tempfile.gettempdir(), "/dev/shm"):
            if os.access(place, os.W_OK):
                with self.subTest(place=place), tempfile.NamedTemporaryFile(dir=place) as image:
                    image.write(os.urandom(7 << 20))
                    image.flush()
                    self.never_reading_peer(image.name)

    def never_reading_peer(self, image):
        with Worker(image=image) as w:
            s = Stick(w.sock).start().ready()
            data = w.image.read_bytes()
            blocks, wanted = 2048, []
            batch = b""
            # Less than the worker's 8 MiB in flight: what it refuses would leave its command without data.
            for i in range(7):
                lba = i * blocks
                cbw = s.cbw(struct.pack(">BBIBHB", 0x28, 0, lba, 0, blocks, 0), blocks * 512, True)
                ids = [s.new_id() for _ in range(3)]
                batch += s.packet(BULK, s.bulk_body(s.ep_out, 31, cbw), ids[0])
                batch += s.packet(BULK, s.bulk_body(s.ep_in | 0x80, blocks * 512), ids[1])
                batch += s.packet(BULK, s.bulk_body(s.ep_in | 0x80, 13), ids[2])
                wanted.append((ids, data[lba * 512:(lba + blocks) * 512]))
            flood(s, batch)
            time.sleep(1)
            self.check_memory(w)
            # It reads again: nothing is lost, everything is in order.
            got = {}
            while len(got) < 3 * len(wanted):
                kind, ident, body = s.receive(20)
                self.assertEqual(kind, BULK)
                got[ident] = s.bulk_reply(body)
            for ids, expected in wanted:
                self.assertEqual([got[i][1] for i in ids], [OK, OK, OK])
                self.assertEqual(got[ids[1]][3], expected)

    def test_cancel_storm(self):
        with Worker() as w:
            s = Stick(w.sock).start().ready()
            known = b"".join(s.packet(BULK, s.bulk_body(s.ep_in | 0x80, 512), 50 + i) +
                             s.packet(CANCEL, b"", 50 + i) for i in range(20))
            unknown = b"".join(s.packet(CANCEL, b"", 1 << 40 | i) for i in range(1000))
            s.send_raw(known)
            for _ in range(20):
                self.assertEqual(s.bulk_reply(s.expect(BULK)[1])[1], CANCELLED)
            start = time.monotonic()
            for _ in range(100):
                s.send_raw(unknown, 30)
            self.check_alive(s, w)
            print(f"  100000 unknown cancels: {time.monotonic() - start:.2f} s", file=sys.stderr)
            self.check_memory(w)

    def test_forbidden_requests(self):
        with Worker() as w:
            s = Stick(w.sock).start().ready()
            for request_type, request in ((0x00, 5), (0x00, 9), (0x01, 11)):
                status, _ = s.control(request_type, request, 1, 0, 0)
                self.assertIn(status, (STALL, INVALID), request)
            self.check_alive(s, w)

    def test_control_length_mismatch(self):
        with Worker() as w:
            s = Stick(w.sock).start().ready()
            head = struct.pack("<BBBBHHH", 0, 1, 0x02, 0, 0, 0x81, 64)
            s.send(CONTROL, head + b"abc", 9)
            try:
                _, body = s.expect(CONTROL, 5)
                self.assertNotEqual(body[3], OK)
                self.check_alive(s, w)
            except PeerError:
                self.check_dropped(w)

    def test_nonexistent_endpoints(self):
        with Worker() as w:
            s = Stick(w.sock).start().ready()
            for endpoint in (0x85, 0x05, 0x80, 0x00, 0xff, 0x7f):
                data = b"" if endpoint & 0x80 else b"x"
                ident = s.new_id()
                s.send(BULK, s.bulk_body(endpoint, 64 if endpoint & 0x80 else 1, data), ident)
                got, body = s.expect(BULK)
                self.assertEqual(got, ident)
                self.assertNotEqual(s.bulk_reply(body)[1], OK)
            self.check_alive(s, w)

    def test_duplicate_ids(self):
        with Worker() as w:
            s = Stick(w.sock).start().ready()
            packet = s.packet(BULK, s.bulk_body(s.ep_in | 0x80, 512), 4242)
            s.send_raw(packet * 3)
            s.send(CANCEL, b"", 4242)
            self.assertEqual(s.bulk_reply(s.expect(BULK)[1])[1], CANCELLED)
            for _ in range(2):
                self.assertNotIn(s.bulk_reply(s.expect(BULK)[1])[1], (OK, CANCELLED))
            self.check_alive(s, w)

    def test_wrong_header_sizes(self):
        for kind in list(range(1, 28)) + [CONTROL, BULK, ISO, INTERRUPT, BUFFERED_BULK, 28, 99, 105, 0x7fffffff]:
            with self.subTest(kind=kind), Worker() as w:
                s = Stick(w.sock).start()
                s.send(kind, b"\xff" * 3, 3)
                s.sock.shutdown(socket.SHUT_WR)
                self.assertIn(w.wait(10), (0, EXIT_PEER_BAD), w.said())

    def test_stream_storms(self):
        with Worker() as w:
            s = Stick(w.sock).start().ready()
            iso = b"".join(s.packet(START_ISO, bytes([0x81, 32, 8]), i) + s.packet(STOP_ISO, b"\x81", i)
                           for i in range(500))
            streams = b"".join(s.packet(START_INTERRUPT, b"\x81", i) + s.packet(STOP_INTERRUPT, b"\x81", i)
                               for i in range(500))
            for batch in (iso, streams):
                flood(s, batch)
                self.check_memory(w)
            deadline = time.monotonic() + 5
            try:
                while time.monotonic() < deadline and s.receive(0.3):
                    pass
            except PeerError:
                pass
            if w.process.poll() is None:
                self.check_alive(s, w)
            else:
                self.check_dropped(w)

    def test_unnegotiated_packets(self):
        for kind, body in ((ALLOC_STREAMS, bytes(8)), (FREE_STREAMS, bytes(4)), (START_BULK_RECEIVING, bytes(10)),
                           (STOP_BULK_RECEIVING, bytes(5))):
            with self.subTest(kind=kind), Worker() as w:
                s = Stick(w.sock).start()
                s.send(kind, body, 3)
                s.sock.shutdown(socket.SHUT_WR)
                self.assertIn(w.wait(10), (0, EXIT_PEER_BAD), w.said())

    def test_reset_storm(self):
        with Worker() as w:
            s = Stick(w.sock).start().ready()
            s.send_raw(s.packet(RESET) * 5000, 30)
            self.assertEqual(s.configure(1)[0], OK)
            self.assertEqual(len(s.ready().read(0, 1)), 512)
            self.check_memory(w)

    def test_end_at_every_byte(self):
        """The stream ends anywhere in a good conversation."""
        with Worker() as w:
            s = Stick(w.sock)
            conversation = s.hello_packet()
            s.greet()
            s.find_endpoints()
            conversation += s.packet(SET_CONFIGURATION, b"\1", 2)
            conversation += s.packet(BULK, s.bulk_body(s.ep_out, 31, s.cbw(
                struct.pack(">BBIBHB", 0x28, 0, 0, 0, 8, 0), 4096, True)), 3)
            conversation += s.packet(BULK, s.bulk_body(s.ep_in | 0x80, 4096), 4)
        step = 7 if not SANITIZED else 29
        for end in range(0, len(conversation), step):
            with Worker(4096) as w:
                w.sock.sendall(conversation[:end])
                w.sock.shutdown(socket.SHUT_WR)
                self.assertEqual(w.wait(10), 0, (end, w.said()))

    def test_mutations(self):
        """Random changes to good packets: never a crash, always an answer or an end."""
        rng = random.Random(20261126)
        done = restarts = 0
        while done < MUTATIONS:
            with Worker(1 << 16) as w:
                restarts += 1
                s = Stick(w.sock).start().ready()
                samples = [
                    s.packet(SET_CONFIGURATION, b"\1", 2), s.packet(GET_CONFIGURATION, b"", 3),
                    s.packet(SET_ALT, b"\0\0", 4), s.packet(GET_ALT, b"\0", 5), s.packet(RESET), s.packet(CANCEL, b"", 9),
                    s.packet(CONTROL, struct.pack("<BBBBHHH", 0x80, 6, 0x80, 0, 0x200, 0, 255), 6),
                    s.packet(BULK, s.bulk_body(s.ep_out, 31, s.cbw(bytes([0x12, 0, 0, 0, 36]), 36, True)), 7),
                    s.packet(BULK, s.bulk_body(s.ep_in | 0x80, 512), 8), s.packet(FILTER_FILTER, b"-1,-1,-1,-1,1\0"),
                ]
                try:
                    while done < MUTATIONS:
                        packet = bytearray(rng.choice(samples))
                        for _ in range(rng.randint(1, 4)):
                            packet[rng.randrange(len(packet))] = rng.choice((0, 1, 0x7f, 0x80, 0xff, rng.randrange(256)))
                        done += 1
                        s.send_raw(packet, 2)
                        while select.select([s.sock], [], [], 0)[0]:
                            if not s.sock.recv(1 << 20):
                                raise BrokenPipeError
                except (OSError, TimeoutError):
                    pass
                s.sock.shutdown(socket.SHUT_RDWR) if w.process.poll() is None else None
                self.assertIn(w.wait(20), (0, EXIT_PEER_BAD), w.said())
        print(f"  {done} mutations, {restarts} workers", file=sys.stderr)


if __name__ == "__main__":
    leftovers.main(verbosity=2)
