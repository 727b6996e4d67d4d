#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What a well-behaved guest may do beyond reading and writing: descriptors, halts, the thirteen cases of bulk-only transport
1.0 (6.7), transfers cut otherwise than ours, and without the capabilities that QEMU happens to have."""
import os
import struct
import sys
import unittest

from lent import *
from usbredir import *

READ, WRITE, READY_CDB = 0x28, 0x2a, bytes(6)


def cdb10(opcode, lba, blocks):
    return struct.pack(">BBIBHB", opcode, 0, lba, 0, blocks, 0)


class Announcement(unittest.TestCase):
    def test_order_and_values(self):
        """hello, ep_info, interface_info, device_connect, in this order and with nothing between them."""
        for speed, number, packet in (("high", 2, 512), ("super", 3, 1024)):
            with self.subTest(speed), Worker(options=["--speed", speed]) as w:
                p = Peer(w.sock)
                p.send_raw(p.hello_packet())
                self.assertEqual(p.receive()[0], HELLO)
                p.id_size = 8
                kinds, bodies = zip(*[(kind, body) for kind, ident, body in (p.receive() for _ in range(3))])
                self.assertEqual(kinds, (EP_INFO, INTERFACE_INFO, DEVICE_CONNECT))
                p.ep_info, interfaces, connect = bodies
                count, = struct.unpack_from("<I", interfaces)
                self.assertEqual((count, interfaces[4], interfaces[36], interfaces[68], interfaces[100]),
                                 (1, 0, 0x08, 0x06, 0x50))
                endpoints = p.endpoints()
                self.assertEqual({(a & 0x80, kind, size) for a, (kind, size) in endpoints.items() if a & 15},
                                 {(0x80, 2, packet), (0, 2, packet)})
                # Endpoint 0 is control in both directions; every other one is told to be none.
                self.assertEqual([endpoints[a][0] for a in (0, 0x80)], [0, 0])
                self.assertEqual(len(endpoints), 4)
                self.assertEqual(struct.unpack("<BBBBHHH", connect), (number, 0, 0, 0, 0x1d6b, 0x0104, 0x0100))
                with self.assertRaises(PeerError):
                    p.receive(0.1)

    def test_ids_come_back_whole(self):
        for caps, ident in ((ALL_CAPS, 0xfedcba9876543210), (ALL_CAPS, 0), (ALL_CAPS, (1 << 64) - 1), ((), 0xfedcba98)):
            with self.subTest(ident=ident), Worker() as w:
                s = Stick(w.sock, caps).start()
                for kind, body, answer in ((GET_CONFIGURATION, b"", CONFIGURATION_STATUS), (GET_ALT, b"\0", ALT_STATUS),
                                           (BULK, s.bulk_body(0x8e, 1), BULK)):
                    s.send(kind, body, ident)
                    self.assertEqual(s.expect(answer)[0], ident)


class Control(unittest.TestCase):
    def test_descriptors_by_speed(self):
        for speed in ("high", "super"):
            with self.subTest(speed), Worker(options=["--speed", speed]) as w:
                s = Stick(w.sock).start()
                get = lambda kind, length=255: s.control(0x80, 6, kind << 8, 0, length)
                if speed == "super":
                    status, bos = get(15)
                    self.assertEqual((status, bos[:2], struct.unpack_from("<H", bos, 2)[0]), (OK, b"\5\x0f", len(bos)))
                    capabilities, at = [], 5
                    while at < len(bos):
                        capabilities.append(bos[at + 2])
                        at += bos[at]
                    self.assertEqual((at, len(capabilities)), (len(bos), bos[4]))
                    self.assertIn(3, capabilities)
                    self.assertEqual([get(kind)[0] for kind in (6, 7)], [STALL, STALL])
                else:
                    self.assertEqual(get(15)[0], STALL)
                    self.assertEqual(get(6), (OK, b"\x0a\6\0\2\0\0\0\x40\1\0"))
                    self.assertEqual(get(7)[1][1], 7)
                # As many bytes as were asked for, and never more than there are.
                whole = get(2)[1]
                for length in (0, 1, 9, len(whole) - 1, len(whole), len(whole) + 1, 65535):
                    self.assertEqual(get(2, length), (OK, whole[:length]))

    def test_requests_the_device_does_not_know(self):
        with Worker() as w:
            s = Stick(w.sock).start().ready()
            for kind, request in ((0xc0, 1), (0x40, 1), (0xa1, 0x77), (0x80, 99), (0x82, 12), (0xff, 0xff), (0x1f, 3)):
                self.assertIn(s.control(kind, request, 0, 0, 8 if kind & 0x80 else 0)[0], (STALL, INVALID))
            self.assertEqual(s.read(0, 8), w.image.read_bytes()[:4096])

    def test_halt_is_set_seen_and_cleared(self):
        with Worker() as w:
            s = Stick(w.sock).start().ready()
            for endpoint in (s.ep_in | 0x80, s.ep_out):
                status = lambda: s.control(0x82, 0, 0, endpoint, 2)
                self.assertEqual(status(), (OK, b"\0\0"))
                self.assertEqual(s.control(0x02, 3, 0, endpoint, 0)[0], OK)
                self.assertEqual(status(), (OK, b"\1\0"))
                halted = s.bulk_in(endpoint, 13) if endpoint & 0x80 else s.bulk_out(endpoint, bytes(31))
                self.assertEqual(halted[0], STALL)
                s.clear_halt(endpoint)
                self.assertEqual(status(), (OK, b"\0\0"))
                self.assertEqual(s.read(0, 8), w.image.read_bytes()[:4096])


class ThirteenCases(unittest.TestCase):
    """What the host announced in the CBW (nothing, in, out; length) against what the device's command makes of it."""

    def setUp(self):
        self.worker = Worker()
        self.s = Stick(self.worker.sock).start().ready()
        self.image = self.worker.image.read_bytes()

    def tearDown(self):
        # After each of them, with no more than what 5.3.4 asks for, the next command works.
        self.assertEqual(self.s.read(3, 5), self.image[3 * 512:8 * 512])
        self.assertEqual(self.worker.image.read_bytes(), self.image)
        self.worker.close()

    def recover(self):
        self.assertEqual(self.s.control(0x21, 0xff, 0, 0, 0)[0], OK)
        self.s.clear_halt(self.s.ep_in | 0x80)
        self.s.clear_halt(self.s.ep_out)

    def begin(self, cdb, length, to_host):
        self.assertEqual(self.s.bulk_out(self.s.ep_out, self.s.cbw(cdb, length, to_host))[0], OK)

    def status(self):
        """(CSW's result, residue); after a stall of its own it is asked for again (6.7.2), as hosts do."""
        status, data = self.s.bulk_in(self.s.ep_in, 13)
        if status == STALL:
            self.s.clear_halt(self.s.ep_in | 0x80)
            status, data = self.s.bulk_in(self.s.ep_in, 13)
        self.assertEqual((status, data[:4], struct.unpack_from("<I", data, 4)[0]), (OK, b"USBS", self.s.tag))
        return data[12], struct.unpack_from("<I", data, 8)[0]

    def data_in(self, length):
        """What came, a stall behind it cleared."""
        status, data = self.s.bulk_in(self.s.ep_in, length)
        if status == STALL or len(data) < length:
            self.s.clear_halt(self.s.ep_in | 0x80)
        return data

    def test_01_nothing_nothing(self):
        self.begin(READY_CDB, 0, False)
        self.assertEqual(self.status(), (0, 0))

    def phase_error(self):
        result, _ = self.status()
        self.assertEqual(result, 2)
        self.recover()

    def test_02_nothing_in(self):
        self.begin(cdb10(READ, 0, 1), 0, True)
        self.phase_error()

    def test_03_nothing_out(self):
        self.begin(cdb10(WRITE, 0, 1), 0, False)
        self.phase_error()

    def test_04_in_nothing(self):
        self.begin(READY_CDB, 512, True)
        self.assertEqual(self.data_in(512), b"")
        self.assertEqual(self.status(), (0, 512))

    def test_05_in_more_than_there_is(self):
        self.begin(cdb10(READ, 0, 1), 1024, True)
        data = self.data_in(1024)
        self.assertEqual(data[:512], self.image[:512])
        self.assertEqual(self.status(), (0, 512))

    def test_06_in_as_much_as_there_is(self):
        self.begin(cdb10(READ, 0, 2), 1024, True)
        self.assertEqual(self.data_in(1024), self.image[:1024])
        self.assertEqual(self.status(), (0, 0))

    def test_07_in_less_than_there_is(self):
        self.begin(cdb10(READ, 0, 2), 512, True)
        self.data_in(512)
        self.phase_error()

    def test_08_in_out(self):
        self.begin(cdb10(WRITE, 0, 1), 512, True)
        self.assertNotEqual(len(self.data_in(512)), 512)
        self.phase_error()

    def out(self, data):
        if self.s.bulk_out(self.s.ep_out, data)[0] == STALL:
            self.s.clear_halt(self.s.ep_out)

    def test_09_out_nothing(self):
        self.begin(READY_CDB, 512, False)
        self.out(bytes(512))
        self.assertEqual(self.status(), (0, 512))

    def test_10_out_in(self):
        self.begin(cdb10(READ, 0, 1), 512, False)
        self.out(bytes(512))
        self.phase_error()

    def test_11_out_more_than_is_wanted(self):
        self.begin(cdb10(WRITE, 0, 1), 1024, False)
        self.out(self.image[:512] + b"\xee" * 512)
        self.assertEqual(self.status(), (0, 512))

    def test_12_out_as_much_as_is_wanted(self):
        self.begin(cdb10(WRITE, 0, 2), 1024, False)
        self.out(self.image[:1024])
        self.assertEqual(self.status(), (0, 0))

    def test_13_out_less_than_is_wanted(self):
        self.begin(cdb10(WRITE, 0, 2), 512, False)
        self.out(self.image[:512])
        self.phase_error()


