# SPDX-License-Identifier: MIT
"""Soak tests in which everything happens at any time: hasty users, and every part dying or hanging.

Which sequence is drawn depends on a seed that is printed; DEVBROKER_SEED repeats it.
"""
import os
import random
import signal
import threading
import time

from broker import CliError
from guest import LabError

STEPS = 300
DISKS = 6
CHURN_SECONDS = 60


def chosen_seed(lab):
    seed = int(os.environ.get("DEVBROKER_SEED", random.SystemRandom().randrange(1 << 32)))
    lab.note(f"DEVBROKER_SEED={seed}")
    return seed


class Chaos:
    """Two VMs, some disks, and what can happen to them."""

    def __init__(self, lab):
        self.lab = lab
        self.random = random.Random(chosen_seed(lab))
        self.broker = lab.start_broker()
        self.idle = self.broker.idle()
        self.guests = {}
        self.log = []
        for name in ("one", "two"):
            self.boot(name)
            self.broker.cli("vm", "add", name, "--qmp", self.guests[name].qmp_path)
            self.broker.wait_vm(name, "up")
        for i in range(DISKS):
            self.broker.cli("disk", "add", lab.image(f"d{i}.img", 2), "--name", f"d{i}")
        # Action → how often.
        self.actions = {self.attach: 35, self.detach: 20, self.kill_worker: 10, self.stop_worker: 3,
                        self.kill_helper: 8, self.kill_vm: 6, self.pause_vm: 6, self.reset_vm: 3, self.unplug: 3,
                        self.ask: 6}

    def boot(self, name):
        self.guests[name] = self.lab.guest(name)

    def disk(self):
        return f"d{self.random.randrange(DISKS)}"

    def vm(self):
        return self.random.choice(sorted(self.guests))

    def cli(self, *args):
        self.log.append(" ".join(args))
        try:
            return self.broker.cli(*args)
        except CliError as e:
            # Whoever changes their mind all the time is told that the device is busy, or is not attached.
            if e.error.get("code") not in ("busy", "not-attached"):
                raise
            self.log.append(f"  {e.error['message']}")

    def signal_one(self, program, number):
        pids = [pid for pid, (name, _) in self.broker.children().items() if name == program]
        if pids:
            pid = self.random.choice(pids)
            self.log.append(f"{program} {pid}: {number.name}")
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass
        return bool(pids)

    def attach(self):
        self.cli("attach", self.disk(), self.vm())

    def detach(self):
        self.cli("detach", self.disk())

    def ask(self):
        self.cli("list")

    def kill_worker(self):
        self.signal_one("devbroker-usb", signal.SIGKILL)

    def stop_worker(self):
        self.signal_one("devbroker-usb", signal.SIGSTOP)

    def kill_helper(self):
        # It lives for some milliseconds only.
        deadline = time.monotonic() + 0.3
        while not self.signal_one("devbroker-qmp", signal.SIGKILL) and time.monotonic() < deadline:
            pass

    def kill_vm(self):
        name = self.vm()
        self.log.append(f"vm {name}: killed")
        self.guests[name].kill()
        time.sleep(self.random.random() / 2)
        self.boot(name)

    def pause_vm(self):
        name = self.vm()
        self.log.append(f"vm {name}: stop and cont")
        self.guests[name].qmp.call("stop")
        time.sleep(self.random.random() / 2)
        self.guests[name].qmp.call("cont")

    def reset_vm(self):
        name = self.vm()
        self.log.append(f"vm {name}: reset")
        self.guests[name].qmp.call("system_reset")

    def unplug(self):
        """Behind the broker's back, as somebody at the VMM's own monitor would."""
        guest = self.guests[self.vm()]
        objects = guest.objects()
        if objects:
            self.log.append(f"{objects[0]}: device_del")
            guest.qmp.call("device_del", id=objects[0])

    def step(self):
        actions, weights = zip(*self.actions.items())
        self.random.choices(actions, weights)[0]()
        time.sleep(self.random.choice([0, 0, 0.05, 0.2, 0.5]))
        if self.broker.process.poll() is not None:
            raise LabError("devbrokerd has ended")

    def settle(self):
        """Everybody gives everything back; then nothing may be left."""
        for i in range(DISKS):
            deadline = time.monotonic() + 30
            while self.broker.device(f"disk:d{i}")["state"] != "present":
                self.cli("detach", f"d{i}")
                if time.monotonic() > deadline:
                    raise LabError(f"{self.broker.device(f'disk:d{i}')}")
                time.sleep(0.1)
        for name, guest in self.guests.items():
            self.broker.wait_vm(name, "up", 40)
            if any(q["used"] for q in self.broker.vm(name)["quota"].values()):
                raise LabError(f"still charged: {self.broker.vm(name)['quota']}")
            left = guest.objects() + [c for c in guest.chardevs() if c.startswith("devbroker")]
            if left:
                raise LabError(f"left in vm {name}: {left}")
            # Each VM that is up is watched by its pidfd.
            self.broker.cli("vm", "remove", name)
        self.broker.check_idle(self.idle)


def test_random_faults(lab):
    """300 random acts: attach, detach, workers, helpers and VMs killed, stopped, reset, unplugged behind our back"""
    chaos = Chaos(lab)
    try:
        for _ in range(STEPS):
            chaos.step()
        chaos.settle()
    except (LabError, OSError) as e:
        raise LabError("\n".join([str(e), "the last acts:", *chaos.log[-30:]]))


def test_churn(lab):
    """8 disks between 2 VMs, by 4 users in a hurry for a minute: nothing refused without a reason, nothing left"""
    seed = chosen_seed(lab)
    b = lab.start_broker()
    guests = {name: lab.vm(name) for name in ("one", "two")}
    for i in range(8):
        b.cli("disk", "add", lab.image(f"d{i}.img", 2), "--name", f"d{i}")
    idle, fds = b.idle(), {name: g.fds() for name, g in guests.items()}
    end = time.monotonic() + CHURN_SECONDS
    cycles, errors = [0] * 4, []

    def user(n):
        r = random.Random(seed + n)
        try:
            while time.monotonic() < end:
                disk = f"d{2 * n + r.randrange(2)}"
                b.cli("attach", disk, r.choice(list(guests)), *(["--wait"] if r.random() < 0.3 else []))
                time.sleep(r.choice([0, 0, 0.02, 0.05, 0.1, 0.3]))
                b.cli("detach", disk)
                cycles[n] += 1
        except Exception as e:
            errors.append(e)

    threads = [threading.Thread(target=user, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    lab.note(f"{sum(cycles)} cycles")
    if errors:
        raise errors[0]
    b.check_idle(idle, list(guests))
    for name, g in guests.items():
        if g.objects() or g.fds() != fds[name]:
            raise LabError(f"left in vm {name}: {g.objects()}, fds {fds[name]} before, {g.fds()} after")
