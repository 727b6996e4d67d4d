# SPDX-License-Identifier: MIT
"""One devbrokerd in a temporary directory per test, VMMs without VMs, and raw D-Bus for what no library would send."""
import os
import socket
import struct
import sys
import tempfile
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "lab"))
from broker import Broker, CliError  # noqa: E402
from vmm import Vmm  # noqa: E402

IFACE = "org.devbroker.Broker1"
ROOT = "/org/devbroker"


class RawBus:
    """A client of RUN-DIR/bus, or of the socket of a message bus, in raw bytes (D-Bus specification 0.41)."""

    def __init__(self, broker, authenticate=True):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(str(broker.run_dir / "bus") if isinstance(broker, Broker) else broker)
        self.serial = 0
        if authenticate:
            self.authenticate()

    def authenticate(self):
        uid = str(os.geteuid()).encode().hex().encode()
        self.sock.sendall(b"\0AUTH EXTERNAL " + uid + b"\r\nBEGIN\r\n")
        reply = b""
        while b"\r\n" not in reply:
            reply += self.sock.recv(1)
        assert reply.startswith(b"OK "), reply

    @staticmethod
    def align(data, n):
        return data + bytes(-len(data) % n)

    @classmethod
    def string(cls, text):
        raw = text.encode()
        return struct.pack("<I", len(raw)) + raw + b"\0"

    def field(self, code, kind, text):
        if kind == "u":
            return bytes([code, 1]) + b"u\0" + struct.pack("<I", text)
        value = bytes([len(text)]) + text.encode() + b"\0" if kind == "g" else self.string(text)
        return bytes([code, 1]) + kind.encode() + b"\0" + value

    def message(self, path, interface, member, *strings, options=False, destination=None):
        """A method call with arguments of type s, and an empty a{sv} at the end if options."""
        body = b""
        for s in strings:
            body = self.align(body, 4) + self.string(s)
        if options:
            body = self.align(self.align(body, 4) + bytes(4), 8)
        parts = [(1, "o", path), (2, "s", interface), (3, "s", member)]
        if destination:
            parts.append((6, "s", destination))
        signature = "s" * len(strings) + ("a{sv}" if options else "")
        if signature:
            parts.append((8, "g", signature))
        return self.bytes_of(1, parts, body)

    def bytes_of(self, kind, parts, body):
        self.serial += 1
        fields = b""
        for part in parts:
            fields = self.align(fields, 8) + self.field(*part)
        head = struct.pack("<cBBBIII", b"l", kind, 0, 1, len(body), self.serial, len(fields))
        return self.align(head + fields, 8) + body

    def request_name(self, name):
        """On a message bus."""
        body = self.string(name)
        body = self.align(body, 4) + struct.pack("<I", 4)
        self.sock.sendall(self.bytes_of(1, [(1, "o", "/org/freedesktop/DBus"), (2, "s", "org.freedesktop.DBus"),
                                            (3, "s", "RequestName"), (6, "s", "org.freedesktop.DBus"),
                                            (8, "g", "su")], body))
        while (got := self.receive())[0] == 4:
            pass
        assert got == (2, struct.pack("<I", 1)), got

    def reply(self, destination, serial, signature, body):
        self.sock.sendall(self.bytes_of(2, [(5, "u", serial), (6, "s", destination), (8, "g", signature)], body))

    def exactly(self, n):
        data = b""
        while len(data) < n:
            more = self.sock.recv(n - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def receive(self):
        """(type, body) of the next message: 2 is a return, 3 an error, 4 a signal."""
        head = self.exactly(16)
        n_body, _, n_fields = struct.unpack_from("<III", head, 4)
        self.exactly(n_fields + -n_fields % 8)
        return head[1], self.exactly(n_body)

    def receive_all(self):
        """(type, header fields by code where they are strings, serial, body) of the next message."""
        head = self.exactly(16)
        n_body, serial, n_fields = struct.unpack_from("<III", head, 4)
        raw = self.exactly(n_fields + -n_fields % 8)
        fields, at = {}, 0
        while at < n_fields:
            at += -at % 8
            code, kind = raw[at], raw[at + 2:at + 3]
            at += 4
            if kind in b"so":
                n = struct.unpack_from("<I", raw, at)[0]
                fields[code] = raw[at + 4:at + 4 + n].decode()
                at += 4 + n + 1
            else:
                at += 4 if kind == b"u" else raw[at] + 2
        return head[1], fields, serial, self.exactly(n_body)

    def call(self, *message, options=False, destination=None):
        self.sock.sendall(self.message(*message, options=options, destination=destination))
        while True:
            kind, body = self.receive()
            if kind != 4:
                return kind, body

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


class BrokerCase(unittest.TestCase):
    files = {}

    def setUp(self):
        # Short: paths of unix sockets end at 107 bytes.
        tmp = tempfile.TemporaryDirectory(prefix="db-")
        self.addCleanup(tmp.cleanup)
        self.work = Path(tmp.name)
        # Workers and the checks of configuration must be able to reach it.
        self.work.chmod(0o755)
        self.broker = Broker(os.environ["DEVBROKER_BUILD"], self.work, self.files)
        self.addCleanup(self.broker.end_orphans)
        self.addCleanup(self.broker.kill)
        self.vmms = []

    def start(self):
        self.broker.start()
        self.note_idle()
        return self.broker

    def note_idle(self):
        """What it holds while nothing is lent. The connection of a client that just ended may still be counted."""
        self.before = None
        wait_until(lambda: self.before == (now := self.broker.idle()) or setattr(self, "before", now), step=0.05)

    def vmm(self, name="win", *options, add=True, state="up"):
        v = Vmm(self.work / f"{name}.qmp", *options)
        self.addCleanup(v.kill)
        if add:
            self.broker.cli("vm", "add", name, "--qmp", v.path)
            self.broker.wait_vm(name, state)
            self.note_idle()
        return v

    def image(self, name="stick.img", mib=1):
        path = self.work / name
        path.write_bytes(os.urandom(mib << 20))
        return path

    def disk(self, name="stick", *options):
        image = self.image(name + ".img")
        self.broker.cli("disk", "add", image, "--name", name, *options)
        return image

    def attached(self, vmm, device="disk:stick", vm="win"):
        self.broker.cli("attach", device, vm, "--wait")
        self.broker.wait_state(device, "configured")
        return self.broker.device(device)

    def wait_reason(self, name, state, reason, timeout=15):
        self.broker.wait_state(name, state, timeout)
        d = self.broker.device(name)
        self.assertEqual(d["reason"], reason, d)
        return d

    def refused(self, exit_code, *command):
        with self.assertRaises(CliError) as e:
            self.broker.cli(*command)
        self.assertEqual(e.exception.code, exit_code, e.exception)
        return e.exception.error

    def log(self):
        return self.broker.log.read_text()

    def nothing_left(self, *vms):
        self.broker.check_idle(self.before, vms)

    def stopped(self):
        """It ends with 0 and leaves neither socket nor process; nothing that a sanitizer would say either."""
        pid = self.broker.process.pid
        self.assertEqual(self.broker.stop(), 0, self.log()[-2000:])
        self.assertFalse((self.broker.run_dir / "bus").exists())
        self.assertEqual(processes_with_parent(pid), [])
        for bad in ("Sanitizer", "runtime error", "Assertion"):
            self.assertFalse(bad in self.log(), self.log()[-3000:])


def processes_with_parent(pid):
    found = []
    for p in Path("/proc").iterdir():
        if p.name.isdigit():
            try:
                stat = (p / "stat").read_text()
            except OSError:
                continue
            if int(stat[stat.rindex(")") + 2:].split()[1]) == pid:
                found.append(int(p.name))
    return found


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_until(what, timeout=10, step=0.02):
    deadline = time.monotonic() + timeout
    while not what():
        if time.monotonic() > deadline:
            raise AssertionError("not true in time")
        time.sleep(step)
