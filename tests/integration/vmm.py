#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A VMM without a VM: a QMP server in a process of its own that plugs usb-redir devices into a guest of Python.

Run as a program it serves QMP at a path; class Vmm starts, asks and ends it. Its devices are driven as a guest drives
them (usbredir.Stick). Options make it a bad VMM, or one whose guest is not as usual.
"""
import argparse
import json
import os
import select
import selectors
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import usbredir

GREETING = {"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""},
                    "capabilities": ["oob"]}}


def say(line):
    """One write: threads say things too."""
    os.write(1, (json.dumps(line) + "\n").encode())


class Refused(Exception):
    def __init__(self, text, kind="GenericError"):
        super().__init__(text)
        self.kind = kind


def ended(sock):
    p = select.poll()
    p.register(sock, 0)
    return bool(p.poll(0))


class Server:
    """What a VMM knows: fds by name, chardevs, devices."""

    def __init__(self, options):
        self.options = options
        self.paused = options.paused
        self.fds = {}
        self.chardevs = {}
        self.devices = {}
        self.guests = {}
        self.lock = threading.Lock()

    # The guest's side of one device, in a thread.
    def guest(self, ident, sock):
        try:
            stick = usbredir.Stick(sock)
            if self.options.guest == "silent":
                return
            if self.options.guest == "bad":
                sock.sendall(b"\xff" * 4096)
                return
            if self.options.guest == "no-driver":
                stick.greet()
                return
            stick.start().ready()
            if self.options.guest == "leaves":
                sock.shutdown(socket.SHUT_RDWR)
                return
            with self.lock:
                self.guests[ident] = stick
            say({"configured": ident})
        except Exception as e:
            say({"guest-error": repr(e)})

    def resume(self):
        self.paused = False
        for ident, sock in list(self.devices.items()):
            threading.Thread(target=self.guest, args=(ident, sock), daemon=True).start()

    def execute(self, name, arguments, fds):
        if name == "query-status":
            return {"status": "paused" if self.paused else "running", "running": not self.paused}
        if name == "getfd":
            self.fds[arguments["fdname"]] = fds.pop()
        elif name == "closefd":
            os.close(self.fds.pop(arguments["fdname"]))
        elif name == "chardev-add":
            fd = self.fds.pop(arguments["backend"]["data"]["addr"]["data"]["str"])
            self.chardevs[arguments["id"]] = socket.socket(fileno=fd)
        elif name == "chardev-remove":
            if arguments["id"] not in self.chardevs:
                raise Refused(f"Chardev '{arguments['id']}' not found")
            self.chardevs.pop(arguments["id"]).close()
            if self.options.refuse:
                # The worker sees the end of its stream well before the broker hears of the refusal.
                time.sleep(0.3)
        elif name == "device_add":
            if self.options.refuse:
                raise Refused(self.options.refuse)
            sock = self.chardevs[arguments["chardev"]]
            sock.setblocking(True)
            self.devices[arguments["id"]] = sock
            if not self.paused:
                threading.Thread(target=self.guest, args=(arguments["id"], sock), daemon=True).start()
        elif name == "device_del":
            if arguments["id"] not in self.devices:
                raise Refused(f"Device '{arguments['id']}' not found", "DeviceNotFound")
            sock = self.devices.pop(arguments["id"])
            self.chardevs.pop(arguments["id"] + "-c", None)
            with self.lock:
                self.guests.pop(arguments["id"], None)
            # Closed when its guest has read what is left in it.
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        elif name == "query-chardev" and not self.options.close_on:
            return [{"label": i, "frontend-open": True, "filename": "disconnected:unix:" if ended(s) else "unix:"}
                    for i, s in self.chardevs.items()]
        elif name != "qmp_capabilities":
            raise Refused(f"The command {name} has not been found")
        return {}

    def answer(self, line, fds):
        request = json.loads(line)
        name, arguments = request["execute"], request.get("arguments", {})
        if os.environ.get("VMM_TRACE"):
            say({"qmp": name})
        try:
            replies = [{"return": self.execute(name, arguments, fds)}]
        except Refused as e:
            return [{"error": {"class": e.kind, "desc": str(e)}}]
        if name == "device_del":
            replies.append({"event": "DEVICE_DELETED", "data": {"device": arguments["id"], "path": "/machine/x"},
                            "timestamp": {"seconds": 0, "microseconds": 0}})
        return replies

    def serve(self, conn):
        if self.options.no_greeting:
            while conn.recv(4096):
                pass
            return
        conn.sendall(json.dumps(GREETING).encode() + b"\r\n")
        buffer, fds = b"", []
        while True:
            data, more, _, _ = socket.recv_fds(conn, 65536, 8)
            fds += more
            if not data:
                return
            buffer += data
            while b"\n" in buffer:
                line, buffer = buffer.split(b"\n", 1)
                bad = json.loads(line)["execute"]
                if bad == self.options.close_on:
                    return
                if bad == self.options.hang_on:
                    say({"hangs": bad})
                    while conn.recv(4096):
                        pass
                    return
                for reply in self.answer(line, fds):
                    conn.sendall(json.dumps(reply).encode() + b"\r\n")

    def accept(self, path):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(16)
        say({"listening": path})
        while True:
            conn, _ = listener.accept()
            try:
                self.serve(conn)
            except (OSError, ValueError, KeyError) as e:
                say({"qmp-error": repr(e)})
            conn.close()

    def only_stick(self):
        """The one that its guest has configured; it may be about to."""
        deadline = time.monotonic() + 10
        while True:
            with self.lock:
                stick = next(iter(self.guests.values()), None)
            if stick or time.monotonic() > deadline:
                return stick
            time.sleep(0.01)

    # What a test asks for, a line each on standard input; a line of JSON answers.
    def command(self, words):
        if words[0] == "devices":
            return {"devices": sorted(self.devices), "chardevs": sorted(self.chardevs), "fds": sorted(self.fds)}
        if words[0] == "eject":
            return {"result": self.only_stick().scsi_out(bytes([0x1b, 0, 0, 0, 2, 0]))}
        if words[0] == "read":
            data = self.only_stick().read(int(words[1]), int(words[2]))
            return {"data": None if data is None else data.hex()}
        if words[0] == "write":
            return {"result": self.only_stick().write(int(words[1]), bytes.fromhex(words[2]))}
        if words[0] == "unplug":
            ident, sock = next(iter(self.devices.items()))
            self.execute("device_del", {"id": ident}, [])
            return {"unplugged": ident}
        if words[0] == "resume":
            self.resume()
            return {}
        if words[0] == "wait-disconnect":
            stick = self.only_stick()
            say({"waits": True})
            start = time.monotonic()
            while True:
                packet = stick.receive(10)
                if packet is None or packet[0] == usbredir.DEVICE_DISCONNECT:
                    return {"told": packet is not None, "after": time.monotonic() - start}
        raise ValueError(words)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("path")
    p.add_argument("--paused", action="store_true")
    p.add_argument("--no-greeting", action="store_true")
    p.add_argument("--refuse")
    p.add_argument("--close-on", metavar="COMMAND", help="close the QMP connection instead of answering it")
    p.add_argument("--hang-on", metavar="COMMAND", help="say nothing any more once it comes")
    p.add_argument("--guest", choices=["good", "silent", "bad", "no-driver", "leaves"], default="good")
    options = p.parse_args()
    server = Server(options)
    threading.Thread(target=server.accept, args=(options.path,), daemon=True).start()
    for line in sys.stdin:
        try:
            answer = server.command(line.split())
        except Exception as e:
            answer = {"failed": repr(e)}
        say({"answer": answer})


class Vmm:
    """The process, from a test's side."""

    def __init__(self, path, *options):
        self.path = str(path)
        Path(self.path).unlink(missing_ok=True)
        # Unbuffered: select must see every line that is still to be read.
        self.process = subprocess.Popen([sys.executable, __file__, self.path, *options], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, bufsize=0)
        self.said = []
        self.wait("listening")

    def read(self, timeout=15):
        with selectors.DefaultSelector() as s:
            s.register(self.process.stdout, selectors.EVENT_READ)
            if not s.select(timeout):
                raise TimeoutError(f"the VMM says nothing; before: {self.said}")
        line = self.process.stdout.readline()
        if not line:
            raise EOFError(f"the VMM ended; before: {self.said}")
        self.said.append(json.loads(line))
        return self.said[-1]

    def wait(self, key):
        """Reads on to the next line with that key."""
        while True:
            line = self.read()
            if key in line:
                return line[key]

    def ask(self, *words):
        self.process.stdin.write((" ".join(map(str, words)) + "\n").encode())
        self.process.stdin.flush()
        return self.wait("answer")

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


if __name__ == "__main__":
    main()
