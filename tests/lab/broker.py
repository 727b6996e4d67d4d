# SPDX-License-Identifier: MIT
"""devbrokerd and devbroker of a build folder, in a temporary directory, and what they leave behind."""
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import leftovers
from guest import LabError, die_with_parent


def full_log(device, vm, records=1024):
    """As many records as a broker keeps in memory: with this as its state's log it grows no more with what is done."""
    return "".join(f"{i}\t1795763440977162\t0\tend\t{device}\t{vm}\t\tuser-detach\tIt was detached on request.\n"
                   for i in range(1, records + 1))


class CliError(LabError):
    def __init__(self, code, error):
        super().__init__(f"exit {code}: {error}")
        self.code = code
        self.error = error


class Broker:
    def __init__(self, build, work, files=None, log_level="info"):
        self.build = Path(build)
        self.work = Path(work)
        self.config = self.work / "etc"
        self.run_dir = self.work / "run"
        self.log = self.work / "devbrokerd.log"
        self.process = None
        self.abandoned = False  # killed, so that its workers wait for the next one
        self.log_level = log_level
        for d in ("vms.d", "disks.d"):
            (self.config / d).mkdir(parents=True, exist_ok=True)
        for name, text in (files or {}).items():
            (self.config / name).write_text(text)
        # Configuration must not be writable by others, whatever the umask is.
        for p in [self.config, *self.config.rglob("*")]:
            p.chmod(0o755 if p.is_dir() else 0o644)

    def argv(self):
        return [str(self.build / "broker/devbrokerd"), "--config", str(self.config), "--run-dir", str(self.run_dir),
                "--state-dir", str(self.work / "state"),
                "--libexec", str(self.libexec()), "--log-level", self.log_level]

    def libexec(self):
        """The programs that the broker starts, in one folder as when installed."""
        folder = self.work / "libexec"
        folder.mkdir(exist_ok=True)
        for p in [*(self.build / "usb").glob("devbroker-*"), self.build / "gpu/devbroker-gpu"]:
            link = folder / p.name
            if p.is_file() and not link.is_symlink():
                link.symlink_to(p.resolve())
        return folder

    def start(self, timeout=20):
        """Waits for READY=1, as systemd does."""
        notify = self.work / "notify"
        notify.unlink(missing_ok=True)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sock.bind(str(notify))
        notify.chmod(0o777)
        sock.settimeout(timeout)
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.argv(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env={**os.environ, "NOTIFY_SOCKET": str(notify)},
                                            preexec_fn=die_with_parent)
        try:
            while b"READY=1" not in sock.recv(4096):
                pass
        except TimeoutError:
            raise LabError("devbrokerd was not ready in time: " + self.log_text()[-500:])
        finally:
            sock.close()
        return self

    def command(self, *args):
        return [str(self.build / "broker/devbroker"), "--run-dir", str(self.run_dir), *map(str, args)]

    def log_text(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def run_cli(self, args, timeout):
        """(exit code, stdout, stderr) of devbroker with args."""
        p = subprocess.run(self.command(*args), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                           timeout=timeout)
        return p.returncode, p.stdout, p.stderr

    def cli(self, *args, timeout=60):
        """Runs devbroker --json; returns what it printed. Raises CliError with its exit code and error."""
        code, out, err = self.run_cli([*args, "--json"], timeout)
        if code != 0:
            try:
                error = json.loads(err.strip().splitlines()[-1])
            except (ValueError, IndexError):
                error = {"message": err}
            raise CliError(code, error)
        return json.loads(out) if out.strip() else {}

    def device(self, name):
        return next(d for d in self.cli("list")["devices"] if d["name"] == name)

    def vm(self, name):
        return self.cli("vm", "show", name)["vm"]

    def wait_state(self, name, state, timeout=15):
        """Waits for a device's state; returns the seconds it took."""
        start = time.monotonic()
        while True:
            d = self.device(name)
            if d["state"] == state:
                return time.monotonic() - start
            if time.monotonic() - start > timeout:
                raise LabError(f"{name} is {d['state']} ({d['detail']}), not {state}, after {timeout} s; log:\n"
                               + self.log_text()[-800:])
            time.sleep(0.02)

    def wait_vm(self, name, state, timeout=15):
        deadline = time.monotonic() + timeout
        while True:
            vm = next(v for v in self.cli("vm", "list")["vms"] if v["name"] == name)
            if vm["state"] == state:
                return vm
            if time.monotonic() > deadline:
                raise LabError(f"vm {name} is {vm['state']} ({vm['detail']}), not {state}, after {timeout} s")
            time.sleep(0.05)

    def children(self):
        """pid → (name, state) of its direct children."""
        out = {}
        for p in Path("/proc").iterdir():
            if not p.name.isdigit():
                continue
            try:
                stat = (p / "stat").read_text()
            except OSError:
                continue
            name, rest = stat[stat.index("(") + 1:stat.rindex(")")], stat[stat.rindex(")") + 2:].split()
            if int(rest[1]) == self.process.pid:
                out[int(p.name)] = (name, rest[0])
        return out

    def fds(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def rss_kib(self, pid=None, what="VmRSS"):
        for line in Path(f"/proc/{pid or self.process.pid}/status").read_text().splitlines():
            if line.startswith(f"{what}:"):
                return int(line.split()[1])
        return 0

    def idle(self):
        """What must be the same before and after anything was lent. Each known disk has its image open."""
        disks = len([d for d in self.cli("disk", "list")["devices"] if d["size_bytes"]])
        return {"fds": self.fds() - disks, "children": sorted(n for n, _ in self.children().values())}

    def check_idle(self, before, vms=(), timeout=20):
        """Nothing is left behind: fds, processes, zombies, charges."""
        deadline = time.monotonic() + timeout
        while self.idle() != before:
            if time.monotonic() > deadline:
                raise LabError(f"left behind in the broker: {self.idle()}, before: {before}")
            time.sleep(0.05)
        for name in vms:
            used = {k: q["used"] for k, q in self.vm(name)["quota"].items()}
            if any(used.values()):
                raise LabError(f"vm {name} is still charged: {used}")

    def end_orphans(self):
        """Those of workers that nobody will take back."""
        if self.abandoned:
            leftovers.end_workers()

    def stop(self, timeout=15):
        if not self.process:
            return None
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise LabError("devbrokerd did not stop in time; log:\n" + self.log_text()[-800:])
        finally:
            self.process = None
        self.abandoned = code != 0
        return code

    def kill(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None
            self.abandoned = True
