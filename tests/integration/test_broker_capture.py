#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""devbroker capture: tshark reads it and counts what the worker counted; readers that stop; devices that leave; who may."""
import contextlib
import json
import os
import signal
import struct
import subprocess
import time
import unittest

from broker_case import wait_until
import leftovers
from test_broker_ways import WaysCase, to_unix


def blocks(data):
    """(type, body) of each block of a pcapng file, which must be whole."""
    at = 0
    while at < len(data):
        kind, size = struct.unpack_from("<II", data, at)
        assert size % 4 == 0 and size >= 12 and at + size <= len(data), (hex(kind), size, at, len(data))
        assert struct.unpack_from("<I", data, at + size - 4)[0] == size
        yield kind, data[at + 8:at + size - 4]
        at += size


def options(body, at):
    found = {}
    while at + 4 <= len(body):
        code, size = struct.unpack_from("<HH", body, at)
        if code == 0:
            break
        found[code] = body[at + 4:at + 4 + size]
        at += 4 + size + -size % 4
    return found


class Pcapng:
    """What is in a file: packets (time, usbmon's header as a tuple, data, original length, lost before), and the statistics."""

    HEADER = struct.Struct("<QBBBBHBBqiiIIQiiII")

    def __init__(self, data):
        self.packets = []
        self.statistics = None
        for kind, body in blocks(data):
            if kind == 0x0a0d0d0a:
                assert struct.unpack_from("<IHH", body) == (0x1a2b3c4d, 1, 0)
            elif kind == 1:
                assert struct.unpack_from("<HHI", body) == (220, 0, 262144)
                assert options(body, 8)[9] == b"\x09"
            elif kind == 6:
                _, high, low, n, original = struct.unpack_from("<IIIII", body)
                lost = options(body, 20 + n + -n % 4).get(4, bytes(8))
                self.packets.append((high << 32 | low, self.HEADER.unpack_from(body, 20), body[84:20 + n], original,
                                     int.from_bytes(lost, "little")))
            else:
                assert kind == 5 and self.statistics is None, kind
                o = options(body, 12)
                self.statistics = (int.from_bytes(o[4], "little"), int.from_bytes(o[5], "little"))

    def of_type(self, letter):
        return [p for p in self.packets if p[1][1] == ord(letter)]


