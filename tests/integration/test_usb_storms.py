#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Guests that send too much, too fast or in pieces, with a broker that listens for the worker's heart meanwhile.

Each test ends with what must hold in every one: the worker's memory stayed under its bound, it answered its broker in time
all along, it still serves its guest (or has said why not, without having crashed), and so does a neighbour.
"""
import os
import random
import struct
import sys
import tempfile
import threading
import time
import unittest

from lent import *
from usbredir import *

UNREAD = 150000
BLOCKS = 2048  # of one command: 1 MiB, the most that a transfer may have


class Neighbour(threading.Thread):
    """Another device and its guest, at work during the whole storm."""

    def __init__(self):
        super().__init__(daemon=True)
        self.worker = Worker()
        self.guest = Stick(self.worker.sock).start().ready()
        self.image = self.worker.image.read_bytes()
        self.over = threading.Event()
        self.slowest = 0
        self.reads = 0
        self.error = None

    def run(self):
        try:
            while not self.over.wait(0.02):
                start = time.monotonic()
                assert self.guest.read(self.reads % 64 * 16, 16) == self.image[self.reads % 64 * 8192:][:8192]
                self.slowest = max(self.slowest, time.monotonic() - start)
                self.reads += 1
        except Exception as e:  # told by finish, in the test's own thread
            self.error = e

    def finish(self):
        self.over.set()
        self.join(30)
        self.worker.close()
        if self.error:
            raise self.error


class Storm(unittest.TestCase):
    def setUp(self):
        self.neighbour = Neighbour()
        self.neighbour.start()

    def tearDown(self):
        self.neighbour.finish()
        self.assertLess(self.neighbour.slowest, 1)

    def check_bounds(self, w, say=False):
        w.counters()
        peak = w.peak_kib()
        if say:
            print(f"  {self.id().split('.')[-1]}: peak {peak} KiB, heart silent for {w.silence * 1e3:.0f} ms at most, "
                  f"neighbour's slowest read {self.neighbour.slowest * 1e3:.1f} ms", file=sys.stderr)
        self.assertLess(w.silence, SILENCE_MAX)
        if not SANITIZED:
            self.assertLess(peak, LIMIT_KIB)

    def check_alive(self, s, w):
        self.assertEqual(s.read(0, 8), w.image.read_bytes()[:4096])
        w.counters()
        self.assertEqual((w.pong["in_flight"], w.pong["in_flight_bytes"]), (0, 0))
        self.check_bounds(w, say=True)

    def recover(self, s):
        """Bulk-only transport 1.0, 5.3.4, whatever the state was."""
        self.assertEqual(s.control(0x21, 0xff, 0, 0, 0)[0], OK)
        s.clear_halt(s.ep_in | 0x80)
        s.clear_halt(s.ep_out)

    def read_command(self, s, lba, blocks=BLOCKS):
        """The three packets of a READ, and their ids."""
        cbw = s.cbw(struct.pack(">BBIBHB", 0x28, 0, lba, 0, blocks, 0), blocks * 512, True)
        ids = [s.new_id() for _ in range(3)]
        return ids, (s.packet(BULK, s.bulk_body(s.ep_out, 31, cbw), ids[0]) +
                     s.packet(BULK, s.bulk_body(s.ep_in | 0x80, blocks * 512), ids[1]) +
                     s.packet(BULK, s.bulk_body(s.ep_in | 0x80, 13), ids[2]))

    def places(self):
        """Where an image is read at once (from the page cache), and where only by the I/O thread (tmpfs before 6.6)."""
        return [p for p in (tempfile.gettempdir(), "/dev/shm") if os.access(p, os.W_OK)]


class Replies(Storm):
    def test_one_buffer_asks_for_more_than_may_be_unread(self):
        """30 MiB of replies are asked for in one read of the worker's, by a guest whose socket takes all of them."""
        for sndbuf in (None, 64 << 20):
            with self.subTest(sndbuf=sndbuf), Lent(32 << 20, sndbuf=sndbuf) as w:
                s = Stick(w.sock).start().ready()
                image = w.image.read_bytes()
                commands = [self.read_command(s, i * BLOCKS) for i in range(30)]
                s.send_raw(b"".join(packets for _, packets in commands))
                for i, (ids, _) in enumerate(commands):
                    for k, ident in enumerate(ids):
                        got, body = s.expect(BULK)
                        self.assertEqual((got, s.bulk_reply(body)[1]), (ident, OK))
                        if k == 1:
                            self.assertEqual(s.bulk_reply(body)[3], image[i << 20:(i + 1) << 20])
                self.check_alive(s, w)

    def test_small_replies_unread(self):
        """Requests with an answer each, from a guest that reads none of them until the worker reads no more."""
        descriptor = struct.pack("<BBBBHHH", 0x80, 6, 0x80, 0, 0x100, 0, 18)
        for name, kind, body, answer, size in (
                ("configuration", GET_CONFIGURATION, b"", CONFIGURATION_STATUS, 2),
                ("altsetting", GET_ALT, b"\0", ALT_STATUS, 3),
                ("altsetting that is none", SET_ALT, b"\0\7", ALT_STATUS, 3),
                ("interrupts that are none", START_INTERRUPT, b"\x81", INTERRUPT_STATUS, 2),
                ("isochronous stream", START_ISO, b"\x81\1\1", ISO_STATUS, 2),
                ("endpoint that is none", BULK, struct.pack("<BBHIH", 0x8e, 0, 512, 0, 0), BULK, 10),
                ("descriptor", CONTROL, descriptor, CONTROL, 28),
                ("interrupt packet", INTERRUPT, struct.pack("<BBH", 0x01, 0, 1) + b"x", INTERRUPT, 4)):
            with self.subTest(name), Lent() as w:
                s = Stick(w.sock).start().ready()
                packets = b"".join(s.packet(kind, body, i) for i in range(UNREAD))
                sent = flood(s, packets)
                self.assertLess(sent, len(packets), "the worker took everything, unread as it was")
                self.check_bounds(w)
                rest = threading.Thread(target=s.send_raw, args=(packets[sent:], 60))
                rest.start()
                self.assertEqual(self.answers(s, answer, size, UNREAD), UNREAD)
                rest.join()
                self.check_alive(s, w)

    def answers(self, s, kind, size, n):
        """How many packets of that kind and size come with the ids 0, 1, 2, …: n, if none is lost, doubled or moved."""
        s.sock.settimeout(20)
        data = bytes(s.buffer)
        s.buffer.clear()
        step, done = 16 + size, 0
        while done < n:
            data += s.sock.recv(1 << 20)
            whole = len(data) // step
            for i in range(whole):
                if struct.unpack_from("<IIQ", data, i * step) != (kind, size, done + i):
                    raise PeerError(f"packet {done + i} is {struct.unpack_from('<IIQ', data, i * step)}")
            done += whole
            data = data[whole * step:]
        return done + (1 if data else 0)


