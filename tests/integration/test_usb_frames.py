#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The worker's reading of usbredir, packet by packet: every type in every length, every place where a read may end, hellos,
and whole conversations with something wrong in them. The expectations are usbredirproto.h's, not the worker's tables."""
import os
import random
import socket
import struct
import sys
import time
import unittest

from lent import *
from usbredir import *

# Bytes after the framing that a guest's packet of that type has; data packets without their payload.
LENGTHS = {RESET: 0, SET_CONFIGURATION: 1, GET_CONFIGURATION: 0, SET_ALT: 2, GET_ALT: 1, START_ISO: 3, STOP_ISO: 1,
           START_INTERRUPT: 1, STOP_INTERRUPT: 1, ALLOC_STREAMS: 8, FREE_STREAMS: 4, CANCEL: 0, DISCONNECT_ACK: 0,
           START_BULK_RECEIVING: 10, STOP_BULK_RECEIVING: 5, CONTROL: 10, BULK: 10, ISO: 4, INTERRUPT: 4}
# What only a host sends, or nobody.
NEVER = (DEVICE_CONNECT, DEVICE_DISCONNECT, INTERFACE_INFO, EP_INFO, CONFIGURATION_STATUS, ALT_STATUS, ISO_STATUS,
         INTERRUPT_STATUS, STREAMS_STATUS, BULK_RECEIVING_STATUS, BUFFERED_BULK, 28, 99, 105, 0x100, 0x10000 | BULK,
         0x80000000 | CANCEL, 0xffffffff)
SESSIONS = 600 if not SANITIZED else 80


class Lengths(unittest.TestCase):
    def test_every_type_in_every_length(self):
        """The right length is served; any other drops the peer, and nothing of it is taken for something else."""
        lengths = (0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 64, 300, 65536) if not SANITIZED else (0, 1, 3, 11)
        self.worker = None
        dropped = served = 0
        for kind in (HELLO, *LENGTHS, *NEVER):
            right = LENGTHS.get(kind)
            near = () if right is None else (max(0, right - 1), right, right + 1)
            for length in sorted({*lengths, *near}):
                expected = "served" if length == right else "dropped"
                with self.subTest(kind=kind, length=length):
                    self.assertEqual(self.outcome(kind, length), expected)
                    served += expected == "served"
                    dropped += expected == "dropped"
        if self.worker:
            self.worker.close()
        print(f"  {served} served, {dropped} dropped", file=sys.stderr)

    def outcome(self, kind, length):
        if not self.worker:
            self.worker = Worker(4096)
            self.peer = Peer(self.worker.sock)
            self.peer.greet()
        p = self.peer
        ident = p.new_id()
        # Interrupts are received from IN endpoints only.
        body = bytes(length) if kind not in (START_INTERRUPT, STOP_INTERRUPT) else b"\x81" * length
        p.send_raw(p.packet(kind, body, 1) + p.packet(GET_CONFIGURATION, b"", ident))
        while True:
            packet = p.receive()
            if packet is None:
                break
            if packet[:2] == (CONFIGURATION_STATUS, ident):
                return "served"
        code, said = self.worker.wait(10), self.worker.said()
        self.worker.close()
        self.worker = None
        return "dropped" if code == EXIT_PEER_BAD and "peer-violation" in said else (code, said)

    def test_filters(self):
        """Rules are text of some length; whatever it says, the guest's side is who applies it."""
        for rules, good in ((b"-1,-1,-1,-1,1\0", True), (b"0x08,-1,-1,-1,0|-1,-1,-1,-1,1\0", True), (b"", False),
                            (b"-1,-1,-1,-1,1", False), (b"\0", None), (b"x" * 4000 + b"\0", None),
                            (b"|" * 4000 + b"\0", None), (b"1,2,3\0", None), (b"\xff" * 64 + b"\0", None),
                            (b"-1,-1,-1,-1,1|" * 250 + b"-1,-1,-1,-1,1\0", True), (bytes(8000), False)):
            with self.subTest(rules=rules[:20], length=len(rules)), Worker(4096) as w:
                p = Peer(w.sock)
                p.greet()
                p.send(FILTER_FILTER, rules)
                p.send(GET_CONFIGURATION, b"", 5)
                try:
                    served = p.expect(CONFIGURATION_STATUS)[0] == 5
                except (PeerError, OSError):
                    served = False
                if good is not None:
                    self.assertEqual(served, good, w.said())
                if not served:
                    self.assertEqual(w.wait(10), EXIT_PEER_BAD, w.said())

    def test_hellos(self):
        """Every capability that will ever be, and none: what both know holds."""
        for words, caps in (((), ()), ((0,), ()), ((0xffffffff,), range(32)), ((0xffffffff,) * 64, range(32)),
                            ((1 << CAP_IDS64,), (CAP_IDS64,)), ((1 << CAP_BULK32 | 0x80000000,), (CAP_BULK32,))):
            for version in (b"", b"\xff" * 64, b"%s%n\x1b[2J".ljust(64, b"\0")):
                with self.subTest(words=len(words), version=version[:4]), Worker(4096) as w:
                    s = Stick(w.sock, caps)
                    body = version.ljust(64, b"\0") + struct.pack(f"<{len(words)}I", *words)
                    s.hello_packet = lambda: struct.pack("<III", HELLO, len(body), 0) + body
                    s.start().ready()
                    self.assertEqual(s.read(0, 8), w.image.read_bytes())


