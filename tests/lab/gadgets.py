# SPDX-License-Identifier: MIT
"""Devices that the host in a VM makes for itself: gadgets of configfs on dummy_hcd, whose other side is in reach there,
and those of fake-device over vhci_hcd. Their serial numbers are their names.
"""
from guest import LabError

CONFIGFS = "/sys/kernel/config/usb_gadget"
# A boot keyboard's report descriptor (HID 1.11, appendix B.1).
KEYBOARD = ("05010906a101050719e029e71500250175019508810295017508810395057501050819012905910295017503910395067508"
            "150025650507190029658100c0")


def _begin(host, ident, product):
    return (f"cd {CONFIGFS} && mkdir {ident} && cd {ident} && echo 0x1d6b >idVendor && echo {product} >idProduct && "
            f"mkdir strings/0x409 configs/c.1 && echo {ident} >strings/0x409/serialnumber && "
            f"echo lab >strings/0x409/manufacturer && echo {ident} >strings/0x409/product")


def _finish(host, ident, udc):
    host.run(f"echo dummy_udc.{udc} >{CONFIGFS}/{ident}/UDC")
    host.wait_usb(ident)
    host.run("udevadm settle")


def mass_storage(host, ident, mib=8, udc=0):
    """A stick of dummy_hcd; its contents are the file that is returned."""
    backing = f"/tmp/{ident}.img"
    host.run(f"dd if=/dev/urandom of={backing} bs=1M count={mib} 2>/dev/null; {_begin(host, ident, '0x0104')} && "
             f"mkdir functions/mass_storage.0 && echo {backing} >functions/mass_storage.0/lun.0/file && "
             "ln -s functions/mass_storage.0 configs/c.1/")
    _finish(host, ident, udc)
    return backing


def composite(host, ident, udc=0):
    """A keyboard (/dev/hidg0), a serial line (/dev/ttyGS0) and a network card (usb0) in one device."""
    escaped = "".join(f"\\x{KEYBOARD[i:i + 2]}" for i in range(0, len(KEYBOARD), 2))
    host.run(f"{_begin(host, ident, '0x0106')} && echo 0xef >bDeviceClass && echo 2 >bDeviceSubClass && "
             "echo 1 >bDeviceProtocol && mkdir functions/hid.0 functions/acm.0 functions/ecm.0 && "
             "echo 1 >functions/hid.0/protocol && echo 1 >functions/hid.0/subclass && "
             f"echo 8 >functions/hid.0/report_length && printf '{escaped}' >functions/hid.0/report_desc && "
             "echo 02:00:00:00:00:01 >functions/ecm.0/host_addr && echo 02:00:00:00:00:02 >functions/ecm.0/dev_addr && "
             "for f in hid.0 acm.0 ecm.0; do ln -s functions/$f configs/c.1/; done")
    _finish(host, ident, udc)


def yank(host, ident):
    """Pulls the gadget's cable."""
    host.run(f"echo '' >{CONFIGFS}/{ident}/UDC")


def plug_again(host, ident, udc=0):
    _finish(host, ident, udc)


# No string of theirs can be read.
NAMELESS = {"crooked": "1209:0008"}


def fake(host, kind, ident, wait=True):
    """Plugs a device of fake-device in."""
    # It brings 16 buses: only where they are needed.
    host.run("[ -e /sys/devices/platform/vhci_hcd.0 ] || { modprobe vhci_hcd && udevadm settle; }")
    host.run(f"fake-device {kind} {ident} >/tmp/{ident}.log 2>&1 & echo $! >/tmp/{ident}.pid")
    if wait:
        host.wait_usb(NAMELESS.get(kind, ident))
        host.run("udevadm settle")


def fake_unplug(host, ident):
    host.run(f"kill $(cat /tmp/{ident}.pid)")


def fake_turn(host, ident):
    """Makes it another device, which shows at the next reset."""
    host.run(f"kill -USR1 $(cat /tmp/{ident}.pid)")


def fake_ended(host, ident):
    if host.run(f"[ -d /proc/$(cat /tmp/{ident}.pid) ]", check=False)[0] == 0:
        return False
    text = host.run(f"cat /tmp/{ident}.log")
    if text:
        raise LabError(f"fake-device {ident}: {text}")
    return True