class Transfers(unittest.TestCase):
    def test_a_commands_data_in_transfers_of_other_sizes(self):
        """QEMU sends one of a guest's packets or many at once: any multiple of the packet's size may be one."""
        for caps, sizes in ((ALL_CAPS, (1024, 4096, 61440, 1 << 20)), ((), (1024, 4096, 61440))):
            for size in sizes:
                with self.subTest(caps=caps, size=size), Worker() as w:
                    s = Stick(w.sock, caps).start().ready()
                    total = 480 * 512
                    data = os.urandom(total)
                    self.assertEqual(s.bulk_out(s.ep_out, s.cbw(cdb10(WRITE, 100, 480), total, False))[0], OK)
                    for at in range(0, total, size):
                        self.assertEqual(s.bulk_out(s.ep_out, data[at:at + size])[0], OK)
                    self.assertEqual(s.csw(), (0, 0))
                    self.assertEqual(w.image.read_bytes()[51200:51200 + total], data)
                    self.assertEqual(s.bulk_out(s.ep_out, s.cbw(cdb10(READ, 100, 480), total, True))[0], OK)
                    got = b""
                    while len(got) < total:
                        status, piece = s.bulk_in(s.ep_in, min(size, total - len(got)))
                        self.assertEqual(status, OK)
                        got += piece
                    self.assertEqual(got, data)
                    self.assertEqual(s.csw(), (0, 0))

    def test_larger_than_any_may_be(self):
        with Worker(4 << 20) as w:
            s = Stick(w.sock).start().ready()
            for length in ((1 << 20) + 1, 1 << 24, 0xffffffff):
                self.assertEqual(s.bulk_in(s.ep_in, length), (INVALID, b""))
            self.assertEqual(s.read(0, 2048), w.image.read_bytes()[:1 << 20])

    def test_of_no_length(self):
        with Worker() as w:
            s = Stick(w.sock).start().ready()
            s.send(BULK, s.bulk_body(s.ep_in | 0x80, 0), 1 << 40)
            s.send(BULK, s.bulk_body(s.ep_out, 0), 1 << 41)
            s.send(CANCEL, b"", 1 << 40)
            s.send(CANCEL, b"", 1 << 41)
            self.assertEqual({s.expect(BULK)[0] for _ in range(2)}, {1 << 40, 1 << 41})
            self.assertEqual(s.control(0x21, 0xff, 0, 0, 0)[0], OK)
            s.clear_halt(s.ep_in | 0x80)
            s.clear_halt(s.ep_out)
            self.assertEqual(s.read(0, 8), w.image.read_bytes()[:4096])

    def test_requests_before_they_are_due(self):
        """A guest that queues the data's and the status's transfers before the command has been answered."""
        with Worker() as w:
            s = Stick(w.sock).start().ready()
            for lba in range(50):
                ids = [s.new_id() for _ in range(3)]
                s.send(BULK, s.bulk_body(s.ep_in | 0x80, 512), ids[1])
                s.send(BULK, s.bulk_body(s.ep_in | 0x80, 13), ids[2])
                cbw = s.cbw(cdb10(READ, lba, 1), 512, True)
                s.send(BULK, s.bulk_body(s.ep_out, 31, cbw), ids[0])
                got = dict(s.expect(BULK) for _ in range(3))
                self.assertEqual(s.bulk_reply(got[ids[1]])[3], w.image.read_bytes()[lba * 512:][:512])
                self.assertEqual(s.bulk_reply(got[ids[2]])[3][12], 0)

    def test_write_protected(self):
        """Data of a write that is refused: the guest hears why, and the image stays as it was."""
        with Lent(options=["--read-only"]) as w:
            s = Stick(w.sock).start().ready()
            was = w.image.read_bytes()
            for cdb in (cdb10(WRITE, 0, 8), struct.pack(">BBQIBB", 0x8a, 0, 0, 8, 0, 0)):
                self.assertEqual(s.scsi_out(cdb, b"\xff" * 4096), 1)
                self.assertEqual(s.sense(), (7, 0x27, 0))
            status, data = s.scsi_in(bytes([0x5a, 0, 0x3f]) + bytes(4) + bytes([0, 192, 0]), 192)
            self.assertEqual((status, data[3] & 0x80), (0, 0x80))
            self.assertEqual(s.read(0, 8), was[:4096])
            w.detach()
            s.expect(DEVICE_DISCONNECT)
            s.send(DISCONNECT_ACK)
            self.assertEqual(w.done(), ("detached", 0, ""))
            self.assertEqual(w.image.read_bytes(), was)


if __name__ == "__main__":
    leftovers.main(verbosity=2)
