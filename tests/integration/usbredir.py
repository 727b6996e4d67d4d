# SPDX-License-Identifier: MIT
"""The guest's side of usbredir in raw bytes (usbredirproto.h of usbredir 0.13), to be good or bad with, and the worker."""
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "lab"))
import leftovers  # noqa: E402

(HELLO, DEVICE_CONNECT, DEVICE_DISCONNECT, RESET, INTERFACE_INFO, EP_INFO, SET_CONFIGURATION, GET_CONFIGURATION,
 CONFIGURATION_STATUS, SET_ALT, GET_ALT, ALT_STATUS, START_ISO, STOP_ISO, ISO_STATUS, START_INTERRUPT, STOP_INTERRUPT,
 INTERRUPT_STATUS, ALLOC_STREAMS, FREE_STREAMS, STREAMS_STATUS, CANCEL, FILTER_REJECT, FILTER_FILTER, DISCONNECT_ACK,
 START_BULK_RECEIVING, STOP_BULK_RECEIVING, BULK_RECEIVING_STATUS) = range(28)
CONTROL, BULK, ISO, INTERRUPT, BUFFERED_BULK = range(100, 105)
CAP_STREAMS, CAP_VERSION, CAP_FILTER, CAP_ACK, CAP_MAX_PACKET, CAP_IDS64, CAP_BULK32, CAP_RECEIVING = range(8)
ALL_CAPS = (CAP_VERSION, CAP_FILTER, CAP_ACK, CAP_MAX_PACKET, CAP_IDS64, CAP_BULK32)
OK, CANCELLED, INVALID, IO_ERROR, STALL = range(5)


class PeerError(Exception):
    pass


