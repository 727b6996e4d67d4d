#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The policy suite, part 2: devices that go, come back and turn into others, and rules that change meanwhile; each with the
seconds that it took."""
import json
import subprocess
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "lab"), str(Path(__file__).resolve().parent)]
import gadgets
import runner
from guest import wait
from test_usb_policy import wait_device

FLASH = "[rule flash]\nMatch=serial=flash\nAction=attach guest\nFollow=%d 1d6b:0d0? 1d6b:0e00\n"
UDC = f"{gadgets.CONFIGFS}/flash/UDC"
VM = "[vm]\nqmp=/run/vm/guest.qmp\n"


class Case:
    """A host with its broker, and the VM guest, which comes and goes."""

    def __init__(self, lab, rules):
        self.lab = lab
        self.host = lab.host()
        self.broker = lab.start_broker({"policy.d/10-lab.conf": rules, "vms.d/guest.conf": VM})
        self.guest = None

    def start_guest(self):
        self.guest = self.lab.guest()
        self.host.vmm(self.guest)
        self.broker.wait_vm("guest", "up")

    def state(self, serial):
        return next(((d["state"], d["vm"]) for d in self.broker.cli("list")["devices"] if d["serial"] == serial), None)

    def known(self, serial):
        """Its name, if the broker knows of the one that is plugged in now, not of one before it."""
        sysname = self.host.find_usb(serial)
        number = sysname and self.host.run(f"cat /sys/bus/usb/devices/{sysname}/devnum 2>/dev/null; true").strip()
        for d in self.broker.cli("list")["devices"] if number else ():
            if d["serial"] == serial and self.broker.cli("show", d["name"])["usb"]["device_number"] == int(number):
                return d["name"]
        return None

    def back(self, what, begin, *serials, timeout=60):
        """Waits until the guest has configured them (again); notes the seconds since begin."""
        for serial in serials:
            wait(f"{serial} is in the guest after {what}",
                 lambda: self.known(serial) and self.state(serial) == ("configured", "guest"), timeout)
        took = time.monotonic() - begin
        for serial in serials:
            self.guest.wait_disk(serial)
        self.lab.note(f"{what}: configured after {took:.1f} s")

    def left_to_host(self, serial):
        """The broker knows it, and leaves it to the host."""
        name = wait(f"{serial} is known", lambda: self.known(serial), 30)
        assert self.broker.cli("explain", name)["action"] == "hold", self.broker.cli("explain", name)
        self.host.wait_drivers(serial, ["usb-storage"], timeout=30)
        assert self.state(serial) == ("present", ""), self.state(serial)

    def gadget_id(self, product, between="usleep 300000"):
        """The gadget drops off its port and comes back with these ids; returns when it did."""
        begin = time.monotonic()
        self.host.run(f"echo '' >{UDC}; {between}; echo {product} >{gadgets.CONFIGFS}/flash/idProduct; "
                      f"echo dummy_udc.0 >{UDC}")
        self.host.wait_usb("flash", timeout=30)
        return begin


def works(case, serial):
    """What the guest reads of it comes from the device."""
    disk = case.guest.wait_disk(serial, timeout=60)
    code, _ = case.guest.run(f"blockdev --flushbufs /dev/{disk} && dd if=/dev/{disk} of=/dev/null bs=64k count=4 2>/dev/null",
                             check=False)
    return code == 0 and case.known(serial) and case.state(serial) == ("configured", "guest")


def test_comes_back(lab):
    """device before VM, VM restart, replug, self-reset, host suspend: in its VM each time, and it works"""
    c = Case(lab, FLASH % 20 + "[rule stick]\nMatch=serial=stick\nAction=attach guest\n")
    gadgets.mass_storage(c.host, "flash", mib=1)
    wait_device(c.broker, "flash")
    c.start_guest()
    c.back("VM after the device", time.monotonic(), "flash")
    c.guest.kill()
    c.broker.wait_vm("guest", "gone")
    begin = time.monotonic()
    c.start_guest()
    c.back("VM restarted (its start included)", begin, "flash")
    gadgets.yank(c.host, "flash")
    wait("it is gone", lambda: c.state("flash") is None)
    c.guest.wait_no_usb("flash")
    begin = time.monotonic()
    gadgets.plug_again(c.host, "flash")
    c.back("replug", begin, "flash")
    begin = time.monotonic()
    c.host.run(f"echo '' >{UDC}; echo dummy_udc.0 >{UDC}")
    c.back("self-reset (off its port and on again)", begin, "flash")
    wait("it works", lambda: works(c, "flash"), 60)
    c.host.plug("storage", "stick", image=lab.image(mib=4))
    c.back("VM before the device", time.monotonic(), "stick")
    begin = suspend(c.host)
    # What has kept its power stays where it is; what has not, or what the host's driver took, is lent anew.
    for serial in ("flash", "stick"):
        wait(f"{serial} works", lambda: works(c, serial), 90)
        lab.note(f"{serial}, after suspend and resume of the host: works after {time.monotonic() - begin:.1f} s")


def suspend(host):
    """Suspends the host as deep as it wakes by itself: its programs are frozen, every device is suspended (the host controller
    loses power) and, after 5 s, resumed. Only the CPU does not sleep. Returns when it was awake again."""
    host.run("dmesg -c >/dev/null; echo devices >/sys/power/pm_test; echo freeze >/sys/power/state", timeout=60)
    log = host.dmesg()
    assert "PM: suspend exit" in log, log[-500:]
    return time.monotonic()


def test_follows(lab):
    """a device that comes back with other ids stays with its VM: in time, with an id of the list, and not otherwise"""
    c = Case(lab, FLASH.replace("serial=flash", "id=1d6b:0104") % 20)
    c.start_guest()
    gadgets.mass_storage(c.host, "flash", mib=1)
    c.back("plugged in", time.monotonic(), "flash")
    name = wait_device(c.broker, "flash")["name"]
    for product in ("0x0d00", "0x0e00"):
        c.back(f"as 1d6b:{product[2:]}", c.gadget_id(product), "flash")
        told = c.broker.cli("explain", name)
        assert told["action"] == "attach" and "follows the device that was there before" in told["why"], told
    # Back to what the rule is about, and from there to one that it does not follow.
    c.back("as 1d6b:0104 again", c.gadget_id("0x0104"), "flash")
    c.gadget_id("0x0f00")
    c.left_to_host("flash")
    # Which ended it: what comes next is not followed.
    c.gadget_id("0x0d00")
    c.left_to_host("flash")
    # Too late.
    c.host.push("/etc/devbroker/policy.d/10-lab.conf", FLASH.replace("serial=flash", "id=1d6b:0104") % 1)
    c.broker.cli("policy", "reload")
    c.back("as 1d6b:0104 again", c.gadget_id("0x0104"), "flash")
    c.gadget_id("0x0d00", between="sleep 2")
    c.left_to_host("flash")


def test_offer(lab):
    """an offer is a signal and is listed, until somebody chooses or it is unplugged; the rule's options hold for who chooses"""
    c = Case(lab, "[rule some]\nMatch=class=storage\nAction=offer guest other\nTransfersInFlight=8\n")
    c.start_guest()
    c.broker.begin_cli("watch", "--json")
    wait("it watches", lambda: "guest" in c.host.run("cat /tmp/cli.begun 2>/dev/null || true"))
    c.host.plug("storage", "stick", image=lab.image(mib=4))
    device = wait_device(c.broker, "stick")
    assert wait("the offer", lambda: c.broker.device(device["name"])["offered_to"]) == ["guest", "other"]
    assert c.broker.device(device["name"])["detail"].endswith("offers it to guest other."), device

    def events():
        return [json.loads(e) for e in c.host.run("grep '\"event\":\"offered\"' /tmp/cli.begun; true").splitlines()]

    wait("the signal", lambda: len(events()) == 1)
    assert events()[0]["name"] == device["name"] and events()[0]["values"]["offered_to"] == ["guest", "other"], events()
    c.broker.cli("attach", device["name"], "guest", "--wait")
    assert c.broker.device(device["name"])["offered_to"] == []
    assert c.broker.vm("guest")["quota"]["transfers-in-flight"]["used"] == 8, c.broker.vm("guest")["quota"]
    c.guest.wait_disk("stick")
    c.broker.cli("detach", device["name"])
    c.broker.wait_state(device["name"], "present")
    assert c.broker.device(device["name"])["offered_to"] == ["guest", "other"]
    c.host.unplug("stick")
    wait("it is gone", lambda: not c.broker.cli("list")["devices"])
    assert len(events()) == 1, events()


