#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Shows a guest that draws in 3D: a Debian guest with stock Mesa, its picture as PNG, its renderer, its frame rate."""
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "lab")]
import runner
from demo_usb import main
from guest import LabError, accelerator
from test_gpu_guest import Cube, configure

PICTURE = runner.SOURCE / "build/demo-gpu.png"
SECONDS = 10


def demo(d):
    lab = d.lab
    how = "KVM" if accelerator(d.images) == "kvm" else "software emulation (no usable KVM here)"

    d.step(f"The broker, and a Debian guest with stock Mesa, with {how}")
    b = lab.start_broker(configure("desktop", memory="512M", virgl="yes"))
    cube = Cube(lab, "desktop")
    d.host("gpu", "nodes")

    d.step("kmscube in the guest: OpenGL ES on its virtio-gpu")
    cube.begin()
    cube.wait()
    renderer = cube.renderer()
    d.host("gpu", "list")
    rate = cube.rate(SECONDS)

    d.step("What it shows")
    cube.wait()
    d.host("gpu", "screenshot", "desktop", "-o", PICTURE)
    print(f"\n   renderer      {renderer}\n   frame rate    {rate:.1f}/s\n   picture       {PICTURE}", flush=True)
    if not renderer.startswith("virgl ("):
        raise LabError("the guest does not draw in 3D")
    cube.guest.kill()
    if b.stop() != 0:
        raise LabError("devbrokerd did not stop cleanly")


if __name__ == "__main__":
    main(demo)
