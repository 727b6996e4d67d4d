#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Render nodes, in the host in a VM. Its cards draw nothing themselves, so Mesa draws in software on them, but by the way of a real
one: from udev's tag to the driver in its sandbox. And DMABUFs of the kernel's own through the front."""
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lab"))
import runner

VM = "[vm]\nqmp=/run/vm/%s.qmp\n[gpu]\nmemory=64M\n%s"
PCI = "/dev/dri/by-test-pci"


def connect(h, name):
    """A VMM that does nothing connects; its end is closed by cut()."""
    h.run(f"mkfifo /tmp/{name}; hold-socket /run/devbroker/vm/{name}/gpu.sock </tmp/{name} >/dev/null 2>&1 & "
          f"sh -c 'exec 5>/tmp/{name}; echo $$ >/tmp/{name}.pid; exec sleep 1000' & sleep 0.1")


def cut(h, name):
    h.run(f"kill $(cat /tmp/{name}.pid); rm /tmp/{name}")


def wait_gpu(h, b, name, what, timeout=180):
    """Until what() holds. On a machine that has much else to do a process may be ended for being slow: then it is tried again."""
    connect(h, name)
    deadline = time.monotonic() + timeout
    while True:
        gpu = b.cli("gpu", "show", name)["gpu"]
        if what(gpu):
            return gpu
        assert time.monotonic() < deadline, f"{gpu}; log: {b.log_text()[-1500:]}"
        if gpu["state"] == "waiting" and gpu["detail"]:
            cut(h, name)
            connect(h, name)
        time.sleep(0.3)


def renderer(h, name):
    """The process that draws for a VM."""
    out = h.run("for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline 2>/dev/null | grep -q -e '--renderer.*--name=%s ' && "
                "echo ${p#/proc/}; done; true" % name).split()
    assert out, "no renderer"
    return out[-1]


def clients(h, minor):
    """Who has opened a render node, once for each open file and not for its duplicates: the kernel's list."""
    return [line.split()[0] for line in h.run(f"cat /sys/kernel/debug/dri/{minor}/clients").splitlines()[1:]]


def node_fds(h, pid, node):
    out = h.run(f"for f in /proc/{pid}/fd/*; do [ \"$(readlink $f)\" = {node} ] && echo ${{f##*/}}; done; true")
    return out.split()


def check_fdinfo(h, b, gpu, pid, node):
    """The renderer, Mesa and the broker have one open file between them, so what the kernel counts of the broker's is what was drawn.
    These drivers count nothing, which is said."""
    minor = node.removeprefix("/dev/dri/renderD")
    drawing, kept = node_fds(h, pid, node), node_fds(h, b.process, node)
    assert len(drawing) >= 2 and len(kept) == 1, (drawing, kept)
    assert clients(h, minor) == ["devbrokerd"], clients(h, minor)
    text = h.run(f"cat /proc/{b.process}/fdinfo/{kept[0]}")
    assert "pos:" in text and "drm-engine-" not in text, text
    assert (gpu["time_from"], gpu["device_memory_bytes"]) == ("renderer", 0), gpu
    return text.split()


def wait_gone(h, b, name, node):
    deadline = time.monotonic() + 30
    while (left := clients(h, node.removeprefix("/dev/dri/renderD"))) or b.cli("gpu", "show", name)["gpu"]["time_from"]:
        assert time.monotonic() < deadline, left
        time.sleep(0.2)


def test_render_nodes(lab):
    """devbroker gpu nodes finds vgem and a PCI card; a tag in udev chooses one; Mesa draws on it in the full sandbox, which shows it
    the card; virgl=hardware refuses that, because it is software; the broker reads the fdinfo of the file that Mesa draws on"""
    h = lab.host(graphics=True)
    h.udev_rule("70-gpu.rules", 'SUBSYSTEM=="drm", KERNEL=="renderD*", DEVPATH=="*vgem*", ENV{DEVBROKER_GPU}="1"\n'
                'SUBSYSTEM=="drm", KERNEL=="renderD*", DEVPATH=="*pci*", SYMLINK+="dri/by-test-pci"\n')
    h.run("modprobe -a vgem virtio-gpu && udevadm trigger --settle /dev/dri/renderD128 /dev/dri/renderD129")
    b = lab.start_broker({"vms.d/tagged.conf": VM % ("tagged", "virgl=yes\ndmabuf=yes\n"),
                          "vms.d/named.conf": VM % ("named", f"virgl=yes\nrender-node={PCI}\n"),
                          "vms.d/hard.conf": VM % ("hard", "virgl=hardware\n")})
    nodes = b.cli("gpu", "nodes")["nodes"]
    vgem, pci = ([n for n in nodes if n["bus"].startswith(kind)] for kind in ("platform", "pci"))
    assert len(vgem) == len(pci) == 1 and vgem[0]["for_guests"] and not pci[0]["for_guests"], nodes
    assert "1af4:1050" in pci[0]["bus"], nodes
    h.run("mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null; true")
    drawn, fdinfo = {}, {}
    for name, node in (("tagged", vgem[0]["path"]), ("named", PCI)):
        drawn[name] = wait_gpu(h, b, name, lambda gpu: gpu["drawn_by"])["drawn_by"]
        assert "llvmpipe" in drawn[name], drawn
        assert f"vm {name}: gpu: draws on {node}" in b.log_text(), b.log_text()[-1500:]
        pid = renderer(h, name)
        mounts = h.run(f"cat /proc/{pid}/mountinfo")
        for folder in ("/sys/devices", "/sys/dev/char", "/dev/dri"):
            line = [m for m in mounts.splitlines() if m.split()[4] == folder]
            assert len(line) == 1 and "nodev" in line[0].split()[5] and line[0].split()[5].startswith("ro"), mounts
        real = h.run(f"readlink -f {node}").strip()
        fdinfo[real] = check_fdinfo(h, b, b.cli("gpu", "show", name)["gpu"], pid, real)
        cut(h, name)
        # Whatever a renderer had there is gone with it.
        wait_gone(h, b, name, real)
    wait_gpu(h, b, "hard", lambda gpu: "draws in software" in gpu["detail"])
    cut(h, "hard")
    out = h.run("DEVBROKER_GPU=/opt/libexec/devbroker-gpu /opt/bin/test-gpu-front-dmabuf 2>&1; true", timeout=120)
    assert "5 test(s) run" in out and "PASSED  ] 5 test(s)" in out and "SKIPPED" not in out, out[-1500:]
    h.check_kernel()
    lab.note(f"{[(n['path'], n['bus']) for n in nodes]}; drawn by {drawn}; a memfd, a pipe and a socket are no DMABUF, vgem's are; "
             f"one open file each, of which the kernel says {fdinfo}")


if __name__ == "__main__":
    runner.main([sys.modules[__name__]])
