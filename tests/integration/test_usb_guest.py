#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A well-behaved guest against the real worker in its sandbox: usbredir, bulk-only transport, SCSI."""
import os
import signal
import struct
import sys
import time
import unittest

from usbredir import *


class Capabilities(unittest.TestCase):
    def test_announced(self):
        with Worker() as w:
            p = Peer(w.sock)
            p.greet()
            self.assertEqual(p.theirs, set(ALL_CAPS))

    def test_every_subset_of_the_peers(self):
        for caps in [(), (CAP_IDS64,), (CAP_BULK32,), (CAP_MAX_PACKET,), (CAP_ACK, CAP_VERSION), ALL_CAPS]:
            with self.subTest(caps=caps), Worker() as w:
                s = Stick(w.sock, caps).start().ready()
                self.assertEqual(s.read(0, 8), w.image.read_bytes()[:4096])
                self.assertEqual(len(s.connect), 10 if CAP_VERSION in caps else 8)

    def test_descriptors(self):
        for speed, number, size in (("high", 2, 512), ("super", 3, 1024)):
            with self.subTest(speed=speed), Worker(options=["--speed", speed, "--serial", "ABCDEF012345"]) as w:
                s = Stick(w.sock).start()
                self.assertEqual(s.connect[0], number)
                self.assertEqual({v for a, v in s.endpoints().items() if a & 0x7f}, {(2, size)})
                status, device = s.control(0x80, 6, 0x0100, 0, 18)
                self.assertEqual((status, len(device), device[1]), (OK, 18, 1))
                self.assertEqual(device[8:12], s.connect[4:8])
                status, config = s.control(0x80, 6, 0x0200, 0, 255)
                self.assertEqual(status, OK)
                self.assertEqual(struct.unpack_from("<H", config, 2)[0], len(config))
                self.assertEqual(config[14:17], b"\x08\x06\x50")
                status, serial = s.control(0x80, 6, 0x0300 | device[16], 0x409, 255)
                self.assertEqual(serial[2:].decode("utf-16le"), "ABCDEF012345")
                status, _ = s.control(0x80, 6, 0x0300 | 77, 0x409, 255)
                self.assertEqual(status, STALL)
                self.assertEqual(s.control(0xa1, 0xfe, 0, 0, 1), (OK, b"\0"))