def test_an_owner_chooses(lab):
    """an owner of the VM attaches what a rule offers to it, with less if it likes; another user is refused, and what is not offered"""
    c = Case(lab, "[rule some]\nMatch=serial=stick\nAction=offer guest\nTransfersInFlight=8\n")
    c.broker.stop()
    c.broker.files["vms.d/guest.conf"] = VM + "owner=4711\n"
    c.broker.start()
    c.start_guest()
    c.host.push("/etc/passwd", "root:x:0:0::/:/bin/sh\nowner:x:4711:4711::/:/bin/sh\nother:x:4712:4712::/:/bin/sh\n")
    # The way for them is the system bus; an administrator may open the private one as well.
    c.host.run("chmod 666 /run/devbroker/bus")
    for serial in ("stick", "keep"):
        c.host.plug("storage", serial, image=lab.image(f"{serial}.img", mib=4))
    names = {serial: wait_device(c.broker, serial)["name"] for serial in ("stick", "keep")}
    wait("the offer", lambda: c.broker.device(names["stick"])["offered_to"])

    def cli(user, *args):
        return c.host.run(f"su {user} -c 'devbroker --no-color {' '.join(args)} 2>&1'", check=False, timeout=60)

    for user, serial, word in (("other", "stick", "vm guest is somebody else"), ("owner", "keep", "no rule offers it"),
                               ("owner", "stick --allow-firmware", "give a VM more")):
        device, *options = serial.split()
        code, text = cli(user, "attach", names[device], "guest", *options)
        assert code == 9 and word in text, (code, text)
    code, text = cli("owner", "attach", names["stick"], "guest", "--wait", "--read-only")
    assert code == 0, text
    d = c.broker.device(names["stick"])
    assert (d["state"], d["read_only"]) == ("configured", True), d
    assert c.broker.vm("guest")["quota"]["transfers-in-flight"]["used"] == 8, c.broker.vm("guest")["quota"]
    code, text = cli("other", "detach", names["stick"])
    assert code == 9, (code, text)
    code, text = cli("owner", "detach", names["stick"])
    assert code == 0, (code, text)
    records = c.broker.cli("log", "--device", names["stick"])["records"]
    assert [(r["action"], r["uid"]) for r in records if r["uid"]] == [
        ("refused", 4712), ("refused", 4711), ("attach", 4711), ("refused", 4712), ("detach", 4711)], records
    attach = next(r for r in records if r["action"] == "attach")
    assert (attach["vm"], attach["rule"]) == ("guest", "some"), attach
    for user, seen in (("owner", True), ("other", False)):
        assert ("rule some" in cli(user, "log")[1]) == seen, user


