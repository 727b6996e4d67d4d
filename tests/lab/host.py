# SPDX-License-Identifier: MIT
"""The host in a VM: a QEMU with a real kernel, udevd and the programs of a build folder, into which devices are plugged
by QMP. Its guests are QEMUs beside it, which it reaches at 10.0.2.2 through slirp, on this machine's loopback.
"""
import base64
import shlex
import time
from pathlib import Path

from guest import Guest, LabError
from images import libraries

ADDRESS = "10.0.2.2"
# QEMU's drivers and what each of them always needs.
KINDS = {
    "storage": ("usb-storage", {}),
    "uas": ("usb-uas", {}),
    "kbd": ("usb-kbd", {}),
    "mouse": ("usb-mouse", {}),
    "tablet": ("usb-tablet", {}),
    "serial": ("usb-serial", {"always-plugged": True}),
    "audio": ("usb-audio", {"audiodev": "snd0"}),
    "hub": ("usb-hub", {}),
}


class Host(Guest):
    MEMORY = "384"
    CMDLINE = "net.ifnames=0"
    PORTS = 12

    def __init__(self, images, work, name="host", build=None, **kw):
        self.build = build
        self.programs = images.programs(build) if build else images.empty_disk()
        super().__init__(images, work, name, **kw)
        self.plugged = {}

    def argv(self):
        return super().argv() + [
            "-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net",
            "-drive", f"if=none,id=programs,readonly=on,format=raw,file={self.programs}",
            "-device", "virtio-blk-pci,drive=programs",
            # What a plugged audio device plays; nothing is resampled.
            "-audiodev", f"wav,id=snd0,path={self.work}/audio.wav,out.fixed-settings=off,"
            "out.mixing-engine=off"]

    def start(self):
        super().start()
        self.run("mount -o ro /dev/vda /opt && cp /opt/rules/*.rules /etc/udev/rules.d/ 2>/dev/null; "
                 "udevadm control --reload; mkdir -p /run/vm /usr/local/libexec; "
                 "ln -s /opt/libexec /usr/local/libexec/devbroker")
        return self

    # Files

    def push(self, path, data, mode=0o644):
        text = base64.b64encode(data if isinstance(data, bytes) else data.encode()).decode()
        lines = "\n".join(text[i:i + 1024] for i in range(0, len(text), 1024))
        self.run(f"mkdir -p {shlex.quote(str(Path(path).parent))}; base64 -d >{shlex.quote(path)} <<'END'\n{lines}\nEND\n"
                 f"chmod {mode:o} {shlex.quote(path)}")

    def pull(self, path):
        return base64.b64decode(self.run(f"base64 {shlex.quote(path)}"))

    def udev_rule(self, name, text):
        """Installs an administrator's rule."""
        self.push(f"/etc/udev/rules.d/{name}", text)
        self.run("udevadm control --reload")

    # Devices

    def plug(self, kind, ident=None, wait=True, port=None, bus="xhci.0", **options):
        """Plugs a device in; its serial number is its id, which is returned. Waits until udev is through with it."""
        driver, needs = KINDS[kind]
        ident = ident or f"{kind}{len(self.plugged)}"
        properties = {"driver": driver, "id": ident, "bus": bus, "serial": options.pop("serial", ident), **needs}
        image = options.pop("image", None)
        if port:
            properties["port"] = str(port)
        if image:
            self.qmp.call("blockdev-add", driver="raw", node_name=f"{ident}-n",
                          file={"driver": "file", "filename": str(image)})
        if kind == "storage":
            properties["drive"] = f"{ident}-n"
        if kind == "serial":
            data = {"addr": {"type": "unix", "data": {"path": str(self.serial_path(ident))}}, "server": True,
                    "wait": False}
            self.qmp.call("chardev-add", id=f"{ident}-c", backend={"type": "socket", "data": data})
            properties["chardev"] = f"{ident}-c"
        self.qmp.call("device_add", **properties, **options)
        if kind == "uas":
            # It is not shown to the kernel before its disk is there.
            self.qmp.call("device_add", driver="scsi-hd", id=f"{ident}-d", bus=f"{ident}.0", drive=f"{ident}-n")
            self.qmp.call("qom-set", path=f"/machine/peripheral/{ident}", property="attached", value=True)
        self.plugged[ident] = kind
        if wait:
            self.wait_usb(properties["serial"])
            self.run("udevadm settle")
        return ident

    def serial_path(self, ident):
        """The other end of a serial adapter's cable."""
        return self.work / f"{ident}.tty"

    def unplug(self, ident):
        kind = self.plugged.pop(ident)
        if kind == "uas":
            self.qmp.call("qom-set", path=f"/machine/peripheral/{ident}", property="attached", value=False)
            self.qmp.call("device_del", id=f"{ident}-d")
        self.qmp.call("device_del", id=ident)
        self._deleted(ident)
        if kind in ("storage", "uas"):
            self.qmp.call("blockdev-del", node_name=f"{ident}-n")
        if kind == "serial":
            self.qmp.call("chardev-remove", id=f"{ident}-c")

    def _deleted(self, ident):
        while self.qmp.wait_event("DEVICE_DELETED")["data"].get("device") != ident:
            pass

    def keys(self, *keys):
        """Types on the keyboard that was plugged in last."""
        for key in keys:
            self.qmp.call("send-key", keys=[{"type": "qcode", "data": k} for k in key.split("-")], hold_time=20)
            time.sleep(0.06)

    def yank(self, serial):
        """Takes a device away from its bus, whatever it is doing."""
        self.run(f"echo 1 >/sys/bus/usb/devices/{self.wait_usb(serial)}/remove")

    # Guests beside it

    def vmm(self, guest):
        """Starts the process that stands for guest's VMM here; returns the path of its QMP socket."""
        path = f"/run/vm/{guest.name}.qmp"
        self.run(f"vmm-relay {path} {ADDRESS} {guest.tcp_qmp()} >/run/vm/{guest.name}.log 2>&1 & "
                 f"i=0; while [ ! -S {path} ] && [ $i -lt 100 ]; do usleep 20000; i=$((i + 1)); done; [ -S {path} ]")
        return path

    def usbredirect(self, serial, guest):
        """Lends a device with the peer, usbredirect, to a usb-redir device of guest; returns that device's name. Of several
        with equal ids usbredirect takes the first, whatever it was told."""
        device = "redirect-" + serial.replace(":", "-")
        port = guest.listen_usbredir(device)
        ids = self.run("cd /sys/bus/usb/devices/%s; echo $(cat busnum)-$(cat devnum)" % self.wait_usb(serial))
        self.run(f"usbredirect --device {ids} --to {ADDRESS}:{port} >/tmp/{device}.log 2>&1 & echo $! >/tmp/{device}.pid")
        return device

    def end_usbredirect(self, serial, guest):
        device = "redirect-" + serial.replace(":", "-")
        self.run(f"kill $(cat /tmp/{device}.pid)", check=False)
        guest.qmp.call("device_del", id=device)
        while guest.qmp.wait_event("DEVICE_DELETED")["data"].get("device") != device:
            pass

    def by_hand(self, serial, guest):
        """Lends a device with devbroker-usb started by hand, over TCP, to a usb-redir device of guest."""
        device = f"byhand-{serial}"
        port = guest.listen_usbredir(device)
        name = self.wait_usb(serial)
        node = self.run(f"cd /sys/bus/usb/devices/{name}; for i in {name}:*; do [ -e $i/driver ] && echo $i >$i/driver/unbind; "
                        "done; printf /dev/bus/usb/%03d/%03d $(cat busnum) $(cat devnum)")
        self.run(f"tcp-run {ADDRESS} {port} /opt/libexec/devbroker-usb --device {node} --stream-fd 3 >/tmp/{device}.log 2>&1 & "
                 f"echo $! >/tmp/{device}.pid")
        return device

    def end_by_hand(self, serial, guest):
        device = f"byhand-{serial}"
        self.run(f"kill $(cat /tmp/{device}.pid)", check=False)
        guest.qmp.call("device_del", id=device)
        while guest.qmp.wait_event("DEVICE_DELETED")["data"].get("device") != device:
            pass
        name = self.wait_usb(serial)
        self.run(f"cd /sys/bus/usb/devices/{name}; for i in {name}:*; do echo $i >/sys/bus/usb/drivers_probe; done; true")

    def cpu_ms(self, program):
        """User and system time of all processes of this program so far."""
        ticks = self.run(f"n=0; for p in /proc/[0-9]*; do [ \"$(cat $p/comm 2>/dev/null)\" = {program} ] && "
                         "{ set -- $(sed 's/.*) //' $p/stat); n=$((n + ${12} + ${13})); }; done; echo $n")
        return int(ticks) * 10

    def check_kernel(self):
        """Nothing that runs here may make the kernel complain about itself."""
        for line in self.dmesg().splitlines():
            if any(text in line for text in ("BUG:", "WARNING:", "Oops", "blocked for more than", "rcu_sched self-det")):
                raise LabError(f"{self.name}'s kernel: {line}")

    def logs(self):
        """What is worth seeing after a failure."""
        try:
            return "-- kernel\n" + "\n".join(self.dmesg().splitlines()[-12:]) + "\n" + self.run(
                "echo '-- udev'; ls -l /etc/udev/rules.d; for d in /sys/bus/usb/devices/[0-9]*-*; do udevadm info -q property $d | "
                "grep -E '^(DEVPATH|DRIVER|DEVBROKER_.*|CURRENT_TAGS|ID_SERIAL_SHORT)='; done; for f in /run/*.log /run/vm/*.log /tmp/*.log; do [ -s $f ] && { echo \"-- $f\"; tail -n 25 $f; }; done; "
                "true", timeout=10)
        except (LabError, OSError, AttributeError) as e:
            return f"no logs: {e}"

