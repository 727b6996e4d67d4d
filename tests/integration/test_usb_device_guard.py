#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What devbroker-usb lets a guest see of a device and do to it, over the stub libusb. Endpoint 0x01 of a device that hangs
there never completes: what completes has not reached it."""
import struct
import unittest

from usbdevice import *

EXIT_NOT_SHOWN = 7
STALL = 4
STREAM_OUT = 0x04
CSW = struct.Struct("<4sIIB")
WRITE = bytes([0x2a, 0, 0, 0, 0, 7, 0, 0, 1, 0])
READ = bytes([0x28, 0, 0, 0, 0, 7, 0, 0, 1, 0])
MODE_SENSE = bytes([0x1a, 0, 0x3f, 0, 192, 0])


def cbw(tag, length, to_host, command):
    return struct.pack("<4sIIBBB", b"USBC", tag, length, 0x80 if to_host else 0, 0, len(command)) + command.ljust(16, b"\0")


class Interfaces(unittest.TestCase):
    def test_the_others_are_not_there(self):
        with Device(options=(REACHED, "--interfaces=0x2")) as w:
            p = Guest(w.sock)
            p.greet()
            self.assertEqual(p.interface_info[:5], struct.pack("<IB", 1, 1))
            self.assertEqual(p.ep_info[:32].count(b"\xff"), 30)  # but for endpoint 0
            self.assertEqual(p.configure(1)[0], OK)
            status, config = p.control(0x80, 6, 0x0200, 0, 255)
            self.assertEqual((status, len(config)), (OK, struct.unpack_from("<H", config, 2)[0]))
            self.assertEqual(config[4], 1)
            interfaces = [config[at + 2] for at in range(9, len(config)) if config[at:at + 2] == b"\x09\x04"]
            self.assertEqual(set(interfaces), {1})
            self.assertEqual(p.set_alt(1, 1), (OK, 1, 1))
            self.assertEqual(p.set_alt(2, 1)[0], INVALID)
            self.assertEqual(p.bulk_in(BULK_IN, 64)[0], INVALID)
            self.assertEqual(p.control(0x81, 0, 0, 1, 2)[0], OK)
            self.assertEqual(p.control(0x81, 0, 0, 0, 2)[0], STALL)
            self.assertEqual(p.control(0x02, 1, 0, BULK_IN, 0)[0], STALL)
            self.assertEqual(p.counters()["clear_halts"], 0)

    def test_a_reset_changes_nothing(self):
        with Device(options=(REACHED, "--interfaces=0x4")) as w:
            p = Guest(w.sock).start()
            self.assertEqual(p.set_alt(2, 1), (OK, 2, 1))
            p.send(RESET)
            self.assertEqual(p.set_alt(2, 1), (OK, 2, 1))
            self.assertEqual(p.bulk_out(STREAM_OUT, b"x" * 64)[0], OK)
            self.assertEqual(p.bulk_in(BULK_IN, 64)[0], INVALID)

    def test_none_is_left(self):
        for options in (["--interfaces=0x8"], ["--read-only"]):
            with self.subTest(options=options), Device(options=(REACHED, *options)) as w:
                self.assertEqual(w.wait(), EXIT_NOT_SHOWN)
                self.assertIn("not-shown: it has no", w.said())


class ReadOnly(unittest.TestCase):
    def check_failed(self, p, tag, residue):
        status, data = p.bulk_in(BULK_IN, 13)
        self.assertEqual((status, CSW.unpack(data)), (OK, (b"USBS", tag, residue, 1)))

    def test_writes_do_not_reach_it(self):
        with Device("storage hang=1", options=(REACHED, "--read-only")) as w:
            p = Guest(w.sock).start()
            for tag in range(1, 4):
                self.assertEqual(p.bulk_out(BULK_OUT, cbw(tag, 512, False, WRITE))[0], OK)
                self.assertEqual(p.bulk_out(BULK_OUT, b"\xaa" * 512), (OK, 512))
                self.check_failed(p, tag, 512)
            self.assertEqual(p.bulk_out(BULK_OUT, cbw(9, 18, True, bytes([3, 0, 0, 0, 18, 0])))[0], OK)
            status, sense = p.bulk_in(BULK_IN, 18)
            self.assertEqual((status, sense[2], sense[12]), (OK, 7, 0x27))
            self.assertEqual(p.bulk_in(BULK_IN, 13)[1], CSW.pack(b"USBS", 9, 0, 0))
            # No command: stalls, until the reset for it.
            self.assertEqual(p.bulk_out(BULK_OUT, b"\xaa" * 512)[0], STALL)
            self.assertEqual(p.bulk_in(BULK_IN, 13)[0], STALL)
            p.control(0x21, 0xff, 0, 0, 0)  # the stub does not know it
            self.assertEqual(p.bulk_out(BULK_OUT, cbw(10, 0, False, WRITE))[0], OK)
            self.check_failed(p, 10, 0)
            # Other ways in: a vendor's request, another endpoint of the interface, receiving ahead.
            self.assertEqual(p.control(0x40, 2, 0, 0, 0)[0], STALL)
            ident = p.new_id()
            p.send(INTERRUPT, struct.pack("<BBH", INTERRUPT_OUT, 0, 4) + b"data", ident)
            got, body = p.expect(INTERRUPT)
            self.assertEqual((got, body[1]), (ident, STALL))
            # A read does reach it, and hangs; the guest cancels it.
            ident = p.new_id()
            p.send(BULK, p.bulk_body(BULK_OUT, 31, cbw(11, 512, True, READ)), ident)
            p.round_trip()
            p.send(CANCEL, b"", ident)
            got, body = p.expect(BULK)
            self.assertEqual((got, p.bulk_reply(body)[1]), (ident, CANCELLED))

    def test_reads_do_and_it_says_that_it_is_protected(self):
        with Device("storage fill", options=(REACHED, "--read-only")) as w:
            p = Guest(w.sock).start()
            for command, length in ((READ, 512), (MODE_SENSE, 192), (READ, 65536)):
                self.assertEqual(p.bulk_out(BULK_OUT, cbw(1, length, True, command))[0], OK)
                status, data = p.bulk_in(BULK_IN, length)
                self.assertEqual((status, len(data)), (OK, length))
                if command is MODE_SENSE:
                    self.assertTrue(data[2] & 0x80)
                self.assertEqual(p.bulk_in(BULK_IN, 13)[0], OK)

    def test_what_waits_is_let_go(self):
        """A status that is read ahead waits for a command; cancels and a reset end that."""
        with Device("storage", options=(REACHED, "--read-only")) as w:
            p = Guest(w.sock).start()
            waiting = p.start_bulk_in(13)
            p.round_trip()
            p.send(CANCEL, b"", waiting)
            got, body = p.expect(BULK)
            self.assertEqual((got, p.bulk_reply(body)[1]), (waiting, CANCELLED))
            waiting = p.start_bulk_in(13)
            p.send(RESET)
            got, body = p.expect(BULK)
            self.assertEqual((got, p.bulk_reply(body)[1]), (waiting, CANCELLED))
            waiting = p.start_bulk_in(13)
            p.send(SET_CONFIGURATION, b"\1", p.new_id())
            got, body = p.expect(BULK)
            self.assertEqual((got, p.bulk_reply(body)[1]), (waiting, CANCELLED))
            p.expect(CONFIGURATION_STATUS)
            p.start_bulk_in(13)
            p.round_trip()
            p.sock.close()
            self.assertEqual(w.wait(), 0)


if __name__ == "__main__":
    leftovers.main()