def test_one_waits_alone(lab):
    """a device that the host uses is tried again, later and later; others don't wait for it"""
    c = Case(lab, "[rule sticks]\nMatch=class=storage\nAction=attach guest\n")
    image = lab.image("fat.img", mib=16, random=False)
    subprocess.run(["/sbin/mkfs.vfat", image], check=True, stdout=subprocess.DEVNULL)
    c.broker.stop()
    c.host.plug("storage", "used", image=image)
    wait("its disk", lambda: c.host.run("cat /sys/block/sda/size 2>/dev/null; true").strip() == str(16 * 2048))
    c.host.run("mkdir -p /mnt/x; mount -t vfat /dev/sda /mnt/x")
    c.broker.start()
    c.start_guest()
    name = wait_device(c.broker, "used")["name"]
    wait("its note", lambda: "mounted at /mnt/x" in c.broker.device(name)["detail"])
    begin = time.monotonic()
    gadgets.mass_storage(c.host, "flash", mib=1)
    c.back("another one meanwhile", begin, "flash")
    assert c.state("used") == ("present", "")
    c.host.run("umount /mnt/x")
    # At the latest 64 s after the last try.
    c.back("no longer mounted", time.monotonic(), "used", timeout=100)
    # It was said once, however often it was tried.
    assert c.broker.log_text().count("mounted at /mnt/x") == 1, c.broker.log_text()