class Peer:
    """One end of a usbredir connection. Packets are (type, id, body)."""

    def __init__(self, sock, caps=ALL_CAPS):
        self.sock = sock
        self.caps = set(caps)
        self.theirs = set()
        self.id_size = 4
        self.bulk32 = False
        self.buffer = bytearray()
        self.next_id = 1

    def send_raw(self, data, timeout=10):
        self.sock.settimeout(timeout)
        self.sock.sendall(data)

    def packet(self, kind, body=b"", ident=0, length=None):
        ids = struct.pack("<Q", ident) if self.id_size == 8 else struct.pack("<I", ident & 0xffffffff)
        return struct.pack("<II", kind, len(body) if length is None else length) + ids + body

    def send(self, kind, body=b"", ident=0, length=None):
        self.send_raw(self.packet(kind, body, ident, length))

    def hello_packet(self, caps=None):
        bits = sum(1 << c for c in (self.caps if caps is None else caps))
        return struct.pack("<III", HELLO, 68, 0) + b"test peer".ljust(64, b"\0") + struct.pack("<I", bits)

    def receive(self, timeout=10):
        """The next packet, or None at the end of the stream."""
        deadline = time.monotonic() + timeout
        while True:
            head = 8 + self.id_size
            if len(self.buffer) >= head:
                kind, length = struct.unpack_from("<II", self.buffer)
                if len(self.buffer) >= head + length:
                    ident = int.from_bytes(self.buffer[8:head], "little")
                    body = bytes(self.buffer[head:head + length])
                    del self.buffer[:head + length]
                    return kind, ident, body
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.sock], [], [], left)[0]:
                raise PeerError(f"no packet within {timeout} s; {len(self.buffer)} bytes wait")
            try:
                data = self.sock.recv(1 << 20)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self.buffer += data

    def expect(self, kind, timeout=10):
        """The next packet of that kind; others are skipped. Returns (id, body)."""
        deadline = time.monotonic() + timeout
        while True:
            p = self.receive(max(0.01, deadline - time.monotonic()))
            if p is None:
                raise PeerError(f"the worker closed the stream before packet {kind}")
            if p[0] == kind:
                return p[1], p[2]

    def greet(self):
        """Hellos, then everything up to device_connect, which is returned as (speed, class…, vendor, product)."""
        self.send_raw(self.hello_packet())
        kind, _, body = self.receive()
        assert kind == HELLO and len(body) >= 68, (kind, len(body))
        bits, = struct.unpack_from("<I", body, 64)
        self.theirs = {c for c in range(32) if bits >> c & 1}
        both = self.caps & self.theirs
        if CAP_IDS64 in both:
            self.id_size = 8
        self.bulk32 = CAP_BULK32 in both
        # libusbredirhost sends the interfaces before the endpoints, we the other way round.
        seen = {}
        while DEVICE_CONNECT not in seen:
            p = self.receive()
            if p is None:
                raise PeerError("the worker closed the stream before device_connect")
            seen[p[0]] = p[2]
        self.ep_info, self.interface_info, self.connect = seen[EP_INFO], seen[INTERFACE_INFO], seen[DEVICE_CONNECT]
        return self.connect

    def new_id(self):
        self.next_id += 1
        return self.next_id

    def bulk_body(self, endpoint, length, data=b"", stream=0):
        if self.bulk32:
            return struct.pack("<BBHIH", endpoint, 0, length & 0xffff, stream, length >> 16) + data
        return struct.pack("<BBHI", endpoint, 0, length & 0xffff, stream) + data

    def bulk_reply(self, body):
        """(endpoint, status, length, data) of a bulk packet."""
        if self.bulk32:
            endpoint, status, low, _, high = struct.unpack_from("<BBHIH", body)
            return endpoint, status, low | high << 16, body[10:]
        endpoint, status, low, _ = struct.unpack_from("<BBHI", body)
        return endpoint, status, low, body[8:]

    def bulk_in(self, endpoint, length, timeout=10):
        ident = self.new_id()
        self.send(BULK, self.bulk_body(endpoint | 0x80, length), ident)
        got, body = self.expect(BULK, timeout)
        assert got == ident, (got, ident)
        _, status, n, data = self.bulk_reply(body)
        assert n == len(data), (n, len(data))
        return status, data

    def bulk_out(self, endpoint, data, timeout=10):
        ident = self.new_id()
        self.send(BULK, self.bulk_body(endpoint, len(data), data), ident)
        got, body = self.expect(BULK, timeout)
        assert got == ident, (got, ident)
        return self.bulk_reply(body)[1:3]

    def control(self, request_type, request, value, index, length, data=b"", timeout=10):
        ident = self.new_id()
        head = struct.pack("<BBBBHHH", request_type & 0x80, request, request_type, 0, value, index, length)
        self.send(CONTROL, head + data, ident)
        got, body = self.expect(CONTROL, timeout)
        assert got == ident, (got, ident)
        status = body[3]
        return status, body[10:]

    def configure(self, value=1):
        ident = self.new_id()
        self.send(SET_CONFIGURATION, struct.pack("<B", value), ident)
        got, body = self.expect(CONFIGURATION_STATUS)
        assert got == ident
        return body

    def round_trip(self):
        """Everything that was sent before has been read when it returns; what came meanwhile is lost."""
        ident = self.new_id()
        self.send(GET_CONFIGURATION, b"", ident)
        while self.expect(CONFIGURATION_STATUS)[0] != ident:
            pass

    def endpoints(self):
        """{address: (type, max packet size)} as ep_info says. Index 0-15 is OUT, 16-31 IN."""
        types, sizes = self.ep_info[:32], self.ep_info[96:160]
        out = {}
        for i in range(32):
            if types[i] != 255:
                size = struct.unpack_from("<H", sizes, 2 * i)[0] if len(sizes) == 64 else None
                out[(i & 15) | (0x80 if i >= 16 else 0)] = types[i], size
        return out


