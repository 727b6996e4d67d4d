# SPDX-License-Identifier: MIT
"""What guests with a GPU are made of: an initramfs with kmsdraw and gpubomb, and a disk with as much of Debian as draws with Mesa."""
import hashlib
import inspect
import shutil
from pathlib import Path

from images import MODULES, TOOLS, Images, install, run

PACKAGES = ["kmscube", "glmark2-es2-drm", "glmark2-es2-wayland", "weston", "libgl1-mesa-dri",
            "fonts-dejavu-core"]
DISK_MIB = 768


class GpuImages(Images):
    NAME = "gpu"
    MODULES = MODULES + ["virtio_gpu", "virtio_blk", "ext4", "crc32c_generic"]
    TOOLS = TOOLS + ["kmsdraw", "gpubomb"]

    def sources(self):
        return super().sources() + [Path(__file__)]

    def debian(self):
        """A disk with PACKAGES and what they depend on, not installed but unpacked."""
        made_of = f"{PACKAGES} {DISK_MIB} {inspect.getsource(GpuImages.debian)}"
        key = hashlib.sha256(made_of.encode()).hexdigest()[:16]
        disk = self.cache / f"debian-{key}.img"
        if disk.exists():
            return disk
        self.say("lab: fetching Debian's Mesa, and what draws with it")
        work = self.cache / "debian.tmp"
        shutil.rmtree(work, ignore_errors=True)
        for folder in ("archives/partial", *(f"root/{d}" for d in ("dev", "proc", "sys", "tmp"))):
            (work / folder).mkdir(parents=True)
        status = work / "status"
        status.touch()  # as if nothing was installed: all that they need is fetched
        # apt's sandbox user can't write here, and need not.
        run("apt-get", "-o", "APT::Sandbox::User=root", "-o", f"Dir::State::status={status}", "-o",
            f"Dir::Cache::archives={work}/archives", "-o", "Debug::NoLocking=1", "install", "-y", "-q",
            "--no-install-recommends", "--download-only", *PACKAGES)
        for package in sorted((work / "archives").glob("*.deb")):
            run("dpkg", "-x", str(package), str(work / "root"))
        shutil.rmtree(work / "root/usr/share/doc")
        busybox = install(work / "root", shutil.which("busybox", path="/bin:/usr/bin"), "/bin/busybox")
        (busybox.parent / "sh").symlink_to("busybox")
        tmp = disk.with_suffix(".tmp")
        run("/sbin/mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-d", str(work / "root"), str(tmp),
            f"{DISK_MIB}M")
        tmp.rename(disk)
        shutil.rmtree(work)
        return disk
