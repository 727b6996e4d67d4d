# SPDX-License-Identifier: MIT
"""Small real guests: QEMU, Debian's kernel, a shell on a virtio console, two QMP sockets.

Boots once per configuration and takes a snapshot; later guests start from it in a fraction of a second. KVM is used only
where a guest really boots with it: /dev/kvm may be there and yet never get a guest off the ground (nested hosts).
"""
import base64
import ctypes
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

QEMU = "qemu-system-x86_64"
PR_SET_PDEATHSIG = 1
# Options of a guest whose broker runs on another machine; not part of a snapshot.
TCP_QMP = ["-qmp", "tcp:127.0.0.1:0,server=on,wait=off"]
_libc = ctypes.CDLL(None, use_errno=True)


class LabError(Exception):
    pass


def wait(what, test, timeout=10):
    """Returns what test returns as soon as it is true."""
    deadline = time.monotonic() + timeout
    while True:
        value = test()
        if value:
            return value
        if time.monotonic() > deadline:
            raise LabError(f"not within {timeout} s: {what}")
        time.sleep(0.05)


def die_with_parent():
    """For a child between fork and exec: an orphan of a failed test would write into the next one."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Qmp:
    """A QMP client with deadlines."""

    def __init__(self, path, timeout=10):
        self.sock = socket.socket(socket.AF_UNIX)
        deadline = time.monotonic() + timeout
        while True:
            try:
                self.sock.connect(str(path))
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise LabError(f"nobody answers on {path}")
                time.sleep(0.02)
        self.buffer = b""
        self.events = []
        self._line(timeout)
        self.call("qmp_capabilities")

    def _line(self, timeout):
        deadline = time.monotonic() + timeout
        while b"\n" not in self.buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.sock], [], [], left)[0]:
                raise LabError("QMP: no answer in time")
            data = self.sock.recv(65536)
            if not data:
                raise LabError("QMP: closed")
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        return json.loads(line)

    def call(self, command, _timeout=20, **arguments):
        message = {"execute": command}
        if arguments:
            message["arguments"] = {k.replace("_", "-"): v for k, v in arguments.items()}
        self.sock.sendall(json.dumps(message).encode() + b"\n")
        while True:
            reply = self._line(_timeout)
            if "event" in reply:
                self.events.append(reply)
            elif "QMP" in reply:
                pass  # rarely, QEMU greets twice while it starts
            elif "error" in reply:
                raise LabError(f"QMP {command}: {reply['error']['desc']}")
            else:
                return reply["return"]

    def wait_event(self, name, timeout=10):
        deadline = time.monotonic() + timeout
        while True:
            for e in self.events:
                if e["event"] == name:
                    self.events.remove(e)
                    return e
            left = deadline - time.monotonic()
            if left <= 0:
                raise LabError(f"QMP: no {name} in time")
            reply = self._line(left)
            if "event" in reply:
                self.events.append(reply)

    def close(self):
        self.sock.close()


def accelerator(images):
    """"kvm" if a guest really boots with it here, else "tcg"; found out once per build folder."""
    cached = images.cache / "accelerator"
    if cached.exists():
        return cached.read_text()
    result = "tcg"
    if os.access("/dev/kvm", os.R_OK | os.W_OK):
        images.say("lab: trying whether KVM works (15 s at most)")
        work = images.cache / "kvm-probe"
        shutil.rmtree(work, ignore_errors=True)
        guest = Guest(images, work, accel="kvm")
        try:
            guest.boot(timeout=15)
            result = "kvm"
        except LabError:
            pass
        finally:
            guest.kill()
            shutil.rmtree(work, ignore_errors=True)
    cached.write_text(result)
    return result


class Guest:
    """One VM. Its USB controller is xhci.0; the broker's QMP socket is self.qmp_path."""

    def __init__(self, images, work, name="guest", accel=None, paused=False, extra=()):
        self.images = images
        self.work = Path(work)
        self.name = name
        self.accel = accel or accelerator(images)
        self.paused = paused
        self.extra = list(extra)
        self.env = None  # as ours
        self.process = None
        self.console = None
        self.qmp = None
        self.log_at = 0
        self.work.mkdir(parents=True, exist_ok=True)
        self.qmp_path = self.work / "broker.qmp"
        self.serial = self.work / "serial.log"

    MACHINE = "q35"
    MEMORY = "256"
    CMDLINE = "usb_storage.delay_use=0"
    PORTS = 8

    def argv(self):
        cpu = "host" if self.accel == "kvm" else "max"
        return [QEMU, "-M", self.MACHINE, "-accel", self.accel, "-cpu", cpu, "-m", self.MEMORY, "-smp", "1", "-nodefaults",
                "-no-user-config", "-display", "none", "-kernel", str(self.images.vmlinux), "-initrd",
                str(self.images.initrd), "-append",
                f"console=ttyS0 quiet loglevel=7 nokaslr mitigations=off panic=-1 {self.CMDLINE}",
                "-serial", f"file:{self.serial}",
                "-device", f"qemu-xhci,id=xhci,p2={self.PORTS},p3={self.PORTS}",
                "-device", "virtio-serial-pci", "-chardev",
                f"socket,path={self.work}/console,id=console,server=on,wait=off",
                "-device", "virtconsole,chardev=console",
                "-qmp", f"unix:{self.work}/lab.qmp,server=on,wait=off",
                "-qmp", f"unix:{self.qmp_path},server=on,wait=off"]

    def _spawn(self, *more):
        for name in ("console", "lab.qmp", "broker.qmp", "serial.log"):
            (self.work / name).unlink(missing_ok=True)
        self.log_at = 0
        log = open(self.work / "qemu.log", "ab")
        self.process = subprocess.Popen(self.argv() + list(more) + self.extra, stdin=subprocess.DEVNULL, stdout=log,
                                        stderr=log, env=self.env, preexec_fn=die_with_parent)
        log.close()

    def _connect(self, timeout):
        self.qmp = Qmp(self.work / "lab.qmp", timeout)
        self.console = socket.socket(socket.AF_UNIX)
        self.console.connect(str(self.work / "console"))

    def _wait_ready(self, timeout):
        deadline = time.monotonic() + timeout
        while "lab: ready" not in self.dmesg():
            if self.process.poll() is not None:
                raise LabError(f"{self.name}: QEMU ended: " + (self.work / "qemu.log").read_text()[-500:])
            if time.monotonic() > deadline:
                raise LabError(f"{self.name}: did not boot within {timeout} s")
            time.sleep(0.05)

    def boot(self, timeout=120):
        """From power-on to a shell."""
        self._spawn()
        try:
            self._connect(timeout)
            self._wait_ready(timeout)
            self.run("true", timeout=max(10, timeout / 2))
        except (LabError, OSError) as e:
            self.kill()
            raise LabError(str(e))

    def start(self):
        """From a snapshot, which is made by booting the first time. Exactly as boot() otherwise."""
        key = hashlib_of(self.argv(), self.images.stamp, self.accel)
        snapshot = self.images.cache / f"snapshot-{key}"
        if not snapshot.exists():
            self.images.say(f"lab: booting a {self.images.NAME} once, for a snapshot ({self.accel})")
            maker = type(self)(self.images, self.images.cache / f"snapshot-{key}.work", "snapshot", accel=self.accel)
            maker.boot()
            maker.qmp.call("stop")
            tmp = snapshot.with_suffix(".tmp")
            maker.qmp.call("migrate", uri=f"exec:cat >'{tmp}'")
            for _ in range(600):
                status = maker.qmp.call("query-migrate").get("status")
                if status in ("completed", "failed"):
                    break
                time.sleep(0.05)
            maker.kill()
            shutil.rmtree(maker.work, ignore_errors=True)
            if status != "completed":
                raise LabError(f"the {self.images.NAME}'s snapshot failed")
            tmp.rename(snapshot)
        self._spawn("-incoming", f"exec:cat '{snapshot}'")
        self._connect(20)
        deadline = time.monotonic() + 30
        while self.qmp.call("query-status")["status"] == "inmigrate":
            if time.monotonic() > deadline:
                raise LabError(f"{self.name}: the snapshot does not load")
            time.sleep(0.02)
        if not self.paused:
            self.qmp.call("cont")
            self.run("true")
        return self

    def run(self, command, timeout=60, check=True):
        """Runs a shell command in the guest; returns its output (stdout and stderr). Raises unless it exits 0 (check)."""
        marker = base64.b16encode(os.urandom(6)).decode()
        # The marker is put together by the guest, so that an echo could not be taken for it.
        line = f"{{ {command}\n}} 2>&1; printf '\\n%s%s:%d\\n' {marker[:6]} {marker[6:]} $?\n"
        self.console.sendall(line.encode())
        out, deadline = b"", time.monotonic() + timeout
        end = f"\n{marker}:".encode()
        while end not in out or b"\n" not in out.split(end, 1)[1]:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.console], [], [], left)[0]:
                raise LabError(f"{self.name}: '{command}' did not end within {timeout} s; so far: {out[-300:]!r}")
            data = self.console.recv(65536)
            if not data:
                raise LabError(f"{self.name}: the console closed during '{command}'")
            out += data
        text, rest = out.split(end, 1)
        code = int(rest.split(b"\n", 1)[0])
        text = text.decode(errors="replace").replace("\r\n", "\n").strip("\n")
        if check and code != 0:
            raise LabError(f"{self.name}: '{command}' exited {code}: {text[-300:]}")
        return text if check else (code, text)

    def begin(self, command):
        """Starts a command in the guest's background; its output goes to /tmp/background."""
        self.run(f"( {command} ) >/tmp/background 2>&1 &")

    def dmesg(self):
        """What the guest's kernel has printed since the start (or since forget_dmesg)."""
        try:
            with open(self.serial, "rb") as f:
                f.seek(self.log_at)
                return f.read().decode(errors="replace")
        except FileNotFoundError:
            return ""

    def forget_dmesg(self):
        self.log_at = self.serial.stat().st_size if self.serial.exists() else 0

    def wait_dmesg(self, text, timeout=10):
        """Waits for a kernel message; returns how many seconds that took."""
        start = time.monotonic()
        while text not in self.dmesg():
            if time.monotonic() - start > timeout:
                raise LabError(f"{self.name}: the kernel did not say '{text}' within {timeout} s:\n{self.dmesg()[-600:]}")
            time.sleep(0.005)
        return time.monotonic() - start

    def wait_disk(self, serial=None, timeout=20):
        """Waits until a USB disk (of that serial number) has its size; returns its name ("sda")."""
        find = ("for d in /sys/block/sd*; do [ -e $d ] || continue; "
                "p=$(readlink -f $d); s=; while [ $p != / ]; do [ -e $p/serial ] && { s=$(cat $p/serial); break; }; "
                "p=${p%/*}; done; echo ${d##*/} $(cat $d/size) $s; done")
        deadline = time.monotonic() + timeout
        while True:
            for line in self.run(find).splitlines():
                words = line.split()
                if len(words) >= 2 and words[1].isdigit() and words[1] != "0" and (serial is None or serial in words[2:]):
                    return words[0]
            if time.monotonic() > deadline:
                raise LabError(f"{self.name}: no disk {serial or ''} within {timeout} s")
            time.sleep(0.05)

    def disks(self):
        return self.run("ls -d /sys/block/sd* 2>/dev/null | grep -c . || true")

    def find_usb(self, serial):
        """The sysfs name ("1-2.4") of the device with that serial number, or ids ("1209:0007"); None if there is none."""
        found = {}
        for line in self.run("cd /sys/bus/usb/devices; grep -H . */idVendor */idProduct */serial 2>/dev/null; "
                             "true").splitlines():
            path, _, value = line.partition(":" if line.count(":") == 1 else "/serial:")
            path, _, name = (path + "/serial" if "/" not in path else path).partition("/")
            found.setdefault(path, {})[name] = value
        for path, d in found.items():
            if serial in (d.get("serial"), f"{d.get('idVendor')}:{d.get('idProduct')}"):
                return path
        return None

    def usb_node(self, serial):
        """Its path in /dev/bus/usb."""
        name = self.wait_usb(serial)
        return self.run(f"cd /sys/bus/usb/devices/{name}; printf '/dev/bus/usb/%03d/%03d' $(cat busnum) $(cat devnum)")

    def wait_node(self, serial, pattern, timeout=10):
        """Waits for something below a device's interfaces in sysfs ("*/input/input*/event*"); returns its name."""
        deadline = time.monotonic() + timeout
        while True:
            name = self.find_usb(serial)
            found = self.run(f"ls -d /sys/bus/usb/devices/{name}:*/{pattern} 2>/dev/null; true").split()
            if found:
                return found[0].rsplit("/", 1)[1]
            if time.monotonic() > deadline:
                raise LabError(f"{self.name}: no {pattern} of {serial} within {timeout} s")
            time.sleep(0.05)

    def wait_no_usb(self, serial, timeout=10):
        start = time.monotonic()
        while self.find_usb(serial):
            if time.monotonic() - start > timeout:
                raise LabError(f"{self.name}: {serial} is still there after {timeout} s")
            time.sleep(0.05)

    def wait_usb(self, serial, timeout=10):
        deadline = time.monotonic() + timeout
        while True:
            name = self.find_usb(serial)
            if name:
                return name
            if time.monotonic() > deadline:
                raise LabError(f"{self.name}: no USB device {serial} within {timeout} s")
            time.sleep(0.05)

    def drivers(self, serial):
        """The driver of each interface of its present configuration, "" where there is none."""
        name = self.find_usb(serial)
        if not name:
            return None
        out = self.run(f"cd /sys/bus/usb/devices; echo {name}:*; ls -l {name}:*/driver 2>/dev/null; true").splitlines()
        links = {words[-3]: words[-1].rsplit("/", 1)[1] for words in map(str.split, out[1:]) if "->" in words}
        return [links.get(f"{interface}/driver", "") for interface in out[0].split()]

    def wait_drivers(self, serial, wanted, timeout=10):
        """Waits for exactly these drivers; returns the seconds that took."""
        start = time.monotonic()
        while True:
            found = self.drivers(serial)
            if found == wanted:
                return time.monotonic() - start
            if time.monotonic() - start > timeout:
                raise LabError(f"{self.name}: drivers of {serial} are {found}, not {wanted}, after {timeout} s")
            time.sleep(0.05)

    def chardevs(self):
        return sorted(c["label"] for c in self.qmp.call("query-chardev"))

    def tcp_qmp(self):
        """The port on loopback of a QMP server for a broker on another machine (see extra=TCP_QMP)."""
        for c in self.qmp.call("query-chardev"):
            if "tcp:127.0.0.1:" in c["filename"] and c["label"].startswith("compat_monitor"):
                return int(c["filename"].split("tcp:127.0.0.1:")[1].split(",")[0])
        raise LabError(f"{self.name}: it has no QMP over TCP")

    def listen_usbredir(self, ident):
        """Plugs a usb-redir device whose other end may connect to the port on loopback that is returned."""
        data = {"addr": {"type": "inet", "data": {"host": "127.0.0.1", "port": "0", "ipv4": True}}, "server": True,
                "wait": False, "nodelay": True}
        self.qmp.call("chardev-add", id=f"{ident}-c", backend={"type": "socket", "data": data})
        self.qmp.call("device_add", driver="usb-redir", id=ident, chardev=f"{ident}-c", bus="xhci.0")
        filename = next(c["filename"] for c in self.qmp.call("query-chardev") if c["label"] == f"{ident}-c")
        return int(filename.split("tcp:127.0.0.1:")[1].split(",")[0])

    def objects(self):
        """Names of devices that the broker plugged into it."""
        return sorted(o["name"] for o in self.qmp.call("qom-list", path="/machine/peripheral")
                      if o["name"].startswith("devbroker"))

    def attached(self):
        """Names of those among them that are on their bus."""
        found = []
        for name in self.objects():
            try:
                if self.qmp.call("qom-get", path=f"/machine/peripheral/{name}", property="attached"):
                    found.append(name)
            except LabError:
                pass  # gone just now
        return found

    def fds(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def kill(self):
        if self.qmp:
            self.qmp.close()
        if self.console:
            self.console.close()
        self.qmp = self.console = None
        if self.process:
            self.process.kill()
            self.process.wait()
        self.process = None


def hashlib_of(*parts):
    import hashlib
    # Paths of the work folder differ between guests that are the same otherwise.
    text = json.dumps([str(p) for p in parts[1:]]) + " ".join(a for a in parts[0] if "/" not in a)
    version = subprocess.run([QEMU, "--version"], stdout=subprocess.PIPE, check=True).stdout
    return hashlib.sha256(text.encode() + version).hexdigest()[:16]
