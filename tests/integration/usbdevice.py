# SPDX-License-Identifier: MIT
"""devbroker-usb over the stub libusb (tests/benches/stub.h), by hand and as devbrokerd starts it, and its guest.

The sandbox is closed as far as LD_PRELOAD reaches: seccomp, landlock and privileges; the namespaces are proven with the
virtual stick."""
import ctypes
import os
import socket
import stat
import struct
import subprocess
import tempfile
import time

from lent import CONFIGURED, UNPLUGGED, Lent
from usbredir import *

STUB = os.environ["STUB_LIBUSB_SO"]
BULK_IN, BULK_OUT, INTERRUPT_IN, INTERRUPT_OUT = 0x81, 0x01, 0x82, 0x02
COUNTERS = ("transfers", "cancelled", "resets", "clear_halts", "forbidden", "iso_packets", "iso_gaps", "iso_spoilt",
            "bulk_out", "bulk_hash")
EXIT_FAILED, EXIT_DEVICE_LOST, EXIT_DEVICE_BUSY = 1, 4, 6
PIDFD_GETFD = 438
REACHED = "--sandbox=reduced:namespaces"


class Device(Worker):
    """devbroker-usb with the stub's device, whose options are words as in tests/benches/stub.h."""

    def __init__(self, stub="", options=(REACHED,), tcp=False):
        self.dir = tempfile.TemporaryDirectory(prefix="db-device-")
        self.log = open(os.path.join(self.dir.name, "log"), "w+b")
        args, fds = [], []
        if tcp:
            listener = socket.create_server(("127.0.0.1", 0))
            args.append("--connect=tcp:127.0.0.1:%d" % listener.getsockname()[1])
        else:
            self.sock, theirs = socket.socketpair()
            args.append(f"--stream-fd={theirs.fileno()}")
            fds.append(theirs.fileno())
        self.process = subprocess.Popen(
            [os.environ["DEVBROKER_USB"], "--device=/dev/null", *args, *options], pass_fds=fds,
            env=dict(os.environ, LD_PRELOAD=STUB, STUB_LIBUSB=stub), stdin=subprocess.DEVNULL, stdout=self.log,
            stderr=self.log)
        if tcp:
            listener.settimeout(10)
            self.sock, _ = listener.accept()
            listener.close()
        else:
            theirs.close()

    def inner_pid(self):
        return self.process.pid

    def stolen_stream(self):
        """A duplicate of its TCP socket."""
        pidfd = os.pidfd_open(self.process.pid)
        for fd in os.listdir(f"/proc/{self.process.pid}/fd"):
            ours = ctypes.CDLL(None, use_errno=True).syscall(PIDFD_GETFD, pidfd, int(fd), 0)
            if ours >= 0 and stat.S_ISSOCK(os.fstat(ours).st_mode):
                os.close(pidfd)
                return socket.socket(fileno=ours)
            os.close(ours)
        raise PeerError("it has no stream")

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if exc[0]:
            print(self.said())
        self.close()


class LentDevice(Lent):
    """The same with us as its broker."""

    def __init__(self, stub="", options=(), heartbeat=0.1, listen=False):
        self.dir = tempfile.TemporaryDirectory(prefix="db-device-")
        self.sock, stream = socket.socketpair()
        self.control, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.log = open(os.path.join(self.dir.name, "log"), "w+b")
        device = os.open("/dev/null", os.O_RDWR)
        fds = [control.fileno(), stream.fileno(), device]
        if listen:
            listener = self.bind()
            fds.append(listener.fileno())
            options = [f"--listen-fd={fds[3]}", *options]
        self.begin = time.monotonic()
        self.process = subprocess.Popen(
            [os.environ["DEVBROKER_USB"], "--control-fd=%d" % fds[0], "--stream-fd=%d" % fds[1],
             "--device-fd=%d" % fds[2], "--name=usb:stub", REACHED, *options], pass_fds=fds,
            env=dict(os.environ, LD_PRELOAD=STUB, STUB_LIBUSB=stub), stdin=subprocess.DEVNULL, stdout=self.log,
            stderr=self.log)
        self.pid = self.process.pid
        for end in (control, stream, *([listener] if listen else [])):
            end.close()
        os.close(device)
        self.listen(heartbeat)

    def wanted_configuration(self, timeout=10):
        """What the guest wants, as the worker says it; forgets it."""
        said = self.until(lambda: [m for m in self.messages if m[0] == "set-configuration"], timeout)
        with self.changed:
            self.messages.remove(said[0])
        assert said[0][2] == 0, said
        return said[0][1]

    def forget_silence(self):
        """devbrokerd pings from READY on; opening the device before may take its time."""
        self.counters()
        self.silence = 0

    def configured(self, error=0):
        self.send_control(struct.pack("<IIiI", CONFIGURED, 16, error, 0))

    def unplugged(self):
        self.send_control(struct.pack("<II", UNPLUGGED, 8))


class Guest(Peer):
    def start(self):
        self.greet()
        assert self.configure(1)[0] == OK
        return self

    def counters(self):
        status, data = self.control(0xc0, 1, 0, 0, 40)
        assert status == OK and len(data) == 40, (status, data)
        return dict(zip(COUNTERS, struct.unpack("<10I", data)))

    def reset(self):
        self.send(RESET)
        self.round_trip()

    def set_alt(self, interface, alt):
        ident = self.new_id()
        self.send(SET_ALT, struct.pack("<BB", interface, alt), ident)
        got, body = self.expect(ALT_STATUS)
        assert got == ident
        return tuple(body)

    def start_bulk_in(self, length):
        ident = self.new_id()
        self.send(BULK, self.bulk_body(BULK_IN, length), ident)
        return ident
