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

BLOCKS = 2048  # of one command: 1 MiB, the most that a transfer may have


class Storm(unittest.TestCase):
    def setUp(self):
        self.neighbour = Worker()
        self.polite = Stick(self.neighbour.sock).start().ready()

    def tearDown(self):
        self.assertEqual(self.polite.read(0, 64), self.neighbour.image.read_bytes()[:64 * 512])
        self.neighbour.close()

    def check_bounds(self, w):
        peak = w.peak_kib()
        print(f"  {self.id().split('.')[-1]}: peak {peak} KiB, silent for {w.silence * 1e3:.0f} ms at most", file=sys.stderr)
        self.assertLess(w.silence, SILENCE_MAX)
        if not SANITIZED:
            self.assertLess(peak, LIMIT_KIB)

    def check_alive(self, s, w):
        self.assertEqual(s.read(0, 8), w.image.read_bytes()[:4096])
        w.counters()
        self.check_bounds(w)

    def read_command(self, s, lba, blocks=BLOCKS):
        """The three packets of a READ, and their ids."""
        cbw = s.cbw(struct.pack(">BBIBHB", 0x28, 0, lba, 0, blocks, 0), blocks * 512, True)
        ids = [s.new_id() for _ in range(3)]
        return ids, (s.packet(BULK, s.bulk_body(s.ep_out, 31, cbw), ids[0]) +
                     s.packet(BULK, s.bulk_body(s.ep_in | 0x80, blocks * 512), ids[1]) +
                     s.packet(BULK, s.bulk_body(s.ep_in | 0x80, 13), ids[2]))


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


if __name__ == "__main__":
    unittest.main(verbosity=2)
