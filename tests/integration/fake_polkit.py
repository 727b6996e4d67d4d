#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""org.freedesktop.PolicyKit1 with one answer for all questions: fake_polkit.py SOCKET-ADDRESS yes|no|challenge|never LOG."""
import struct
import sys

from broker_case import RawBus

ANSWERS = {"yes": (1, 0), "no": (0, 0), "challenge": (0, 1)}


def read_string(body, at):
    at += -at % 4
    n = struct.unpack_from("<I", body, at)[0]
    return body[at + 4:at + 4 + n].decode(), at + 4 + n + 1


def main():
    address, answer, log = sys.argv[1:]
    bus = RawBus(address.removeprefix("unix:path="))
    bus.sock.settimeout(None)
    dbus = ("/org/freedesktop/DBus", "org.freedesktop.DBus")
    bus.call(*dbus, "Hello", destination="org.freedesktop.DBus")
    bus.request_name("org.freedesktop.PolicyKit1")
    print("ready", flush=True)
    while True:
        kind, fields, serial, body = bus.receive_all()
        member = fields.get(3)
        if kind != 1:
            continue
        with open(log, "a") as f:
            if member == "CancelCheckAuthorization":
                f.write(f"cancel {read_string(body, 0)[0]}\n")
                continue
            # (sa{sv}) with one entry, name: a string; then action, an empty a{ss}, flags, cancellation id
            subject, at = read_string(body, 0)
            assert subject == "system-bus-name", subject
            at += -at % 4 + 4
            at += -at % 8
            key, at = read_string(body, at)
            at += 3  # signature "s"
            name, at = read_string(body, at)
            action, at = read_string(body, at)
            at += -at % 4 + 4
            at += -at % 8
            flags = struct.unpack_from("<I", body, at + -at % 4)[0]
            f.write(f"{action} {name} {flags}\n")
        if answer in ANSWERS:
            bus.reply(fields[7], serial, "(bba{ss})", struct.pack("<III", *ANSWERS[answer], 0) + bytes(4))


if __name__ == "__main__":
    main()