def test_udev_events(lab):
    """udev properties that are given with "add" or "bind" alone count; a render node has the tag"""
    c = Case(lab, "[rule none]\nMatch=serial=none\nAction=deny\n")
    c.start_guest()
    rule = 'ACTION=="%s", SUBSYSTEM=="usb", ENV{DEVTYPE}=="usb_device", ATTR{serial}=="%s", ENV{DEVBROKER_VM}="guest"\n'
    c.host.udev_rule("90-test.rules", rule % ("add", "added") + rule % ("bind", "bound"))
    for serial in ("added", "bound"):
        begin = time.monotonic()
        c.host.plug("storage", serial, image=lab.image(f"{serial}.img", mib=1))
        c.back(f'property with "{serial}" only', begin, serial)
    c.host.run("modprobe vgem && udevadm settle")
    tags = c.host.run("udevadm info --query=property /dev/dri/renderD128 | cat").splitlines()
    assert [t for t in tags if t.startswith("TAGS=") and ":devbroker:" in t], tags


def test_reload_under_load(lab):
    """rules reloaded over and over, broken ones too, while devices come and go and clients ask: nothing is lost or left"""
    c = Case(lab, "[rule flash]\nMatch=serial=flash\nAction=attach guest\n")
    c.start_guest()
    idle = c.broker.idle()
    gadgets.mass_storage(c.host, "flash", mib=1)
    name = wait_device(c.broker, "flash")["name"]
    c.back("plugged in", time.monotonic(), "flash")
    ours = "devbroker --run-dir /run/devbroker"
    c.host.push("/tmp/reload", f"""
good='[rule flash]\\nMatch=serial=flash\\nAction=attach guest\\n'
n=0 bad=0
until [ -e /tmp/enough ]; do
	case $((n % 3)) in
	0) printf "$good" ;;
	1) printf "[rule other]\\nMatch=vm-state=guest:up serial=none\\nAction=deny\\n$good" ;;
	*) printf "[rule flash]\\nMatch=seriel=flash\\nAction=deny\\n" ;;
	esac >/tmp/rules.new
	mv /tmp/rules.new /etc/devbroker/policy.d/10-lab.conf
	{ours} policy reload >/dev/null 2>&1 || bad=$((bad + 1))
	n=$((n + 1))
	echo $n >/tmp/count
done
echo $n $bad >/tmp/reloads
""")
    c.host.push("/tmp/ask", f"until [ -e /tmp/enough ]; do {ours} list; {ours} explain {name}; {ours} policy check /etc/devbroker; "
                            "done >/dev/null 2>&1; touch /tmp/asked")
    c.host.run("sh /tmp/reload & sh /tmp/ask &")
    plugs, deadline = 0, time.monotonic() + 120
    while plugs < 8 or int(c.host.run("cat /tmp/count 2>/dev/null || echo 0")) < 12:
        assert time.monotonic() < deadline, "it is too slow for 12 reloads"
        c.host.run(f"echo '' >{UDC}; usleep 200000; echo dummy_udc.0 >{UDC}; usleep 900000")
        plugs += 1
    c.host.run("touch /tmp/enough")
    wait("both have ended", lambda: c.host.run("ls /tmp/reloads /tmp/asked 2>/dev/null; true").count("/") == 4, 30)
    n, bad = map(int, c.host.run("cat /tmp/reloads").split())
    lab.note(f"{n} reloads, {bad} of them broken, while it was plugged in {plugs} times")
    assert n // 3 - 1 <= bad <= n // 3 + 1, (n, bad)
    c.back("under reloads", time.monotonic(), "flash")
    wait("it works", lambda: works(c, "flash"), 60)
    c.host.push("/etc/devbroker/policy.d/10-lab.conf", "")
    c.broker.cli("policy", "reload")
    c.broker.wait_state(name, "present")
    c.host.wait_drivers("flash", ["usb-storage"], timeout=30)
    c.broker.check_idle(idle, ["guest"])


if __name__ == "__main__":
    runner.main([sys.modules[__name__]])
