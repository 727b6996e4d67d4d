#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What a device sends and takes unasked, over the stub libusb: isochronous streams both ways, bulk streams, and buffered
bulk receiving. The stub's packets carry their number and a pattern that follows from it (stub_pattern in
tests/benches/stub-device.c)."""
import struct
import time
import unittest

from usbdevice import *

ISO_IN, ISO_OUT, STREAM_IN, STREAM_OUT = 0x83, 0x03, 0x84, 0x04
EVERYTHING = (*ALL_CAPS, CAP_STREAMS, CAP_RECEIVING)


def pattern(number, room):
    length = 0 if number % 16 == 15 else room // 2 if number % 8 == 7 else room
    return (struct.pack("<I", number) + bytes((number + i) & 0xff for i in range(4, room)))[:length]


class Streams(Guest):
    def __init__(self, sock):
        super().__init__(sock, EVERYTHING)

    def start_iso(self, endpoint, packets, urbs):
        ident = self.new_id()
        self.send(START_ISO, struct.pack("<BBB", endpoint, packets, urbs), ident)
        got, body = self.expect(ISO_STATUS)
        assert (got, body[1]) == (ident, endpoint)
        return body[0]

    def stop_iso(self, endpoint):
        ident = self.new_id()
        self.send(STOP_ISO, struct.pack("<B", endpoint), ident)
        got, body = self.expect(ISO_STATUS)
        assert (got, body[1]) == (ident, endpoint)
        return body[0]

    def iso_packet(self):
        """(id, status, data) of the next one."""
        ident, body = self.expect(ISO)
        endpoint, status, length = struct.unpack_from("<BBH", body)
        assert endpoint == ISO_IN and length == len(body) - 4, body[:4]
        return ident, status, body[4:]

    def send_iso(self, number, size):
        data = struct.pack("<I", number) + bytes((number + i) & 0xff for i in range(4, size))
        self.send(ISO, struct.pack("<BBH", ISO_OUT, 0, len(data)) + data, number)

    def streams(self, kind, endpoints, *count):
        ident = self.new_id()
        mask = sum(1 << ((e & 0x0f) + (16 if e & 0x80 else 0)) for e in endpoints)
        self.send(kind, struct.pack("<" + "I" * (1 + len(count)), mask, *count), ident)
        got, body = self.expect(STREAMS_STATUS)
        assert got == ident and struct.unpack_from("<I", body)[0] == mask, body
        return body[8], struct.unpack_from("<I", body, 4)[0]

    def stream_in(self, stream, length):
        ident = self.new_id()
        self.send(BULK, self.bulk_body(STREAM_IN, length, stream=stream), ident)
        got, body = self.expect(BULK)
        assert got == ident
        return self.bulk_reply(body)[1], self.bulk_reply(body)[3]


class IsochronousIn(unittest.TestCase):
    def check(self, p, room, count):
        """So many packets, each the one behind the last, whole and unspoilt."""
        for n in range(count):
            ident, status, data = p.iso_packet()
            self.assertEqual((ident, status), (n, OK))
            self.assertEqual(data, pattern(n, room), n)

    def test_every_packet_as_the_device_sent_it(self):
        for speed in (2, 3, 4):  # full, high, super
            with self.subTest(speed=speed), Device(f"speed={speed} iso=250") as w:
                p = Streams(w.sock).start()
                self.assertEqual(p.set_alt(1, 1), (OK, 1, 1))
                self.assertEqual(p.start_iso(ISO_IN, 8, 4), OK)
                self.check(p, 192, 500)

    def test_larger_packets_of_a_sparse_altsetting(self):
        with Device("iso=250") as w:
            p = Streams(w.sock).start()
            p.set_alt(1, 5)
            self.assertEqual(p.start_iso(ISO_IN, 32, 16), OK)
            self.check(p, 960, 1000)

    def test_pace(self):
        """1000 packets a second, as the device sends them, and other requests meanwhile."""
        with Device("iso=1000") as w:
            p = Streams(w.sock).start()
            p.set_alt(1, 1)
            p.start_iso(ISO_IN, 4, 4)
            p.iso_packet()
            begin = time.monotonic()
            for _ in range(400):
                p.iso_packet()
            self.assertTrue(0.2 < time.monotonic() - begin < 2, time.monotonic() - begin)
            self.assertEqual(p.bulk_in(BULK_IN, 512)[0], OK)

    def test_bad_packets_are_told_and_end_nothing(self):
        with Device("iso=250 isobad=5") as w:
            p = Streams(w.sock).start()
            p.set_alt(1, 1)
            p.start_iso(ISO_IN, 8, 4)
            for n in range(100):
                _, status, data = p.iso_packet()
                bad = n % 5 == 4
                self.assertEqual((status, data), (IO_ERROR, b"") if bad else (OK, pattern(n, 192)), n)

    def test_stop_and_start_again(self):
        with Device("iso=250") as w:
            p = Streams(w.sock).start()
            self.assertEqual(p.start_iso(ISO_IN, 8, 4), INVALID)  # its altsetting has no such endpoint
            p.set_alt(1, 1)
            for _ in range(5):
                self.assertEqual(p.start_iso(ISO_IN, 8, 4), OK)
                first = struct.unpack_from("<I", p.iso_packet()[2])[0]
                self.assertEqual(struct.unpack_from("<I", p.iso_packet()[2])[0], first + 1 if first % 16 != 14 else 0)
                self.assertEqual(p.start_iso(ISO_IN, 8, 4), INVALID)  # started already
                self.assertEqual(p.stop_iso(ISO_IN), OK)
                p.round_trip()
                self.assertEqual([k for k in self.left(p) if k == ISO], [], "packets after the end")

    @staticmethod
    def left(p):
        """Types of what comes within a while."""
        kinds = []
        try:
            while True:
                kinds.append(p.receive(0.05)[0])
        except PeerError:
            return kinds

    def test_altsetting_without_the_endpoint_ends_it(self):
        with Device("iso=250") as w:
            p = Streams(w.sock).start()
            p.set_alt(1, 1)
            p.start_iso(ISO_IN, 8, 4)
            p.iso_packet()
            self.assertEqual(p.set_alt(1, 0), (OK, 1, 0))
            self.assertEqual(self.left(p), [])
            p.set_alt(1, 1)
            self.assertEqual(p.start_iso(ISO_IN, 8, 4), OK)
            self.assertEqual(p.iso_packet()[1], OK)

    def test_slow_guest_loses_packets_and_nothing_else(self):
        with Device("iso=20") as w:
            p = Streams(w.sock).start()
            p.set_alt(1, 5)
            p.start_iso(ISO_IN, 32, 16)
            time.sleep(0.5)
            last, gaps = -1, 0
            for _ in range(3000):
                _, status, data = p.iso_packet()
                self.assertEqual(status, OK)
                if data:
                    number = struct.unpack_from("<I", data)[0]
                    self.assertEqual(data, pattern(number, 960))
                    self.assertGreater(number, last)
                    gaps += number > last + 2
                    last = number
            self.assertEqual(p.stop_iso(ISO_IN), OK)


class IsochronousOut(unittest.TestCase):
    """The stub counts packets that are spoilt and numbers that don't follow on the one before."""

    def test_every_packet_as_the_guest_sent_it(self):
        with Device("iso=1000") as w:
            p = Streams(w.sock).start()
            p.set_alt(1, 1)
            self.assertEqual(p.start_iso(ISO_OUT, 16, 16), OK)
            begin = time.monotonic()
            for n in range(1024):
                while n * 1e-3 > time.monotonic() - begin:
                    time.sleep(0.005)
                p.send_iso(n, 192)
            time.sleep(0.2)
            got = p.counters()
            self.assertEqual((got["iso_gaps"], got["iso_spoilt"]), (0, 0))
            # After an underrun up to half of the URBs wait for more.
            self.assertGreaterEqual(got["iso_packets"], 1024 - 128)
            self.assertEqual(p.stop_iso(ISO_OUT), OK)

    def test_guest_that_is_too_fast(self):
        """Drops whole packets; what arrives is unspoilt."""
        with Device("iso=1000") as w:
            p = Streams(w.sock).start()
            p.set_alt(1, 1)
            p.start_iso(ISO_OUT, 4, 4)
            for n in range(2000):
                p.send_iso(n, 192)
            time.sleep(0.1)
            got = p.counters()
            self.assertEqual(got["iso_spoilt"], 0)
            self.assertTrue(16 <= got["iso_packets"] < 2000, got)


