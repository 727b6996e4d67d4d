# SPDX-License-Identifier: MIT
"""The worker as devbrokerd starts it: namespaces, a uid of its own, the control socket of protocol/worker.h."""
import os
import select
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from usbredir import PeerError, Worker

READY, STATE, PONG, DONE, SET_CONFIGURATION = 1, 2, 3, 4, 6
HELD = 8
PING, DETACH, CONFIGURED, UNPLUGGED, KEEP, ADOPT = 16, 17, 18, 19, 20, 21
STATES = ("connecting", "attached", "configured", "flushing", "ejected")
REASONS = ("detached", "peer-closed", "peer-violation", "device-lost", "broker-gone", "internal", "device-busy")
COUNTERS = ("seq", "transfers", "bytes_in", "bytes_out", "refused", "errors", "in_flight", "in_flight_bytes",
            "in_flight_peak", "state")
SIZES = {READY: 16, STATE: 24, PONG: 312, DONE: 80, SET_CONFIGURATION: 16}
VERSION = 6
SANDBOX_ALL = 0x3f
EXIT_PEER_BAD, EXIT_DEVICE_LOST, EXIT_BROKER_GONE = 3, 4, 5
HOST_ID = 987650 if os.geteuid() == 0 else 0
SANITIZED = b"__asan_init" in open(os.environ["DEVBROKER_USB"], "rb").read()
LIMIT_KIB = 64 << 10
SO_SNDBUFFORCE = 32
# devbrokerd ends a worker that is silent for 2 s.
SILENCE_MAX = 2


