#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A device of the host with the test as its broker: what the two have to say to each other."""
import errno
import struct
import time
import unittest

from lent import SILENCE_MAX
from usbdevice import *


class Configuration(unittest.TestCase):
    def want(self, p, value):
        ident = p.new_id()
        p.send(SET_CONFIGURATION, struct.pack("<B", value), ident)
        return ident

    def status(self, p, ident):
        got, body = p.expect(CONFIGURATION_STATUS)
        self.assertEqual(got, ident)
        return tuple(body)

    def test_the_active_one_needs_nobody(self):
        with LentDevice() as w:
            p = Guest(w.sock).start()
            w.wait_state("configured")
            self.assertEqual(p.bulk_in(BULK_IN, 64)[0], OK)
            self.assertFalse([m for m in w.messages if m[0] == "set-configuration"])

    def test_the_broker_sets_another(self):
        """The stub's device stays what it is: the worker reads it again and says what it found."""
        with LentDevice() as w:
            p = Guest(w.sock).start()
            ident = self.want(p, 0)
            self.assertEqual(w.wanted_configuration(), 0)
            # It waits, and is alive.
            late = p.start_bulk_in(64)
            time.sleep(0.3)
            w.configured()
            self.assertEqual(self.status(p, ident), (OK, 1))
            self.assertEqual(p.expect(BULK)[0], late)
            ident = self.want(p, 7)
            self.assertEqual(w.wanted_configuration(), 7)
            w.configured(-errno.EINVAL)
            self.assertEqual(self.status(p, ident), (STALL, 1))
            self.assertEqual(p.bulk_in(BULK_IN, 64)[0], OK)
            self.assertLess(w.silence, SILENCE_MAX)

    def test_an_answer_that_nobody_asked_for(self):
        with LentDevice() as w:
            p = Guest(w.sock).start()
            w.configured()
            w.configured(-errno.EIO)
            self.assertEqual(p.bulk_in(BULK_IN, 64)[0], OK)

    def test_a_driver_was_quicker(self):
        with LentDevice("busy_after=3") as w:
            p = Guest(w.sock).start()
            self.want(p, 0)
            w.wanted_configuration()
            w.configured()
            p.expect(DEVICE_DISCONNECT)
            p.send(DISCONNECT_ACK)
            self.assertEqual(w.done(), ("device-busy", errno.EBUSY, "a host driver has interface 0"))
            self.assertEqual(w.code, EXIT_DEVICE_BUSY)


    def another_broker(self, ask_first):
        """What the guest wants while its broker is gone, or what that one had not done yet, is asked of the next one."""
        cookie = bytes(range(16))
        with LentDevice(listen=True) as w:
            p = Guest(w.sock).start()
            w.keep(cookie)
            if ask_first:
                ident = self.want(p, 0)
                self.assertEqual(w.wanted_configuration(), 0)
            w.hang_up()
            if not ask_first:
                ident = self.want(p, 0)
            late = p.start_bulk_in(64)
            time.sleep(0.3)
            held = w.adopt(cookie)
            self.assertEqual((held["state"], held["fd"]), ("configured", None))
            self.assertEqual(w.wanted_configuration(), 0)
            w.configured()
            self.assertEqual(self.status(p, ident), (OK, 1))
            self.assertEqual(p.expect(BULK)[0], late)
            # Answered is answered.
            w.hang_up()
            w.adopt(cookie)
            w.counters()
            self.assertFalse([m for m in w.messages if m[0] == "set-configuration"])
            self.assertEqual(p.bulk_in(BULK_IN, 64)[0], OK)

    def test_its_broker_dies_over_it(self):
        self.another_broker(True)

    def test_it_has_no_broker_now(self):
        self.another_broker(False)


class Start(unittest.TestCase):
    def test_a_host_driver_has_it(self):
        with LentDevice("busy") as w:
            self.assertEqual(w.done(), ("device-busy", errno.EBUSY, "a host driver has interface 0"))
            self.assertEqual((w.code, [m for m in w.messages if m[0] == "ready"]), (EXIT_DEVICE_BUSY, []))

    def test_it_is_gone_already(self):
        with LentDevice("gone=1") as w:
            self.assertEqual(w.done(), ("device-lost", errno.ENODEV, "can't open the device"))
            self.assertEqual(w.code, EXIT_DEVICE_LOST)


class Unplugged(unittest.TestCase):
    """The guest is told within a second, whatever goes on."""

    def check(self, stub, prepare):
        with LentDevice(stub) as w:
            p = Guest(w.sock).start()
            w.forget_silence()
            prepare(p)
            begin = time.monotonic()
            w.unplugged()
            p.expect(DEVICE_DISCONNECT)
            self.assertLess(time.monotonic() - begin, 1)
            p.send(DISCONNECT_ACK)
            self.assertEqual(w.done(), ("device-lost", errno.ENODEV, ""))
            self.assertEqual(w.code, EXIT_DEVICE_LOST)
            self.assertLess(w.silence, SILENCE_MAX)

    def test_idle(self):
        self.check("", lambda p: p.round_trip())

    def test_in_flight(self):
        def read(p):
            for _ in range(30):  # more than fits the budget, too
                p.start_bulk_in(100000)
            p.send(START_INTERRUPT, bytes([INTERRUPT_IN]), p.new_id())
            p.expect(INTERRUPT_STATUS)
        self.check("hang=81", read)

    def test_during_reset(self):
        def reset(p):
            p.start_bulk_in(64)
            p.send(RESET)
            time.sleep(0.2)
        self.check("hang=81 slow=700", reset)

    def test_during_a_halt_that_is_cleared(self):
        def clear(p):
            for _ in range(3):
                p.send(CONTROL, struct.pack("<BBBBHHH", 0, 1, 2, 0, 0, BULK_OUT, 0), p.new_id())
            time.sleep(0.2)
        self.check("slow=700", clear)


class Blocking(unittest.TestCase):
    def test_the_heartbeat_goes_on(self):
        """A reset that takes three seconds, altsettings and claims with it."""
        with LentDevice("slow=600") as w:
            p = Guest(w.sock).start()
            w.forget_silence()
            begin = time.monotonic()
            p.send(RESET)  # the reset itself, and three claims
            self.assertEqual(p.set_alt(1, 1), (OK, 1, 1))
            self.assertGreater(time.monotonic() - begin, 5 * 0.6 - 0.1)
            self.assertLess(w.silence, 1)
            self.assertEqual(p.counters()["resets"], 1)

    def test_what_comes_meanwhile_waits(self):
        with LentDevice("slow=300") as w:
            p = Guest(w.sock).start()
            clearing, reading = p.new_id(), p.new_id()
            p.send(CONTROL, struct.pack("<BBBBHHH", 0, 1, 2, 0, 0, BULK_IN, 0), clearing)
            p.send(BULK, p.bulk_body(BULK_IN, 64), reading)
            self.assertEqual(p.expect(CONTROL)[0], clearing)
            self.assertEqual(p.expect(BULK)[0], reading)


if __name__ == "__main__":
    leftovers.main()