class BulkStreams(unittest.TestCase):
    def test_streams(self):
        with Device() as w:
            p = Streams(w.sock).start()
            p.set_alt(2, 1)
            self.assertEqual(p.stream_in(3, 64)[0], INVALID)
            self.assertEqual(p.streams(ALLOC_STREAMS, (STREAM_IN, STREAM_OUT), 8)[0], OK)
            for stream in (1, 3, 8):
                status, data = p.stream_in(stream, 512)
                self.assertEqual((status, len(data), struct.unpack_from("<I", data, 4)[0]), (OK, 512, stream))
            self.assertEqual(p.stream_in(9, 64)[0], INVALID)
            self.assertEqual(p.streams(FREE_STREAMS, (STREAM_IN, STREAM_OUT))[0], OK)
            self.assertEqual(p.stream_in(1, 64)[0], INVALID)

    def test_only_where_there_are_some(self):
        with Device() as w:
            p = Streams(w.sock).start()
            self.assertNotEqual(p.streams(ALLOC_STREAMS, (BULK_IN,), 4)[0], OK)
            self.assertEqual(p.bulk_in(BULK_IN, 64)[0], OK)


class BufferedBulk(unittest.TestCase):
    @staticmethod
    def start(p, size, count, endpoint=BULK_IN):
        ident = p.new_id()
        p.send(START_BULK_RECEIVING, struct.pack("<IIBB", 0, size, endpoint, count), ident)
        got, body = p.expect(BULK_RECEIVING_STATUS)
        assert got == ident and struct.unpack_from("<IB", body) == (0, endpoint), body
        return body[5]

    @staticmethod
    def stop(p):
        ident = p.new_id()
        p.send(STOP_BULK_RECEIVING, struct.pack("<IB", 0, BULK_IN), ident)
        while True:
            got, body = p.expect(BULK_RECEIVING_STATUS)
            if got == ident:
                return body[5]

    def test_comes_unasked_until_it_is_stopped(self):
        with Device() as w:
            p = Streams(w.sock).start()
            for _ in range(3):
                self.assertEqual(self.start(p, 1024, 5), OK)
                for n in range(200):
                    ident, body = p.expect(BUFFERED_BULK)
                    self.assertEqual(struct.unpack_from("<IIBB", body), (0, 1024, BULK_IN, OK))
                    self.assertEqual((ident, len(body)), (n, 10 + 1024))
                self.assertEqual(self.stop(p), OK)
                p.round_trip()
                self.assertEqual([k for k in IsochronousIn.left(p) if k == BUFFERED_BULK], [], "data after the end")
            self.assertEqual(p.bulk_in(BULK_IN, 512)[0], OK)

    def test_guest_that_does_not_read(self):
        """A device that always has something costs no more than what may be unread."""
        with Device() as w:
            p = Streams(w.sock).start()
            self.assertEqual(self.start(p, 1 << 14, 16), OK)
            time.sleep(1)
            # 4 MiB of replies may be unread; it has as much itself, and half as much is in flight at most.
            self.assertLess(w.peak_kib(), 16 << 10)
            self.assertEqual(self.stop(p), OK)
            self.assertEqual(p.bulk_in(BULK_IN, 512)[0], OK)

    def test_bounds(self):
        with Device() as w:
            p = Streams(w.sock).start()
            for size, count in ((0, 1), (1023, 1), (512, 1), (1 << 21, 1), (1024, 0), (1024, 17), (1024, 255)):
                self.assertEqual(self.start(p, size, count), INVALID, (size, count))
            self.assertEqual(p.bulk_in(BULK_IN, 512)[0], OK)