class Bounds(Storm):
    def test_transfers_in_flight(self):
        """Exactly as many as were agreed on, then refusals, each at its turn; what comes back makes room again."""
        with Lent(options=["--max-transfers=5", "--max-bytes=2097152"]) as w:
            s = Stick(w.sock).start().ready()
            for round in range(3):
                for i in range(8):
                    s.send(BULK, s.bulk_body(s.ep_in | 0x80, 512), 100 + i)
                s.round_trip()
                self.assertEqual(w.counters()["in_flight"], 5)
                for i in range(8):
                    s.send(CANCEL, b"", 100 + i)
                replies = [s.expect(BULK) for _ in range(8)]
                self.assertEqual([(i, s.bulk_reply(b)[1]) for i, b in replies],
                                 [(100 + i, CANCELLED if i < 5 else IO_ERROR) for i in range(8)])
            for i in range(4):
                s.send(BULK, s.bulk_body(s.ep_in | 0x80, 1 << 20), 200 + i)
            s.round_trip()
            self.assertEqual(w.counters()["in_flight_bytes"], 2 << 20)
            s.send(RESET)
            replies = [s.expect(BULK) for _ in range(4)]
            self.assertEqual([(i, s.bulk_reply(b)[1]) for i, b in replies],
                             [(200, CANCELLED), (201, CANCELLED), (202, IO_ERROR), (203, IO_ERROR)])
            self.assertEqual(w.pong["in_flight_peak"], 5)
            self.check_alive(s.ready(), w)

    def test_payloads_nobody_wants(self):
        """200 MiB to a halted endpoint, to one that does not exist, and over the bound on bytes."""
        data = bytes(1 << 20)
        with Lent(options=["--max-bytes=1048576"]) as w:
            s = Stick(w.sock).start().ready()
            self.assertEqual(s.control(0x02, 3, 0, s.ep_out, 0)[0], OK)
            for _ in range(100):
                self.assertEqual(s.bulk_out(s.ep_out, data)[0], STALL)
            for _ in range(50):
                self.assertEqual(s.bulk_out(0x0e, data)[0], INVALID)
            s.send(BULK, s.bulk_body(s.ep_in | 0x80, 1), 1 << 50)
            for _ in range(50):
                self.assertEqual(s.bulk_out(s.ep_out, data)[0], IO_ERROR)
            s.send(CANCEL, b"", 1 << 50)
            self.assertEqual(s.expect(BULK)[0], 1 << 50)
            self.recover(s)
            self.check_alive(s, w)

    def test_frame_that_trickles(self):
        """1 MiB is announced and comes byte by byte: it costs its buffer and nobody's time."""
        with Lent() as w:
            s = Stick(w.sock).start().ready()
            cbw = s.cbw(struct.pack(">BBIBHB", 0x2a, 0, 0, 0, BLOCKS - 1, 0), (BLOCKS - 1) * 512, False)
            self.assertEqual(s.bulk_out(s.ep_out, cbw)[0], OK)
            data = os.urandom((BLOCKS - 1) * 512)
            packet = s.packet(BULK, s.bulk_body(s.ep_out, len(data), data), 9)
            for i in range(3000):
                s.send_raw(packet[i:i + 1])
            w.wait_counter("in_flight_bytes", len(data))
            s.send_raw(packet[3000:])
            self.assertEqual(s.bulk_reply(s.expect(BULK)[1])[1], OK)
            self.assertEqual(s.csw(), (0, 0))
            self.assertEqual(w.image.read_bytes()[:len(data)], data)
            self.check_alive(s, w)