class Splits(unittest.TestCase):
    def command(self, s, blocks=2):
        """A write and a read of what it wrote, and what the guest must get for it."""
        size = blocks * 512
        data = os.urandom(size)
        requests = [(s.ep_out, s.cbw(struct.pack(">BBIBHB", 0x2a, 0, 0, 0, blocks, 0), size, False)), (s.ep_out, data),
                    (s.ep_in | 0x80, 13)]
        write_tag = s.tag
        requests += [(s.ep_out, s.cbw(struct.pack(">BBIBHB", 0x28, 0, 0, 0, blocks, 0), size, True)),
                     (s.ep_in | 0x80, size), (s.ep_in | 0x80, 13)]
        packets, ids = b"", []
        for endpoint, what in requests:
            ids.append(s.new_id())
            body = s.bulk_body(endpoint, what) if endpoint & 0x80 else s.bulk_body(endpoint, len(what), what)
            packets += s.packet(BULK, body, ids[-1])
        csw = lambda tag: struct.pack("<4sIIB", b"USBS", tag, 0, 0)
        return packets, list(zip(ids, (b"", b"", csw(write_tag), b"", data, csw(s.tag))))

    def check(self, s, answers):
        for ident, data in answers:
            got, body = s.expect(BULK)
            self.assertEqual((got, s.bulk_reply(body)[1], s.bulk_reply(body)[3]), (ident, OK, data))

    def test_in_two_pieces_at_every_byte(self):
        for caps in (ALL_CAPS, ()):
            with self.subTest(caps=caps), Worker() as w:
                s = Stick(w.sock, caps).start().ready()
                for cut in range(1, len(self.command(s)[0])):
                    packets, answers = self.command(s)
                    s.send_raw(packets[:cut])
                    # A round trip on the side would need the stream; what lies between is the worker's own turn.
                    if cut % 16 == 0:
                        time.sleep(0.001)
                    s.send_raw(packets[cut:])
                    self.check(s, answers)

    def test_byte_by_byte(self):
        with Worker() as w:
            s = Stick(w.sock)
            for byte in s.hello_packet():
                s.send_raw(bytes([byte]))
            s.hello_packet = lambda: b""
            s.start().ready()
            for _ in range(4):
                packets, answers = self.command(s)
                for byte in packets:
                    s.send_raw(bytes([byte]))
                self.check(s, answers)

    def test_many_in_one_piece(self):
        """More than the worker's read buffer holds, so that its reads end anywhere."""
        with Worker() as w:
            s = Stick(w.sock).start().ready()
            # 10 × 6 transfers: 64 may be in flight.
            for n, blocks in ((1, 200), (7, 9), (10, 17), (10, 2)) * 10:
                batch = [self.command(s, blocks) for _ in range(n)]
                s.send_raw(b"".join(packets for packets, _ in batch))
                for _, answers in batch:
                    self.check(s, answers)


