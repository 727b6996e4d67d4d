# SPDX-License-Identifier: MIT
"""The host in a VM with systemd as its init, and devbrokerd as the unit that is installed."""
import time
from pathlib import Path

from guest import LabError
from host import Host
from host_broker import CONFIG, LOG, RUN, HostBroker
from host_images import INIT, MODULES, START, HostImages
from images import install, libraries

PROGRAMS = ["/lib/systemd/systemd", "/bin/systemctl", "/usr/bin/dbus-daemon"]
PRIVATE = "/usr/lib/x86_64-linux-gnu/systemd/"
# What of the host's start is not systemd's own work.
SETUP = "#!/bin/sh\n" + "\n".join(
    line for line in START.splitlines()[1:]
    if not line.startswith(("mount -t proc", "mount -t sysfs", "mount -t devtmpfs", "mkdir /dev/pts", "mount -t devpts",
                            "mount -t tmpfs", "mount -t cgroup2", "exec ", "echo "))) + "\n"
SHELL = """#!/bin/sh
export PATH=/opt/bin:/bin:/sbin
echo "lab: ready" >/dev/console
exec 0<>/dev/hvc0 1>&0 2>&0
stty raw -echo
while :; do sh /dev/hvc0; done
"""
UNITS = {
    "default.target": "[Unit]\nDescription=Lab\nRequires=lab-setup.service lab-shell.service dbus.socket dbus.service\nAllowIsolate=yes\n",
    "lab-setup.service": "[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/sbin/setup\n",
    "lab-shell.service": "[Unit]\nDefaultDependencies=no\nAfter=lab-setup.service\n[Service]\nExecStart=/sbin/shell\n"
                         "KillMode=process\n",
    # By these names systemd knows where the message bus is.
    "dbus.socket": "[Unit]\nDefaultDependencies=no\n[Socket]\nListenStream=/run/dbus/system_bus_socket\n",
    "dbus.service": "[Unit]\nDefaultDependencies=no\nRequires=dbus.socket\nAfter=lab-setup.service\n[Service]\nType=notify\n"
                    "ExecStart=/usr/bin/dbus-daemon --config-file=/etc/bus.conf --address=systemd: --nofork --nopidfile\n",
    # What every unit is ordered behind or before; the rest of Debian's is not here.
    "sysinit.target": "[Unit]\nDescription=Nothing\n",
    "basic.target": "[Unit]\nDescription=Nothing\n",
    "shutdown.target": "[Unit]\nDescription=Nothing\nDefaultDependencies=no\n",
    "multi-user.target": "[Unit]\nDescription=Nothing\n",
}
BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth><policy context="default"><allow user="root"/></policy>
<policy user="root"><allow own="*"/><allow send_destination="*"/><allow send_requested_reply="true"/>
<allow receive_sender="*"/><allow receive_requested_reply="true"/></policy></busconfig>
"""
# There is no journal.
DROP_IN = f"[Service]\nStandardOutput=null\nStandardError=append:{LOG}\n"


class SystemdImages(HostImages):
    NAME = "systemd"

    def sources(self):
        return [*super().sources(), Path(__file__), *map(Path, PROGRAMS)]

    def fill(self, root):
        super().fill(root)
        for path in PROGRAMS:
            install(root, path)
        for path in libraries(*PROGRAMS):
            install(root, path, path.replace(PRIVATE, "/lib/x86_64-linux-gnu/"))
        folder = root / "etc/systemd/system"
        folder.mkdir(parents=True)
        for name, text in UNITS.items():
            (folder / name).write_text(text)
        (root / "etc/bus.conf").write_text(BUS)
        (root / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
        for name, text in (("init", INIT.replace("/sbin/start", "/lib/systemd/systemd")),
                           ("sbin/setup", SETUP.format(modules=" ".join(MODULES))), ("sbin/shell", SHELL)):
            (root / name).write_text(text)
            (root / name).chmod(0o755)


class SystemdHost(Host):
    CMDLINE = "net.ifnames=0 systemd.log_target=console systemd.log_level=warning"

    def start(self):
        super().start()
        unit = (Path(self.build) / "data/devbrokerd.service").read_text()
        self.push("/etc/systemd/system/devbrokerd.service", unit)
        self.push("/etc/systemd/system/devbrokerd.service.d/lab.conf", DROP_IN)
        self.run(f"ln -s /opt/bin /usr/local/sbin; mkdir -p /usr/local/etc; ln -s {CONFIG} /usr/local/etc/devbroker; systemctl daemon-reload", timeout=120)
        return self


class UnitBroker(HostBroker):
    """devbrokerd as systemd runs it."""

    def write_files(self):
        h = self.host
        h.run(f"mkdir -p {CONFIG}/vms.d {CONFIG}/disks.d")
        for name, text in self.files.items():
            h.push(f"{CONFIG}/{name}", text)

    def start(self, timeout=60):
        self.write_files()
        self.host.run("systemctl start devbrokerd", timeout=timeout)
        return self.found()

    def found(self):
        self.process = int(self.host.run("systemctl show -P MainPID devbrokerd"))
        return self

    def kill(self):
        self.host.run(f"kill -KILL {self.process}")

    def wait_restarted(self, timeout=30):
        """systemd has started another one, which is ready."""
        before = self.process
        deadline = time.monotonic() + timeout
        while self.found().process in (0, before) or self.host.run("systemctl show -P ActiveState devbrokerd") != "active":
            if time.monotonic() > deadline:
                raise LabError("systemd has not started it again: " + self.host.run("systemctl status devbrokerd; true"))
            time.sleep(0.1)

    def restart(self):
        before = self.process
        self.host.run("systemctl restart devbrokerd", timeout=60)
        assert self.found().process != before

    def stop(self, timeout=60):
        self.host.run("systemctl stop devbrokerd", timeout=timeout)
        self.process = None
        return int(self.host.run("systemctl show -P ExecMainStatus devbrokerd"))

    def cgroup(self):
        """Names of the programs in the unit's cgroup."""
        return sorted(self.host.run("for p in $(cat /sys/fs/cgroup/system.slice/devbrokerd.service/cgroup.procs "
                                    "/sys/fs/cgroup/system.slice/devbrokerd.service/*/cgroup.procs 2>/dev/null); do "
                                    "cat /proc/$p/comm; done; true").split())