class Disk(unittest.TestCase):
    def test_reads_and_writes(self):
        with Worker(4 << 20) as w:
            s = Stick(w.sock).start().ready()
            image = w.image.read_bytes()
            self.assertEqual(s.scsi_in(bytes([0x25]) + bytes(9), 8),
                             (0, struct.pack(">II", len(image) // 512 - 1, 512)))
            for lba, blocks in ((0, 1), (7, 240), (100, 2048), (len(image) // 512 - 1, 1)):
                self.assertEqual(s.read(lba, blocks), image[lba * 512:(lba + blocks) * 512], (lba, blocks))
            data = os.urandom(300 * 512)
            self.assertTrue(s.write(1000, data))
            self.assertEqual(s.read(1000, 300), data)
            self.assertEqual(s.scsi_out(bytes([0x35]) + bytes(9)), 0)
            self.assertEqual(w.image.read_bytes()[1000 * 512:1300 * 512], data)

    def test_beyond_the_end(self):
        with Worker() as w:
            s = Stick(w.sock).start().ready()
            self.assertIsNone(s.read(2047, 2))
            self.assertEqual(s.sense(), (5, 0x21, 0))
            self.assertIsNone(s.read(0xffffffff, 1))
            self.assertEqual(len(s.read(2047, 1)), 512)

    def test_read_only(self):
        with Worker(options=["--read-only"]) as w:
            s = Stick(w.sock).start().ready()
            before = w.image.read_bytes()
            self.assertFalse(s.write(0, bytes(512)))
            self.assertEqual(s.sense()[0], 7)
            self.assertEqual(w.image.read_bytes(), before)

    def test_invalid_cbw_needs_reset_recovery(self):
        with Worker() as w:
            s = Stick(w.sock).start().ready()
            # The transfer itself has been received; what stalls is everything after it (6.6.1).
            self.assertEqual(s.bulk_out(s.ep_out, b"garbage of 31 bytes, not a CBW.")[0], OK)
            self.assertEqual(s.bulk_out(s.ep_out, s.cbw(bytes(6), 0, False))[0], STALL)
            self.assertEqual(s.bulk_in(s.ep_in, 13)[0], STALL)
            s.clear_halt(s.ep_in | 0x80)
            self.assertEqual(s.bulk_in(s.ep_in, 13)[0], STALL)
            self.assertEqual(s.control(0x21, 0xff, 0, 0, 0)[0], OK)
            s.clear_halt(s.ep_in | 0x80)
            s.clear_halt(s.ep_out)
            self.assertEqual(len(s.ready().read(0, 1)), 512)

    def test_eject(self):
        with Worker() as w:
            s = Stick(w.sock).start().ready()
            self.assertEqual(s.scsi_out(bytes([0x1b, 0, 0, 0, 2, 0])), 0)
            s.expect(DEVICE_DISCONNECT)
            s.send(DISCONNECT_ACK)
            self.assertIsNone(s.receive())
            self.assertEqual(w.wait(), 0)


class Life(unittest.TestCase):
    def test_configurations_and_alternate_settings(self):
        with Worker() as w:
            s = Stick(w.sock)
            s.greet()
            self.assertEqual(s.configure(1), struct.pack("<BB", OK, 1))
            s.send(GET_CONFIGURATION, b"", 77)
            self.assertEqual(s.expect(CONFIGURATION_STATUS), (77, struct.pack("<BB", OK, 1)))
            s.send(SET_ALT, struct.pack("<BB", 0, 0), 78)
            self.assertEqual(s.expect(ALT_STATUS), (78, struct.pack("<BBB", OK, 0, 0)))
            s.send(SET_ALT, struct.pack("<BB", 0, 5), 79)
            self.assertNotEqual(s.expect(ALT_STATUS)[1][0], OK)
            s.send(SET_ALT, struct.pack("<BB", 9, 0), 80)
            self.assertNotEqual(s.expect(ALT_STATUS)[1][0], OK)
            self.assertNotEqual(s.configure(9)[0], OK)
            self.assertEqual(s.configure(1)[0], OK)
            s.find_endpoints()
            self.assertEqual(len(s.ready().read(0, 1)), 512)

    def test_reset_in_mid_command(self):
        with Worker() as w:
            s = Stick(w.sock).start().ready()
            s.bulk_out(s.ep_out, s.cbw(struct.pack(">BBIBHB", 0x28, 0, 0, 0, 8, 0), 4096, True))
            s.send(RESET)
            self.assertEqual(s.configure(1)[0], OK)
            self.assertEqual(s.ready().read(0, 8), w.image.read_bytes()[:4096])

    def test_cancel(self):
        with Worker() as w:
            s = Stick(w.sock).start().ready()
            ident = s.new_id()
            s.send(BULK, s.bulk_body(s.ep_in | 0x80, 512), ident)
            s.send(CANCEL, b"", ident)
            got, body = s.expect(BULK)
            self.assertEqual((got, s.bulk_reply(body)[1]), (ident, CANCELLED))
            # Exactly once: the next answer is to the next request.
            self.assertEqual(len(s.read(0, 1)), 512)

    def test_detach_tells_the_guest_at_once(self):
        for busy in (False, True):
            with self.subTest(busy=busy), Worker(8 << 20) as w:
                s = Stick(w.sock).start().ready()
                if busy:
                    s.bulk_out(s.ep_out, s.cbw(struct.pack(">BBIBHB", 0x28, 0, 0, 0, 8192, 0), 4 << 20, True))
                    for _ in range(4):
                        s.send(BULK, s.bulk_body(s.ep_in | 0x80, 1 << 20), s.new_id())
                start = time.monotonic()
                w.process.send_signal(signal.SIGTERM)
                s.expect(DEVICE_DISCONNECT)
                self.assertLess(time.monotonic() - start, 1)
                s.send(DISCONNECT_ACK)
                self.assertEqual(w.wait(), 0)

    def test_what_was_answered_is_on_the_disk(self):
        with Worker() as w:
            s = Stick(w.sock).start().ready()
            data = os.urandom(64 * 512)
            self.assertTrue(s.write(64, data))
            w.sock.close()
            self.assertEqual(w.wait(), 0)
            self.assertEqual(w.image.read_bytes()[64 * 512:128 * 512], data)

    def test_sandboxed(self):
        with Worker() as w:
            Stick(w.sock).start().ready()
            self.assertEqual(w.status("Seccomp"), "2")
            self.assertEqual(w.status("NoNewPrivs"), "1")
            self.assertEqual(int(w.status("CapEff"), 16), 0)
            inner = w.inner_pid()
            for ns in ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup"):
                self.assertNotEqual(os.readlink(f"/proc/{inner}/ns/{ns}"), os.readlink(f"/proc/self/ns/{ns}"), ns)


if __name__ == "__main__":
    leftovers.main(verbosity=2)