class Conversations(unittest.TestCase):
    def packets(self, s):
        """A good conversation after the hellos."""
        out = [s.packet(SET_CONFIGURATION, b"\1", 2), s.packet(GET_ALT, b"\0", 3), s.packet(SET_ALT, b"\0\0", 4),
               s.packet(CONTROL, struct.pack("<BBBBHHH", 0x80, 6, 0x80, 0, 0x200, 0, 255), 5),
               s.packet(CONTROL, struct.pack("<BBBBHHH", 0x80, 0xfe, 0xa1, 0, 0, 0, 1), 6)]
        ident = 10
        for cdb, length, data in (
                (bytes(6), 0, None), (bytes([3, 0, 0, 0, 18, 0]), 18, None), (bytes([0x12, 0, 0, 0, 36, 0]), 36, None),
                (bytes([0x25]) + bytes(9), 8, None), (struct.pack(">BBIBHB", 0x28, 0, 0, 0, 8, 0), 4096, None),
                (struct.pack(">BBIBHB", 0x2a, 0, 4, 0, 2, 0), 1024, bytes(1024)), (bytes([0x35]) + bytes(9), 0, None),
                (bytes([0x5a, 0, 0x3f]) + bytes(4) + bytes([0, 192, 0]), 192, None)):
            out.append(s.packet(BULK, s.bulk_body(s.ep_out, 31, s.cbw(cdb, length, data is None)), ident))
            if length:
                out.append(s.packet(BULK, s.bulk_body(s.ep_out, length, data) if data else
                                    s.bulk_body(s.ep_in | 0x80, length), ident + 1))
            out += [s.packet(BULK, s.bulk_body(s.ep_in | 0x80, 13), ident + 2), s.packet(CANCEL, b"", ident + 2)]
            ident += 3
        return out

    def spoil(self, rng, packets):
        """One thing wrong. Packets are changed, cut, doubled, left out, swapped, or said to be longer than they are."""
        i, k = rng.randrange(len(packets)), rng.randrange(len(packets))
        act = rng.randrange(8)
        if act < 4 and packets[i]:
            p = bytearray(packets[i])
            # What is wrong in the framing ends it; what comes behind is for the engine, the transport and SCSI.
            at = rng.randrange(len(p)) if rng.random() < 0.1 else rng.randrange(min(16, len(p) - 1), len(p))
            p[at] = rng.choice((0, 1, 0x7f, 0x80, 0xff, p[at] ^ 1 << rng.randrange(8), rng.randrange(256)))
            packets[i] = bytes(p)
        elif act == 4:
            packets[i] = packets[i][:rng.randrange(len(packets[i]) + 1)]
        elif act == 5:
            packets.insert(k, packets[i])
        elif act == 6 and len(packets) > 1:
            del packets[i]
        else:
            packets[i], packets[k] = packets[k], packets[i]

    def test_spoilt(self):
        """The worker ends as the peer's fault or with the stream; a write-protected image stays as it was."""
        rng = random.Random(20261129)
        ends = {}
        for i in range(SESSIONS):
            read_only = i % 2 == 0
            with self.subTest(i), Worker(1 << 16, options=["--read-only"] if read_only else []) as w:
                was = w.image.read_bytes()
                s = Stick(w.sock, ALL_CAPS if i % 3 else (CAP_IDS64, CAP_BULK32))
                s.greet()
                s.find_endpoints()
                packets = self.packets(s)
                for _ in range(rng.choice((1, 2, 5, 20))):
                    self.spoil(rng, packets)
                try:
                    s.send_raw(b"".join(packets), 5)
                    s.sock.shutdown(socket.SHUT_WR)
                    while s.sock.recv(1 << 20):
                        pass
                except OSError:
                    pass
                code, said = w.wait(15), w.said()
                self.assertIn(code, (0, EXIT_PEER_BAD), said)
                why = said.rsplit("ends: ", 1)[-1].split("\n")[0].strip()
                self.assertTrue(why.startswith("peer-violation") == (code == EXIT_PEER_BAD), said)
                ends[why] = ends.get(why, 0) + 1
                self.assertEqual(len(w.image.read_bytes()), len(was))
                if read_only:
                    self.assertEqual(w.image.read_bytes(), was)
        # Ends that are all the same would prove nothing.
        self.assertGreaterEqual(len(ends), 5, ends)
        print("  " + ", ".join(f"{n} × {why}" for why, n in sorted(ends.items())), file=sys.stderr)


if __name__ == "__main__":
    leftovers.main(verbosity=2)