class Stick(Peer):
    """Bulk-only transport on top: what a guest's usb-storage does."""

    tag = 0

    def find_endpoints(self):
        bulk = [a for a, (kind, _) in self.endpoints().items() if kind == 2]
        self.ep_in = next(a for a in bulk if a & 0x80) & 0x7f
        self.ep_out = next(a for a in bulk if not a & 0x80)

    def start(self):
        self.greet()
        self.find_endpoints()
        assert self.configure(1)[0] == OK
        return self

    def cbw(self, command, length, to_host):
        self.tag += 1
        return struct.pack("<4sIIBBB", b"USBC", self.tag, length, 0x80 if to_host else 0, 0,
                           len(command)) + command.ljust(16, b"\0")

    def csw(self):
        status, data = self.bulk_in(self.ep_in, 13)
        assert status == OK and len(data) == 13 and data[:4] == b"USBS", (status, data)
        tag, residue, result = struct.unpack("<4xIIB", data)
        assert tag == self.tag
        return result, residue

    def scsi_in(self, command, length):
        """(result of the CSW, data)"""
        assert self.bulk_out(self.ep_out, self.cbw(command, length, True))[0] == OK
        status, data = self.bulk_in(self.ep_in, length) if length else (OK, b"")
        if status == STALL:
            self.clear_halt(self.ep_in | 0x80)
        result, _ = self.csw()
        return result, data

    def scsi_out(self, command, data=b""):
        assert self.bulk_out(self.ep_out, self.cbw(command, len(data), False))[0] == OK
        if data and self.bulk_out(self.ep_out, data)[0] == STALL:
            self.clear_halt(self.ep_out)
        return self.csw()[0]

    def clear_halt(self, endpoint):
        assert self.control(0x02, 1, 0, endpoint, 0)[0] == OK

    def sense(self):
        result, data = self.scsi_in(bytes([3, 0, 0, 0, 18, 0]), 18)
        assert result == 0
        return data[2] & 15, data[12], data[13]

    def ready(self):
        """Takes the unit attention of the power-on away."""
        for _ in range(3):
            if self.scsi_out(bytes(6)) == 0:
                return self
            self.sense()
        raise PeerError("the stick does not get ready")

    def read(self, lba, blocks):
        result, data = self.scsi_in(struct.pack(">BBIBHB", 0x28, 0, lba, 0, blocks, 0), blocks * 512)
        return data if result == 0 else None

    def write(self, lba, data):
        return self.scsi_out(struct.pack(">BBIBHB", 0x2a, 0, lba, 0, len(data) // 512, 0), data) == 0


def flood(peer, data):
    """Sends until it is told to stop by the worker not reading. Returns the bytes that went."""
    peer.sock.setblocking(False)
    sent = 0
    deadline = time.monotonic() + 20
    while sent < len(data) and time.monotonic() < deadline:
        if not select.select([], [peer.sock], [], 1)[1]:
            break
        try:
            sent += peer.sock.send(data[sent:sent + (1 << 20)])
        except BlockingIOError:
            continue
        except (BrokenPipeError, ConnectionResetError):
            break
    peer.sock.setblocking(True)
    return sent


class Worker:
    """devbroker-usb in its full sandbox, with a socketpair to speak usbredir over, and no broker."""

    def __init__(self, size=1 << 20, options=(), image=None, sndbuf=None):
        self.dir = tempfile.TemporaryDirectory(prefix="db-peer-")
        self.image = Path(image or os.path.join(self.dir.name, "image"))
        if image is None:
            self.image.write_bytes(os.urandom(size))
        ours, theirs = socket.socketpair()
        if sndbuf:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, sndbuf)
        self.sock = ours
        self.log = open(os.path.join(self.dir.name, "log"), "w+b")
        self.process = subprocess.Popen(
            [os.environ["DEVBROKER_USB"], "--disk", str(self.image), f"--stream-fd={theirs.fileno()}", *options],
            pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        theirs.close()

    def inner_pid(self):
        """The jailed process: the only child of the one that was started."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and self.process.poll() is None:
            text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
            if text:
                return int(text[0])
            time.sleep(0.01)
        raise PeerError("the worker has no inner process")

    def status(self, key):
        for line in Path(f"/proc/{self.inner_pid()}/status").read_text().splitlines():
            if line.startswith(key + ":"):
                return line.split()[1]
        return None

    def peak_kib(self):
        return int(self.status("VmHWM"))

    def wait(self, timeout=10):
        """Its exit code."""
        return self.process.wait(timeout)

    def said(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def close(self):
        self.sock.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise PeerError("the worker did not end after the stream was closed")
        finally:
            self.log.close()
            self.dir.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()
