#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A device of the host (the stub libusb's) through the real worker: every kind of request, and what can go wrong with it."""
import os
import socket
import struct
import subprocess
import time
import unittest
from pathlib import Path

from lent import SANITIZED
from usbdevice import *


class Requests(unittest.TestCase):
    def test_descriptors(self):
        with Device() as w:
            p = Guest(w.sock)
            p.greet()
            self.assertEqual(p.connect[0], 3)
            self.assertEqual(struct.unpack_from("<HH", p.connect, 4), (0x1209, 1))
            self.assertEqual(p.endpoints()[BULK_IN], (2, 1024))
            self.assertEqual(p.endpoints()[INTERRUPT_IN], (3, 64))
            status, device = p.control(0x80, 6, 0x0100, 0, 64)
            self.assertEqual((status, len(device), device[8:12]), (OK, 18, p.connect[4:8]))
            self.assertEqual(p.control(0x80, 6, 0x0f00, 0, 64)[0], STALL)

    def test_control_both_ways(self):
        with Device() as w:
            p = Guest(w.sock).start()
            for n in (0, 1, 64, 4096):
                data = os.urandom(n)
                self.assertEqual(p.control(0x40, 2, 0, 0, n, data), (OK, b""), n)
                self.assertEqual(p.control(0xc0, 2, 0, 0, n), (OK, data), n)
            self.assertEqual(p.control(0xc0, 2, 0, 0, 4097)[0], INVALID)
            self.assertEqual(p.control(0x40, 3, 0, 0, 0)[0], STALL)

    def test_bulk_both_ways(self):
        with Device("fill") as w:
            p = Guest(w.sock).start()
            sent, digest = 0, 2166136261
            for n in (1, 64, 1024, 65536):
                data = os.urandom(n)
                self.assertEqual(p.bulk_out(BULK_OUT, data), (OK, n))
                for byte in data:
                    digest = (digest ^ byte) * 16777619 & 0xffffffff
                sent += n
            got = p.counters()
            self.assertEqual((got["bulk_out"], got["bulk_hash"]), (sent, digest))
            for number, n in enumerate((512, 65536, 1 << 20)):
                status, data = p.bulk_in(BULK_IN, n)
                want = bytes((number + i) & 0xff for i in range(8, 264))
                self.assertEqual((status, len(data), data[:4]), (OK, n, struct.pack("<I", number)))
                self.assertEqual(data[8:264], want)

    def test_short_packets(self):
        with Device("short=2") as w:
            p = Guest(w.sock).start()
            self.assertEqual([len(p.bulk_in(BULK_IN, 1000)[1]) for _ in range(4)], [1000, 500, 1000, 500])

    def test_interrupt(self):
        with Device("interrupt=1000") as w:
            p = Guest(w.sock).start()
            p.send(START_INTERRUPT, bytes([INTERRUPT_IN]), p.new_id())
            for n in range(20):
                _, body = p.expect(INTERRUPT)
                self.assertEqual(struct.unpack_from("<I", body, 4)[0], n)

    def test_altsettings(self):
        with Device() as w:
            p = Guest(w.sock).start()
            self.assertEqual(p.set_alt(1, 5), (OK, 1, 5))
            self.assertEqual(p.control(0x81, 10, 0, 1, 1), (OK, b"\5"))
            self.assertEqual(p.set_alt(1, 2)[0], INVALID)
            # The same configuration again: nothing of it reaches the device, but the altsettings are the first ones.
            self.assertEqual(p.configure(1), bytes([OK, 1]))
            self.assertEqual(p.control(0x81, 10, 0, 1, 1), (OK, b"\0"))
            self.assertEqual(p.counters()["forbidden"], 0)

    def test_halts(self):
        with Device("stall=3") as w:
            p = Guest(w.sock).start()
            self.assertEqual([p.bulk_in(BULK_IN, 64)[0] for _ in range(4)], [OK, OK, STALL, STALL])
            self.assertEqual(p.control(0x02, 1, 0, BULK_IN, 0)[0], OK)
            self.assertEqual(p.bulk_in(BULK_IN, 64)[0], OK)
            self.assertEqual(p.counters()["clear_halts"], 1)
            self.assertEqual(p.control(0x02, 1, 0, 0x8f, 0)[0], STALL)

    def test_reset(self):
        with Device() as w:
            p = Guest(w.sock).start()
            p.set_alt(1, 1)
            p.reset()
            self.assertEqual(p.counters()["resets"], 1)
            self.assertEqual(p.bulk_in(BULK_IN, 64)[0], OK)

    def test_another_configuration_by_hand(self):
        # The sandbox lets nobody set one; without it libusb does.
        with Device() as w:
            p = Guest(w.sock).start()
            self.assertEqual(p.configure(0), bytes([INVALID, 1]))
            self.assertEqual(p.bulk_in(BULK_IN, 64)[0], OK)
        with Device(options=("--sandbox=off",)) as w:
            p = Guest(w.sock).start()
            self.assertEqual(p.configure(0), bytes([OK, 0]))
            self.assertEqual(p.control(0x80, 8, 0, 0, 1), (OK, b"\0"))
            self.assertEqual(p.configure(1), bytes([OK, 1]))
            self.assertEqual(p.bulk_in(BULK_IN, 64)[0], OK)

    def test_interfaces_that_may_not_be_used(self):
        with Device(options=(REACHED, "--interfaces=0x2")) as w:
            p = Guest(w.sock).start()
            self.assertEqual(p.set_alt(1, 1), (OK, 1, 1))
            self.assertEqual(p.set_alt(2, 1)[0], INVALID)
            self.assertEqual(p.bulk_in(BULK_IN, 64)[0], INVALID)

    def test_over_tcp(self):
        with Device(tcp=True) as w:
            p = Guest(w.sock).start()
            self.assertEqual(p.bulk_in(BULK_IN, 1 << 20)[0], OK)
            if os.geteuid() == 0:
                # Otherwise a reply could wait 40 ms for the acknowledgement of the one before.
                stream = w.stolen_stream()
                self.assertTrue(stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
                stream.close()


class Cancels(unittest.TestCase):
    def test_in_flight_and_waiting(self):
        """What is at the device and what waits for room: each is answered once, as cancelled."""
        with Device("hang=81", options=(REACHED, "--usbfs-memory=1M")) as w:
            p = Guest(w.sock).start()
            ids = [p.start_bulk_in(200000) for _ in range(20)]
            # They hold all of IN's share; OUT and control go on.
            self.assertEqual(p.bulk_out(BULK_OUT, bytes(100000)), (OK, 100000))
            self.assertEqual(p.counters()["bulk_out"], 100000)
            for ident in reversed(ids):  # or cancelling the first ones would let others in
                p.send(CANCEL, b"", ident)
            answers = {}
            for _ in ids:
                ident, body = p.expect(BULK)
                answers[ident] = p.bulk_reply(body)[1]
            self.assertEqual(answers, {i: CANCELLED for i in ids})
            # Two of 200 KB fit into half of 1M; the others never were at the device.
            self.assertEqual(p.counters()["cancelled"], 2)

    def test_the_order_is_kept(self):
        with Device("latency=200", options=(REACHED, "--usbfs-memory=64K")) as w:
            p = Guest(w.sock).start()
            ids = [p.start_bulk_in(16384) for _ in range(30)]
            got = [p.expect(BULK) for _ in ids]
            self.assertEqual([ident for ident, _ in got], ids)
            numbers = [struct.unpack_from("<I", p.bulk_reply(body)[3])[0] for _, body in got]
            self.assertEqual(numbers, list(range(30)))

    def test_halt_is_cleared_among_others(self):
        with Device("hang=81 slow=100") as w:
            p = Guest(w.sock).start()
            reading = p.start_bulk_in(64)
            begin = time.monotonic()
            clearing = p.new_id()
            p.send(CONTROL, struct.pack("<BBBBHHH", 0, 1, 2, 0, 0, BULK_OUT, 0), clearing)
            p.send(CANCEL, b"", reading)  # while the thread has the device
            ident, body = p.expect(BULK)  # answered at once
            self.assertEqual((ident, p.bulk_reply(body)[1]), (reading, CANCELLED))
            self.assertEqual(p.expect(CONTROL)[0], clearing)
            self.assertGreater(time.monotonic() - begin, 0.09)


class Memory(unittest.TestCase):
    def test_the_kernel_has_none(self):
        """usbfs's memory belongs to the whole host: what finds none waits for what is there to come back."""
        with Device("memory=40000 latency=100") as w:
            p = Guest(w.sock).start()
            ids = [p.start_bulk_in(16384) for _ in range(20)]
            got = [p.expect(BULK) for _ in ids]
            self.assertEqual([ident for ident, _ in got], ids)
            self.assertEqual({p.bulk_reply(body)[1] for _, body in got}, {OK})

    def test_it_never_has_any(self):
        with Device("memory=10000") as w:
            p = Guest(w.sock).start()
            begin = time.monotonic()
            self.assertEqual(p.bulk_in(BULK_IN, 16384, 20)[0], IO_ERROR)
            self.assertTrue(1.5 < time.monotonic() - begin < 6)
            self.assertEqual(p.bulk_in(BULK_IN, 4096)[0], OK)

    @unittest.skipIf(SANITIZED, "the sanitizers' memory isn't the worker's")
    def test_idle(self):
        with Device() as w:
            p = Guest(w.sock).start()
            p.round_trip()
            time.sleep(0.2)
            stat = Path(f"/proc/{w.process.pid}/stat")
            before = stat.read_text().rsplit(")", 1)[1].split()[11:13]
            time.sleep(1)
            self.assertEqual(before, stat.read_text().rsplit(")", 1)[1].split()[11:13], "an idle worker used the CPU")
            with open(f"/proc/{w.process.pid}/smaps_rollup") as f:
                rss = next(int(line.split()[1]) for line in f if line.startswith("Rss:"))
            self.assertLessEqual(rss, 4096)


class Endings(unittest.TestCase):
    def test_device_goes(self):
        with Device("gone=30") as w:
            p = Guest(w.sock, caps=set(ALL_CAPS) - {CAP_ACK}).start()
            status = OK
            while status == OK:
                begin = time.monotonic()
                status = p.bulk_in(BULK_IN, 64)[0]
            self.assertEqual(status, IO_ERROR)
            p.expect(DEVICE_DISCONNECT)
            self.assertLess(time.monotonic() - begin, 1)
            self.assertEqual(w.wait(), EXIT_DEVICE_LOST)
            self.assertIn("ends: device-lost: No such device", w.said())

    def test_host_driver_has_an_interface(self):
        with Device("busy") as w:
            self.assertEqual(w.wait(), EXIT_DEVICE_BUSY)
            self.assertIn("device-busy: a host driver has interface 0", w.said())

    def test_guest_closes(self):
        with Device("hang=81") as w:
            p = Guest(w.sock).start()
            p.start_bulk_in(64)
            p.round_trip()
            p.sock.close()
            self.assertEqual(w.wait(), 0)

    def test_usage(self):
        for args in (["--device=/dev/null", "--device-fd=0", "--stream-fd=0"],
                     ["--device-fd=0", "--stream-fd=0", "--interfaces=x"],
                     ["--device-fd=0", "--stream-fd=0", "--interfaces=0x1ffffffff"],
                     ["--device-fd=0", "--stream-fd=0", "--usbfs-memory=1K"],
                     ["--device=/dev/null", "--control-fd=1", "--stream-fd=0"]):
            with self.subTest(args=args):
                r = subprocess.run([os.environ["DEVBROKER_USB"], *args], stdin=subprocess.DEVNULL, capture_output=True)
                self.assertEqual(r.returncode, 2, r.stderr)
        for where in ("tcp:192.0.2.1:4000", "tcp:localhost:4000", "tcp:127.0.0.1", "tcp:127.0.0.1:0"):
            with self.subTest(where=where):
                r = subprocess.run([os.environ["DEVBROKER_USB"], "--device=/dev/null", f"--connect={where}"],
                                   stdin=subprocess.DEVNULL, capture_output=True)
                self.assertEqual(r.returncode, EXIT_FAILED)
                self.assertIn(b"can't connect to", r.stderr)

    def test_it_is_no_device(self):
        ours, theirs = socket.socketpair()
        r = subprocess.run([os.environ["DEVBROKER_USB"], "--device=/dev/null", f"--stream-fd={theirs.fileno()}"],
                           pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, capture_output=True, timeout=20)
        theirs.close()
        self.assertEqual(r.returncode, EXIT_DEVICE_LOST, r.stderr)
        self.assertIn(b"device-lost: can't open the device", r.stderr)
        self.assertEqual(ours.recv(1), b"")
        ours.close()


if __name__ == "__main__":
    leftovers.main()