class Cancels(Storm):
    def test_known_ids(self):
        """100,000 reads, each cancelled at once: each comes back once."""
        with Lent() as w:
            s = Stick(w.sock).start().ready()
            n = 100000 if not SANITIZED else 20000
            packets = b"".join(s.packet(BULK, s.bulk_body(s.ep_in | 0x80, 512), i) + s.packet(CANCEL, b"", i)
                               for i in range(n))
            sender = threading.Thread(target=s.send_raw, args=(packets, 60))
            sender.start()
            for i in range(n):
                kind, ident, body = s.receive()
                if (kind, ident, body[1]) != (BULK, i, CANCELLED):
                    self.fail(f"reply {i} is {kind, ident, body}")
            sender.join()
            self.check_alive(s, w)

    def test_any_ids_in_any_order(self):
        """Ids that fall together in whatever table the worker keeps: each is found while it is in flight, and only then."""
        rng = random.Random(20261130)
        with Lent() as w:
            s = Stick(w.sock).start().ready()
            line = []  # (id, is it in flight, or a refusal that waits for its turn)

            def expect(ident, status):
                got, body = s.expect(BULK)
                self.assertEqual((got, body[1]), (ident, status))

            def expect_refusals():
                while line and not line[0][1]:
                    expect(line.pop(0)[0], INVALID)

            for _ in range(8000):
                flying = [ident for ident, real in line if real]
                if len(flying) < 64 and (len(flying) < 32 or rng.random() < 0.5):
                    ident = rng.choice((rng.getrandbits(64), rng.getrandbits(6) << 40, rng.getrandbits(8)))
                    line.append((ident, ident not in flying))
                    s.send(BULK, s.bulk_body(s.ep_in | 0x80, 512), ident)
                else:
                    ident = rng.choice(flying)
                    line.remove((ident, True))
                    s.send_raw(s.packet(CANCEL, b"", ident) * 2)
                    expect(ident, CANCELLED)
                    expect_refusals()
            s.round_trip()
            self.assertEqual(w.counters()["in_flight"], sum(real for _, real in line))
            s.send(RESET)
            for ident, real in line:
                expect(ident, CANCELLED if real else INVALID)
            self.check_alive(s.ready(), w)

    def test_in_the_middle_of_reads_and_writes(self):
        """A cancel crosses the disk's work; the transfer comes back once, done or cancelled, and blocks are old or new."""
        rng = random.Random(20261128)
        for place in self.places():
            with self.subTest(place=place), tempfile.NamedTemporaryFile(dir=place) as image:
                image.write(bytes(4 << 20))
                image.flush()
                with Lent(image=image.name) as w:
                    s = Stick(w.sock).start().ready()
                    outcomes = [self.cancelled_command(s, i, rng) for i in range(200)]
                    print(f"  {place}: {outcomes.count(OK)} were done, {outcomes.count(CANCELLED)} cancelled",
                          file=sys.stderr)
                    blocks = w.image.read_bytes()
                    for i in range(0, len(blocks), 512):
                        self.assertEqual(blocks[i:i + 512].count(blocks[i]), 512, "a block is torn")
                    self.check_alive(s, w)

    def cancelled_command(self, s, i, rng):
        writing, blocks = i % 2, 256
        cdb = struct.pack(">BBIBHB", 0x2a if writing else 0x28, 0, i % 16 * blocks, 0, blocks, 0)
        self.assertEqual(s.bulk_out(s.ep_out, s.cbw(cdb, blocks * 512, not writing))[0], OK)
        ident = s.new_id()
        body = (s.bulk_body(s.ep_out, blocks * 512, bytes([i]) * (blocks * 512)) if writing else
                s.bulk_body(s.ep_in | 0x80, blocks * 512))
        cancel = s.packet(CANCEL, b"", ident)
        if i % 4 < 2:
            s.send_raw(s.packet(BULK, body, ident) + cancel)
        else:
            s.send_raw(s.packet(BULK, body, ident))
            time.sleep(rng.random() / 4000)
            s.send_raw(cancel)
        got, body = s.expect(BULK)
        self.assertEqual(got, ident)
        self.assertIn(s.bulk_reply(body)[1], (OK, CANCELLED))
        self.recover(s)
        return s.bulk_reply(body)[1]


