# SPDX-License-Identifier: MIT
"""Collects and runs end-to-end tests: functions test_* of modules, each with a line that says what it shows."""
import os
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

import guest
import images
import leftovers
from broker import Broker
from gpu_guest import GpuGuest
from gpu_images import GpuImages
from guest import Guest, LabError
from host import GraphicsHost, Host
from host_broker import HostBroker
from host_images import HostImages
from host_systemd import SystemdHost, SystemdImages, UnitBroker

SOURCE = Path(__file__).resolve().parents[2]


def build_dir():
    return Path(os.environ.get("DEVBROKER_BUILD", SOURCE / "build"))


class Lab:
    """What one test has to hand; everything it started is ended afterwards."""

    def __init__(self, name, all_images):
        self.images = all_images
        # Short: paths of unix sockets end at 107 bytes.
        self.work = Path(tempfile.mkdtemp(prefix=f"db-{name[:20]}-"))
        # Workers and the checks of configuration must be able to reach it.
        self.work.chmod(0o755)
        self.broker = None
        self.machine = None
        self.guests = []

    def host(self, systemd=False, graphics=False, **kw):
        """The host in a VM. A broker that is started then, and the guests that it knows, belong to it."""
        kind, images_of = (SystemdHost, SystemdImages) if systemd else (GraphicsHost if graphics else Host, HostImages)
        self.machine = kind(host_images(self.images, images_of), self.work / "host", build=build_dir(), **kw).start()
        return self.machine

    def start_broker(self, files=None, **kw):
        kind = UnitBroker if isinstance(self.machine, SystemdHost) else HostBroker
        self.broker = (kind(self.machine, files, **kw) if self.machine else
                       Broker(build_dir(), self.work, files, **kw)).start()
        return self.broker

    def guest(self, name="guest", start=True, **kw):
        extra = [*kw.pop("extra", ()), *(guest.TCP_QMP if self.machine else [])]
        g = Guest(self.images, self.work / name, name, extra=extra, **kw)
        self.guests.append(g)
        return g.start() if start else g

    def gpu_guest(self, name, socket, **kw):
        """A running guest whose GPU is behind that socket."""
        images = GpuImages(self.images.cache, self.images.source, self.images.say)
        g = GpuGuest(images, self.work / name, name, socket=socket, build=build_dir(), **kw)
        self.guests.append(g)
        return g.start()

    def vm(self, name="guest", **kw):
        """A running guest that the broker knows."""
        g = self.guest(name, **kw)
        self.broker.cli("vm", "add", name, "--qmp", self.machine.vmm(g) if self.machine else g.qmp_path)
        self.broker.wait_vm(name, "up")
        return g

    def image(self, name="stick.img", mib=16, random=True):
        path = self.work / name
        with open(path, "wb") as f:
            for _ in range(mib):
                f.write(os.urandom(1 << 20) if random else bytes(1 << 20))
        return path

    def note(self, text):
        print(f"       {text}", flush=True)

    def finish(self):
        """What must hold after every test that went well: the broker ends cleanly, and no sanitizer spoke."""
        if self.broker and self.broker.process:
            code = self.broker.stop()
            if code != 0:
                raise LabError(f"devbrokerd ended with {code}")
        for line in self.broker.log_text().splitlines() if self.broker else []:
            if "runtime error:" in line or "Sanitizer" in line or "Assertion" in line:
                raise LabError(line)
        if self.machine:
            self.machine.check_kernel()

    def logs(self):
        """The ends of all logs, for a failure."""
        if self.machine:
            return self.machine.logs()
        return "\n".join(self.broker.log_text().splitlines()[-15:]) if self.broker else ""

    def close(self, keep):
        if self.broker and not self.machine:
            self.broker.kill()
        for vm in [*self.guests, self.machine]:
            if vm:
                vm.kill()
        if self.broker and not self.machine:
            self.broker.end_orphans()
        if keep:
            print(f"       logs: {self.work}", flush=True)
        else:
            shutil.rmtree(self.work, ignore_errors=True)


def host_images(all_images, kind=HostImages):
    return kind(all_images.cache, all_images.source, all_images.say)


def run_once(name, test, title, all_images, failure):
    """Runs one test; returns whether it went well. failure is the word for it if it didn't."""
    lab = Lab(name[5:], all_images)
    start = time.monotonic()
    ok = False
    try:
        test(lab)
        lab.finish()
        ok = True
    except Exception:
        print("".join("       " + l for l in traceback.format_exc().splitlines(True)[-12:]), flush=True)
        print("".join(f"       | {line}\n" for line in lab.logs().splitlines()), end="", flush=True)
    finally:
        lab.close(keep=not ok and not os.environ.get("CI"))
        left = leftovers.check()
        if left:
            print("".join(f"       {line}\n" for line in left.splitlines()), end="", flush=True)
            ok = False
    print(f"{'ok  ' if ok else failure}   {title} ({time.monotonic() - start:.1f} s)", flush=True)
    return ok


def words_of(option):
    """What stands behind an option, separated by commas."""
    return sys.argv[sys.argv.index(option) + 1].split(",") if option in sys.argv else []


def run(modules, only=(), skip=(), once=False):
    """Runs all test_* of modules, or those with a word of only and none of skip; returns how many passed, failed, and
    passed only at the second try. That is given to them unless once is wanted: whole machines without KVM are at the
    mercy of what else this one does. Both tries are shown.
    """
    passed = failed = second = 0
    all_images = images.Images(SOURCE / "build/lab", SOURCE, say=lambda s: print(s, flush=True))
    for module in modules:
        for name, test in list(vars(module).items()):
            if not name.startswith("test_") or (only and not any(word in name for word in only)) or \
                    any(word in name for word in skip):
                continue
            title = (test.__doc__ or name).strip().splitlines()[0]
            ok = run_once(name, test, title, all_images, "FAIL" if once else "AGAIN")
            if not ok and not once:
                ok = run_once(name, test, title, all_images, "FAIL")
                second += ok
            passed, failed = passed + ok, failed + (not ok)
    return passed, failed, second


def main(modules):
    leftovers.watch_over()
    passed, failed, second = run(modules, words_of("--only"), words_of("--skip"), "--once" in sys.argv)
    print(f"e2e: {passed} passed, {failed} failed" + (f", {second} of them at the second try" if second else ""), flush=True)
    sys.exit(1 if failed or not passed else 0)
