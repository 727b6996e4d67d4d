# SPDX-License-Identifier: MIT
"""The screen that a VMM's user has: as much of a VNC client as it takes to see the pointer's image and to resize the window."""
import select
import socket
import struct
import time

from guest import LabError

RAW, DESKTOP_SIZE, ALPHA_CURSOR = 0, -308, -314
SET_ENCODINGS, UPDATE_REQUEST, SET_DESKTOP_SIZE = 2, 3, 251


class Vnc:
    """Connected to QEMU's -vnc unix:PATH. Asks for the pointer and for what changes; pixels are read and dropped."""

    def __init__(self, path, timeout=20):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(timeout)
        self.sock.connect(str(path))
        self.cursor = None  # (hot x, hot y, width, height, pixels as blue, green, red, alpha)
        self._take(12)
        self.sock.sendall(b"RFB 003.008\n")
        self._take(self._take(1)[0])
        self.sock.sendall(b"\1")
        if self._take(4) != bytes(4):
            raise LabError("VNC: refused")
        self.sock.sendall(b"\1")
        self.size = struct.unpack(">HH", self._take(4))
        self.pixel = self._take(16)[0] // 8
        self._take(struct.unpack(">I", self._take(4))[0])
        encodings = (RAW, DESKTOP_SIZE, ALPHA_CURSOR)
        self.sock.sendall(struct.pack(f">BxH{len(encodings)}i", SET_ENCODINGS, len(encodings), *encodings))
        self._ask()

    def _ask(self):
        # A corner is enough: the rest comes by rectangles of its own.
        self.sock.sendall(struct.pack(">BBHHHH", UPDATE_REQUEST, 1, 0, 0, 16, 16))

    def _take(self, size):
        data = b""
        while len(data) < size:
            more = self.sock.recv(size - len(data))
            if not more:
                raise LabError("VNC: closed")
            data += more
        return data

    def _rectangle(self):
        x, y, width, height, encoding = struct.unpack(">HHHHi", self._take(12))
        if encoding == RAW:
            self._take(width * height * self.pixel)
        elif encoding == DESKTOP_SIZE:
            self.size = (width, height)
            screens = self._take(4)[0]
            self._take(16 * screens)
        elif encoding == ALPHA_CURSOR:
            self._take(4)
            self.cursor = (x, y, width, height, self._take(width * height * 4))
        else:
            raise LabError(f"VNC: encoding {encoding}")

    def _message(self):
        kind = self._take(1)[0]
        if kind != 0:
            raise LabError(f"VNC: message {kind}")
        for _ in range(struct.unpack(">xH", self._take(3))[0]):
            self._rectangle()
        self._ask()

    def wait_cursor(self, wanted, timeout=15):
        """Waits for a pointer of that look: (hot x, hot y, pixels)."""
        deadline = time.monotonic() + timeout
        while not self.cursor or (*self.cursor[:2], self.cursor[4]) != wanted:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.sock], [], [], left)[0]:
                seen = self.cursor and (self.cursor[:4], self.cursor[4][:64].hex(" ", 4))
                raise LabError(f"VNC: no such pointer; the last one: {seen}")
            self._message()

    def resize(self, width, height):
        """Tells the VMM that the window has another size."""
        self.sock.sendall(struct.pack(">BxHHBxIHHHHI", SET_DESKTOP_SIZE, width, height, 1, 0, 0, 0, width, height, 0))

    def close(self):
        self.sock.close()