LIB = "/usr/lib/x86_64-linux-gnu"
# What draws, and what that and our programs load.
DRIVER = [f"{LIB}/libvirglrenderer.so.1", f"{LIB}/libEGL_mesa.so.0", f"{LIB}/dri/swrast_dri.so", f"{LIB}/libgbm.so.1",
          f"{LIB}/libEGL.so.1"]


class GraphicsHost(Host):
    """One with this machine's /usr, where Mesa and virglrenderer are, and with cards that draw nothing themselves: vgem (when a
    test loads it) and QEMU's virtio-gpu without 3D, which is on PCI."""

    MEMORY = "1024"

    def argv(self):
        return super().argv() + ["-virtfs", "local,path=/usr,mount_tag=usr,security_model=none,readonly=on,multidevs=remap",
                                 "-device", "virtio-gpu-pci"]

    def start(self):
        super().start()
        self.run("modprobe -a 9pnet_virtio 9p && mkdir /usr.host && "
                 "mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=262144,cache=loose usr /usr.host && "
                 "rm /usr/lib && mkdir -p /usr/lib /usr/share && mount --bind /usr.host/lib /usr/lib && "
                 "mount --bind /usr.host/share /usr/share")
        # Into its memory: who starts a process has no time for a slow file system.
        files = {f"{LIB}/{Path(p).name}" for p in libraries(*DRIVER, self.build / "gpu/devbroker-gpu") if p.split("/")[-2] in LIB}
        self.run(f"cat {' '.join([*DRIVER, *files])} >/dev/null", timeout=120)
        return self