class Capture(WaysCase):
    def setUp(self):
        super().setUp()
        self.start()
        self.broker.cli("vm", "add", "win", "--slots", "1")
        self.disk("stick", "--speed", "high")
        self.note_idle()
        self.guest_ = self.guest(to_unix(self.slot()))
        self.attached(None, "disk:stick")
        wait_until(lambda: self.guest_.stick)
        self.stick = self.guest_.stick
        self.file = self.work / "c.pcapng"

    @contextlib.contextmanager
    def capture(self, *more, json_=True, **kw):
        """The process; it has begun."""
        command = self.broker.command("capture", "stick", "-o", str(self.file), *more, *(["--json"] if json_ else []))
        p = subprocess.Popen(command, stdout=kw.pop("stdout", subprocess.PIPE), stderr=subprocess.PIPE, **kw)
        try:
            yield p
        finally:
            p.kill()
            p.wait()
            for f in (p.stdout, p.stderr):
                if f:
                    f.close()

    def begun(self):
        # The header is written when the worker has been told; a transfer shows that it has heard.
        wait_until(lambda: self.file.exists() and self.file.stat().st_size > 0)
        for _ in range(200):
            assert self.stick.scsi_out(bytes(6)) == 0
            if self.file.stat().st_size > 400:
                return
            time.sleep(0.02)
        raise AssertionError("nothing is captured")

    def end(self, p, how=signal.SIGINT):
        if how:
            p.send_signal(how)
        out, err = p.communicate(timeout=20)
        self.assertEqual(p.returncode, 0, err)
        return json.loads(out)

    def transfers(self):
        """What the worker has counted, as of a heartbeat from now on."""
        seen = []

        def same():
            seen.append(self.broker.device("disk:stick")["statistics"]["transfers"])
            return len(seen) >= 4 and len(set(seen[-4:])) == 1
        wait_until(same, step=0.4)
        return seen[-1]

    def test_tshark_decodes_it(self):
        before = self.transfers()
        with self.capture() as p:
            wait_until(lambda: self.file.exists() and self.file.stat().st_size > 0)
            time.sleep(0.3)
            data = os.urandom(4096)
            for i in range(20):
                self.assertTrue(self.stick.write(i * 8, data))
                self.assertEqual(self.stick.read(i * 8, 8), data)
            # A stall, and what mends it.
            self.assertEqual(self.stick.scsi_in(bytes([0x28, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 1, 0]), 512)[0], 1)
            self.stick.sense()
            said = self.end(p)
        counted = self.transfers() - before
        out = subprocess.run(["tshark", "-r", self.file, "-T", "fields", "-e", "usb.urb_type", "-e", "usb.transfer_type",
                              "-e", "usb.urb_status", "-e", "usb.data_len", "-e", "usb.setup.bRequest", "-e", "scsi_sbc.opcode",
                              "-e", "_ws.malformed"],
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True, timeout=60).stdout
        rows = [line.split("\t") for line in out.splitlines()]
        completed = [r for r in rows if "C" in r[0]]
        submitted = [r for r in rows if "S" in r[0]]
        print(f"\n  tshark: {len(submitted)} submitted, {len(completed)} completed; the worker counted {counted}")
        self.assertEqual(len(completed), counted)
        self.assertEqual((len(submitted), said["submissions"], said["completions"]), (counted, counted, counted))
        self.assertEqual((said["packets"], said["dropped"], said["ended"]), (2 * counted, 0, "interrupted"))
        # 20 writes and reads of 4 KiB, as SCSI; 41 reads, one of which stalls; a request that clears the halt.
        self.assertEqual(sum(r[5].lower() in ("0x2a", "42") for r in submitted), 20, rows[:6])
        self.assertEqual(sum(r[5].lower() in ("0x28", "40") for r in submitted), 21)
        self.assertEqual(sum(r[2] == "-32" for r in completed), 1)
        self.assertEqual(sum(r[3] == "4096" for r in rows), 40)
        self.assertTrue(any(r[1] == "0x02" and r[4] == "1" for r in submitted))
        self.assertFalse(any(r[6] for r in rows), "malformed")
        file = Pcapng(self.file.read_bytes())
        self.assertEqual(file.statistics, (2 * counted, 0))
        # A submission comes before its completion, under the same id, each once.
        ids = [p[1][0] for p in file.of_type("S")]
        self.assertEqual((len(set(ids)), sorted(p[1][0] for p in file.of_type("C"))), (counted, sorted(ids)))
        written = [p for p in file.of_type("S") if len(p[2]) == 4096]
        self.assertEqual(len(written), 20)
        self.assertTrue(all(p[2] == data for p in written))

    def test_headers_only(self):
        with self.capture("--headers-only") as p:
            self.begun()
            self.stick.write(0, bytes(4096))
            self.stick.read(0, 8)
            said = self.end(p)
        file = Pcapng(self.file.read_bytes())
        self.assertEqual((len(file.packets), file.statistics[0]), (said["packets"], said["packets"]))
        self.assertTrue(all(p[2] == b"" and p[3] >= 64 for p in file.packets))
        self.assertIn(64 + 4096, [p[3] for p in file.packets])
        self.assertEqual(os.stat(self.file).st_mode & 0o777, 0o600)

    def test_reader_that_stops(self):
        """The device goes on as fast as without it; what was lost is told, by sum and in its place."""
        self.stick.read(0, 128)

        def speed():
            start = time.monotonic()
            for _ in range(300):
                self.assertEqual(len(self.stick.read(0, 128)), 65536)
            return time.monotonic() - start
        alone = speed()
        with self.capture() as p:
            self.begun()
            p.send_signal(signal.SIGSTOP)
            beside = speed()
            worker = self.broker.device("disk:stick")["worker_pid"]
            rss = self.broker.rss_kib(worker)
            p.send_signal(signal.SIGCONT)
            # There is room again: what comes now is whole.
            wait_until(lambda: self.stick.scsi_out(bytes(6)) == 0 and self.file.stat().st_size > 2 << 20, step=0.1)
            time.sleep(0.3)
            self.stick.read(0, 128)
            said = self.end(p)
        file = Pcapng(self.file.read_bytes())
        print(f"\n  {alone:.2f} s alone, {beside:.2f} s beside a reader that stops; {said['packets']} packets, "
              f"{said['dropped']} lost; worker {rss} KiB")
        self.assertGreater(said["dropped"], 500)
        self.assertEqual(file.statistics, (said["packets"], said["dropped"]))
        self.assertEqual(sum(p[4] for p in file.packets), said["dropped"])
        self.assertIn(65536, [len(p[2]) for p in file.packets[-6:]])
        self.assertLess(beside, alone * 3 + 1)
        self.assertLess(rss, 64 << 10)

    def test_device_leaves(self):
        with self.capture() as p:
            self.begun()
            self.broker.cli("detach", "stick")
            said = self.end(p, None)
        self.assertEqual(said["ended"], "device")
        self.assertEqual(Pcapng(self.file.read_bytes()).statistics, (said["packets"], 0))
        self.assertEqual(self.refused(13, "capture", "stick", "-o", self.file)["code"], "not-attached")
        self.guest_.end()
        self.broker.wait_vm("win", "gone")
        self.nothing_left("win")

    def test_another_one_and_the_end_of_the_reader(self):
        fds = len(os.listdir(f"/proc/{self.broker.device('disk:stick')['worker_pid']}/fd"))
        with self.capture() as first:
            self.begun()
            kept = self.file
            self.file = self.work / "d.pcapng"
            with self.capture() as second:
                self.begun()
                self.assertEqual(self.end(first, None)["ended"], "device")
                second.kill()
                second.wait()
                self.assertEqual(self.stick.scsi_out(bytes(6)), 0)
            Pcapng(kept.read_bytes())
        wait_until(lambda: len(os.listdir(f"/proc/{self.broker.device('disk:stick')['worker_pid']}/fd")) == fds)
        self.file = "-"
        with self.capture(json_=False) as p:
            p.stdout.close()
            p.stdout = None
            wait_until(lambda: self.stick.scsi_out(bytes(6)) == 0 and p.poll() is not None, step=0.05)
            self.assertEqual(p.returncode, 1)
        self.assertTrue(self.stick.write(0, bytes(512)))

    def test_after_a_restart_of_the_broker(self):
        with self.capture() as p:
            self.begun()
            self.broker.kill()
            self.stick.read(0, 8)
            self.broker.start()
            self.stick.read(8, 8)
            said = self.end(p)
        file = Pcapng(self.file.read_bytes())
        self.assertEqual(sum(len(p[2]) == 4096 for p in file.packets), 2)
        self.assertEqual(said["dropped"], 0)
        self.file.unlink()
        with self.capture() as p:
            self.begun()
            self.end(p)


# What is imported is not run again.
del WaysCase

if __name__ == "__main__":
    leftovers.main(verbosity=2)
