#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Records what a program of Mesa sends over vtest: vtest_record.py LISTEN UPSTREAM OUT. It stands between one client and a
server, and has them agree on version 0, in which all data travels on the socket. OUT gets the client's bytes as they were sent,
with that version in them."""
import socket
import struct
import sys
import threading
from pathlib import Path

TRANSFER_PUT, CREATE_RENDERER, VERSION = 5, 8, 11
PUT_BODY = 44


def receive(sock, n):
    out = bytearray()
    while len(out) < n:
        got = sock.recv(min(1 << 20, n - len(out)))
        if not got:
            raise EOFError
        out += got
    return bytes(out)


def forward(source, target):
    try:
        while data := source.recv(1 << 20):
            target.sendall(data)
    except OSError:
        pass


def record(client, server, out):
    """The number of requests that came until the client went."""
    threading.Thread(target=forward, args=(server, client), daemon=True).start()
    n = 0
    try:
        while True:
            header = receive(client, 8)
            length, number = struct.unpack("<II", header)
            if number == TRANSFER_PUT:
                body = receive(client, PUT_BODY)
                body += receive(client, struct.unpack("<11I", body)[10])
            else:
                body = receive(client, length if number == CREATE_RENDERER else length * 4)
            if number == VERSION:
                body = bytes(4)
            out.write(header + body)
            server.sendall(header + body)
            n += 1
    except (EOFError, OSError):
        return n


def serve(listen, upstream, path):
    """Records one client, which may come later."""
    Path(listen).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(listen))
        listener.listen(1)
        client = listener.accept()[0]
    with client, socket.socket(socket.AF_UNIX) as server, open(path, "wb") as out:
        server.connect(str(upstream))
        return record(client, server, out)


if __name__ == "__main__":
    print(serve(*sys.argv[1:4]), "requests")