class Storms(unittest.TestCase):
    """Everything that can be started and stopped, a thousand times over without waiting for an answer."""

    ROUNDS = 1000

    def batch(self, p, kinds):
        mask = struct.pack("<I", 1 << STREAM_OUT | 1 << 16 + (STREAM_IN & 0x0f))
        packets = {
            "in": (p.packet(START_ISO, bytes([ISO_IN, 32, 16])), p.packet(STOP_ISO, bytes([ISO_IN]))),
            "out": (p.packet(START_ISO, bytes([ISO_OUT, 1, 1])) +
                    p.packet(ISO, struct.pack("<BBH", ISO_OUT, 0, 64) + bytes(64)) * 3,
                    p.packet(STOP_ISO, bytes([ISO_OUT]))),
            "bulk": (p.packet(START_BULK_RECEIVING, struct.pack("<IIBB", 0, 4096, BULK_IN, 16)),
                     p.packet(STOP_BULK_RECEIVING, struct.pack("<IB", 0, BULK_IN))),
            "streams": (p.packet(ALLOC_STREAMS, mask + struct.pack("<I", 8)), p.packet(FREE_STREAMS, mask)),
        }
        return b"".join(packets[k][0] for k in kinds) + b"".join(packets[k][1] for k in kinds)

    def test_start_and_stop(self):
        for kinds in (["in"], ["out"], ["bulk"], ["streams"], ["in", "out", "bulk", "streams"]):
            with self.subTest(kinds=kinds), Device("iso=20") as w:
                p = Streams(w.sock).start()
                p.set_alt(1, 1)
                p.set_alt(2, 1)
                flood(p, self.batch(p, kinds) * self.ROUNDS)
                self.assertLess(w.peak_kib(), 64 << 10)
                # flood may stop within a packet: a new round would be read as its rest.
                p.sock.shutdown(socket.SHUT_WR)
                while p.receive(20):
                    pass
                self.assertEqual(w.wait(10), 0, w.said())

    def test_it_serves_on_behind(self):
        with Device("iso=20") as w:
            p = Streams(w.sock).start()
            p.set_alt(1, 1)
            p.set_alt(2, 1)
            for _ in range(100):
                p.send_raw(self.batch(p, ["streams", "out", "in", "bulk"]))
                p.round_trip()
            self.assertEqual(p.start_iso(ISO_IN, 8, 4), OK)
            self.assertEqual(p.iso_packet()[1], OK)
            self.assertEqual(p.bulk_in(BULK_IN, 512)[0], OK)
            self.assertEqual(p.counters()["forbidden"], 0)


if __name__ == "__main__":
    leftovers.main()