class Lent(Worker):
    """A worker with us as its broker: a thread reads what it says and pings it ten times a second."""

    def __init__(self, size=1 << 20, options=(), image=None, sndbuf=None, heartbeat=0.1, listen=False):
        self.dir = tempfile.TemporaryDirectory(prefix="db-lent-")
        self.image = Path(image or os.path.join(self.dir.name, "image"))
        if image is None:
            self.image.write_bytes(os.urandom(size))
        self.sock, stream = socket.socketpair()
        self.control, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if sndbuf:
            # As root beyond net.core.wmem_max.
            stream.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE if os.geteuid() == 0 else socket.SO_SNDBUF, sndbuf)
        self.log = open(os.path.join(self.dir.name, "log"), "w+b")
        read_only = "--read-only" in options
        disk = os.open(self.image, os.O_RDONLY if read_only else os.O_RDWR)
        fds = [control.fileno(), stream.fileno(), disk]
        if listen:
            listener = self.bind()
            fds.append(listener.fileno())
            options = ["--listen-fd=6", *options]
        self.begin = time.monotonic()
        self.process = subprocess.Popen(
            [os.environ["LEND"], ",".join(map(str, fds)), str(HOST_ID), os.environ["DEVBROKER_USB"], "--control-fd=3",
             "--stream-fd=4", "--disk-fd=5", "--speed=super", "--serial=ABCDEF", "--product=stick", "--max-transfers=64",
             "--max-bytes=8388608", "--sandbox=full", "--log-level=info", "--name=disk:stick", *options],
            pass_fds=fds, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.log)
        for end in (control, stream, *([listener] if listen else [])):
            end.close()
        os.close(disk)
        line = self.process.stdout.readline()
        self.process.stdout.close()
        if not line:
            raise PeerError(f"the worker did not start: {self.said()}")
        self.pid = int(line)
        self.listen(heartbeat)

    def listen(self, heartbeat):
        self.changed = threading.Condition()
        self.messages = []
        self.pong = None
        self.asked = {}
        self.silence = 0
        self.next_ping = 1
        self.ended = False
        self.heartbeat = heartbeat
        self.reader = threading.Thread(target=self.read_control, daemon=True)
        if heartbeat:
            self.reader.start()

    def inner_pid(self):
        return self.pid

    def send_control(self, data):
        self.control.send(data)

    def ping(self):
        with self.changed:
            seq = self.next_ping
            self.next_ping += 1
            self.asked[seq] = time.monotonic()
        try:
            self.control.send(struct.pack("<IIQ", PING, 16, seq), socket.MSG_DONTWAIT)
        except OSError:
            with self.changed:
                self.asked.pop(seq, None)
        return seq

    def read_control(self):
        due = 0
        while not self.ended:
            now = time.monotonic()
            if now >= due:
                self.ping()
                due = now + self.heartbeat
            if select.select([self.control], [], [], max(0, due - now))[0]:
                self.receive_control()

    def receive_control(self):
        try:
            data = self.control.recv(4096)
        except ConnectionResetError:
            # It ended with a ping unread; that is said once, before its last words.
            data = self.control.recv(4096)
        except OSError:
            data = b""
        with self.changed:
            if data:
                self.take(data)
            else:
                self.ended = True
            self.changed.notify_all()

    def take(self, data):
        kind, size = struct.unpack_from("<II", data)
        if SIZES.get(kind) != len(data) or size != len(data):
            self.messages.append(("malformed", data))
        elif kind == PONG:
            self.pong = dict(zip(COUNTERS, struct.unpack_from("<6Q4I", data, 8)))
            now = time.monotonic()
            # The newest answers for all before it: a worker keeps one PONG at most.
            for seq in [s for s in self.asked if s <= self.pong["seq"]]:
                self.silence = max(self.silence, now - self.asked.pop(seq))
        elif kind == READY:
            self.messages.append(("ready", *struct.unpack_from("<II", data, 8)))
        elif kind == STATE:
            state, pad, connect_ns = struct.unpack_from("<IIQ", data, 8)
            self.messages.append(("state", STATES[state], connect_ns) if pad == 0 else ("malformed", data))
        elif kind == SET_CONFIGURATION:
            self.messages.append(("set-configuration", *struct.unpack_from("<II", data, 8)))
        else:
            reason, error, detail = struct.unpack_from("<Ii64s", data, 8)
            self.messages.append(("done", REASONS[reason], error, detail.split(b"\0")[0].decode("ascii")))

    def until(self, found, timeout=10):
        """What found() returns once it is true; it sees a consistent state."""
        with self.changed:
            if not self.changed.wait_for(lambda: found() or self.ended, timeout) or not found():
                raise PeerError(f"it said {self.messages}, pong {self.pong}, ended {self.ended}; {self.said()}")
            return found()

    def states(self):
        with self.changed:
            return [m[1] for m in self.messages if m[0] == "state"]

    def wait_state(self, name, timeout=10):
        self.until(lambda: any(m[:2] == ("state", name) for m in self.messages), timeout)

    def done(self, timeout=10):
        """(reason, errno, detail), and then its process must end; its exit code is .code."""
        said = self.until(lambda: [m for m in self.messages if m[0] == "done"], timeout)
        self.code = self.wait(timeout)
        self.reader.join(timeout)
        assert len(said) == 1 and self.messages[-1] == said[0], self.messages
        return said[0][1:]

    def counters(self, timeout=10):
        """As they are now, not when the last ping was answered."""
        seq = self.ping()
        self.until(lambda: self.pong and self.pong["seq"] >= seq, timeout)
        return self.pong

    def wait_counter(self, name, value, timeout=10):
        """The control socket is served before the stream: what was sent there may still be unread."""
        self.until(lambda: self.pong and self.pong[name] == value, timeout)

    def detach(self):
        self.send_control(struct.pack("<II", DETACH, 8))

    def hang_up(self):
        """The broker dies: the control socket closes."""
        self.ended = True
        self.control.shutdown(socket.SHUT_RDWR)

    def bind(self):
        """As devbrokerd: bound where the next one finds it; the worker listens."""
        self.path = os.path.join(self.dir.name, "next.sock")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(self.path)
        return listener

    def keep(self, cookie, seconds=30):
        self.send_control(struct.pack("<II16sQ", KEEP, 32, cookie, int(seconds * 1e6)))

    def connect(self):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        s.settimeout(10)
        s.connect(self.path)
        return s

    def adopt(self, cookie):
        """As the next devbrokerd: its broker is us again. What it said of itself, and the fd of its image."""
        s = self.connect()
        s.send(struct.pack("<II16s", ADOPT, 24, cookie))
        data, fds, _, _ = socket.recv_fds(s, 4096, 4)
        kind, size, version, stages, state, pad, connect_ns, its = struct.unpack("<IIIIIIQ16s", data)
        assert (kind, size, len(fds) <= 1, pad, its) == (HELD, 48, True, 0, cookie), (data, fds)
        self.reader.join(10)
        self.control.close()
        self.control = s
        self.listen(self.heartbeat)
        return {"version": version, "stages": stages, "state": STATES[state], "connect_ns": connect_ns, "fd": fds[0] if fds else None}

    def close(self):
        try:
            self.sock.close()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                os.kill(self.pid, signal.SIGKILL)
                self.process.wait()
                raise PeerError("the worker did not end after the stream was closed")
        finally:
            self.ended = True
            if self.reader.is_alive():
                self.reader.join()
            self.control.close()
            self.log.close()
            self.dir.cleanup()