class Resets(Storm):
    def test_everything_at_once(self):
        """Commands, and what makes them meaningless while they are on the disk: each transfer still comes back once."""
        rng = random.Random(20261127)
        for place in self.places():
            with self.subTest(place=place), tempfile.NamedTemporaryFile(dir=place) as image:
                image.write(os.urandom(4 << 20))
                image.flush()
                with Lent(image=image.name) as w:
                    s = Stick(w.sock).start().ready()
                    for _ in range(300 if not SANITIZED else 100):
                        self.interrupted(s, rng)
                    self.recover(s)
                    self.check_alive(s.ready(), w)

    def interrupted(self, s, rng):
        ids, packets = set(), b""
        for _ in range(rng.randint(1, 4)):
            more, p = self.read_command(s, rng.randrange(4096), rng.choice((1, 8, 240, 1024)))
            ids |= set(more)
            packets += p
        cut, last = rng.randrange(len(packets) + 1), s.new_id()
        if rng.random() < 0.5:
            cut = len(packets)
        kept = b""
        for p in self.split(packets):
            if len(kept) + len(p) > cut:
                ids.discard(struct.unpack_from("<Q", p, 8)[0])
            else:
                kept += p
        act = rng.choice((
            s.packet(RESET), s.packet(SET_CONFIGURATION, b"\1", 1), s.packet(SET_ALT, b"\0\0", 1),
            s.packet(SET_CONFIGURATION, b"\0", 1) + s.packet(SET_CONFIGURATION, b"\1", 1),
            s.packet(CONTROL, struct.pack("<BBBBHHH", 0, 0xff, 0x21, 0, 0, 0, 0), 1)))
        s.send_raw(kept + act * rng.randint(1, 3))
        # After these whatever was waiting is asked to come back. What the disk is busy with may come after the reset.
        s.send_raw(b"".join(s.packet(CANCEL, b"", i) for i in ids) + s.packet(RESET) + s.packet(GET_CONFIGURATION, b"", last))
        left, settled = set(ids), False
        while left or not settled:
            # Ends with an error if an answer does not come.
            kind, ident, _ = s.receive()
            if kind == BULK:
                self.assertIn(ident, left, "an answer to nothing, or a second one")
                left.discard(ident)
            elif (kind, ident) == (CONFIGURATION_STATUS, last):
                settled = True

    def split(self, packets):
        while packets:
            size = 16 + struct.unpack_from("<I", packets, 4)[0]
            yield packets[:size]
            packets = packets[size:]


if __name__ == "__main__":
    leftovers.main(verbosity=2)
