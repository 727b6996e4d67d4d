#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The worked examples of devbroker-policy(5), as they stand in the manual: each decides as its text says, and not otherwise.

Rules are those of the page; devices are made here, one that an example is about and some that it is not about.
"""
import json
import os
import re
import subprocess
import tempfile
import unittest
from pathlib import Path

DEVBROKER = os.environ["DEVBROKER"]
PAGE = Path(__file__).resolve().parents[2] / "docs/devbroker-policy.5.scd"

STORAGE, KEYBOARD, HID, CAMERA, VENDOR = "080650", "030101", "030000", "0e0100", "ff4201"


def device(ids, classes=(VENDOR,), serial="", port="0000:00:14.0-9", removable="removable", **usb):
    """Facts as devbroker show --json prints them."""
    vendor, product = ids.split(":")
    return {"device": {"name": f"usb:{port}", "serial": serial, "speed": "480"},
            "usb": {"vendor_id": vendor, "product_id": product, "manufacturer": "", "product": "", "removable": removable,
                    "device_class": "000000", "interface_classes": list(classes), "interface_classes_complete": True,
                    "descriptor_hash": "1:ffffffffffffffffffffffffffffffff", "udev_properties": [], **usb}}


STICK = device("0781:5567", [STORAGE], serial="4C530001")
PHONE = device("18d1:4ee7", serial="8AXX1")


class Examples(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        text = PAGE.read_text()
        text = text[text.index("\n# EXAMPLES"):text.index("\n# SEE ALSO")]
        cls.examples = {re.search(r"\[rule (\S+)\]", e).group(1): e for e in re.findall(r"```\n(.*?)```", text, re.S)}
        cls.tried = set()

    def setUp(self):
        self.dir = tempfile.TemporaryDirectory(prefix="db-examples-")
        self.addCleanup(self.dir.cleanup)
        self.root = Path(self.dir.name)
        (self.root / "policy.d").mkdir(mode=0o755)

    def decide(self, facts, *options, was=None):
        """(action, VM, rule) of the example that use() chose."""
        files = {"device": facts, **({"was": was} if was else {})}
        words = []
        for name, data in files.items():
            path = self.root / f"{name}.json"
            path.write_text(json.dumps(data))
            words += [f"--{name}", path]
        out = subprocess.run([DEVBROKER, "policy", "test", self.root, *words, *options, "--json"], check=True,
                             stdout=subprocess.PIPE).stdout
        told = json.loads(out)
        rule = re.match(r"Rule (\S+) \(policy.d/50-example.conf:\d+\)", told["why"])
        return told["action"], told["vm"], rule and rule.group(1)

    def use(self, name):
        self.tried.add(name)
        path = self.root / "policy.d/50-example.conf"
        path.write_text(self.examples[name])
        path.chmod(0o644)

    NOTHING = ("hold", "", None)

    def test_one_stick(self):
        self.use("my-stick")
        self.assertEqual(self.decide(STICK), ("attach", "win11", "my-stick"))
        self.assertEqual(self.decide({**STICK, "device": {**STICK["device"], "name": "usb:0000:00:14.0-3.1"}}),
                         ("attach", "win11", "my-stick"))
        self.assertEqual(self.decide(device("0781:5567", [STORAGE], serial="4C530002")), self.NOTHING)
        self.assertEqual(self.decide(device("0781:5568", [STORAGE], serial="4C530001")), self.NOTHING)

    def test_security_keys(self):
        self.use("security-keys")
        for ids in ("1050:0407", "1050:0010", "20a0:42b1", "20a0:42b2"):
            self.assertEqual(self.decide(device(ids, [HID])), ("attach", "signing", "security-keys"))
        for ids in ("1051:0407", "20a0:4108"):
            self.assertEqual(self.decide(device(ids, [HID])), self.NOTHING)

    def test_front_ports(self):
        self.use("front")
        for port in ("0000:00:14.0-1", "0000:00:14.0-1.2", "0000:00:14.0-1.4.3"):
            self.assertEqual(self.decide(device("0781:5567", port=port)), ("attach", "kiosk", "front"))
        for port in ("0000:00:14.0-2", "0000:00:14.0-11", "0000:00:1a.0-1", "0000:00:14.0-2.1"):
            self.assertEqual(self.decide(device("0781:5567", port=port)), self.NOTHING)
        self.assertEqual(self.decide(device("0781:5567", port="0000:00:14.0-1", removable="fixed")), self.NOTHING)

    def test_keyboards(self):
        self.use("keyboards")
        self.assertEqual(self.decide(device("046d:c31c", [KEYBOARD])), ("ignore", "", "keyboards"))
        # A stick that types as well.
        self.assertEqual(self.decide(device("0781:5567", [STORAGE, KEYBOARD])), ("ignore", "", "keyboards"))
        self.assertEqual(self.decide(device("046d:c077", ["030102"])), self.NOTHING)

    def test_phone(self):
        self.use("phone")
        self.assertEqual(self.decide(PHONE), ("attach", "android", "phone"))
        for ids in ("18d1:4ee0", "18d1:d00d"):
            # Known by what was there before it alone.
            self.assertEqual(self.decide(device(ids)), self.NOTHING)
            self.assertEqual(self.decide(device(ids), was=PHONE), ("attach", "android", "phone"))
            self.assertEqual(self.decide(device(ids), was=STICK), self.NOTHING)
        self.assertEqual(self.decide(device("18d1:4ee1"), was=PHONE), self.NOTHING)
        self.assertEqual(self.decide(device("18d1:4ee7", serial="another")), self.NOTHING)

    def test_storage(self):
        self.use("known-storage")
        self.assertEqual(self.decide(STICK), ("attach", "office", "known-storage"))
        self.assertEqual(self.decide(device("abcd:0001", [STORAGE], descriptor_hash="1:00112233445566778899aabbccddeeff")),
                         ("attach", "office", "known-storage"))
        self.assertEqual(self.decide(device("abcd:0001", [STORAGE])), ("attach", "office", "unknown-storage"))
        self.assertEqual(self.decide(device("abcd:0001", [CAMERA])), self.NOTHING)
        unknown = self.examples["known-storage"].split("[rule unknown-storage]")
        self.assertIn("ReadOnly=yes", unknown[1])
        self.assertNotIn("ReadOnly", unknown[0])

    def test_bad_stick(self):
        self.use("bad-stick")
        self.assertEqual(self.decide(device("0781:5567", [STORAGE, KEYBOARD])), ("deny", "", "bad-stick"))
        self.assertEqual(self.decide(STICK), self.NOTHING)
        self.assertEqual(self.decide(device("046d:c31c", [KEYBOARD])), self.NOTHING)

    def test_cameras(self):
        self.use("cameras")
        camera = device("046d:0825", [CAMERA])
        self.assertEqual(self.decide(camera, "--vms", "meeting:up"), ("offer", "", "cameras"))
        self.assertEqual(self.decide(camera, "--vms", "meeting:gone,other:up"), self.NOTHING)
        self.assertEqual(self.decide(camera), self.NOTHING)
        self.assertEqual(self.decide(STICK, "--vms", "meeting:up"), self.NOTHING)

    @classmethod
    def tearDownClass(cls):
        # An example that nobody tries could say anything.
        if cls.tried != set(cls.examples):
            raise AssertionError(f"examples without a test: {set(cls.examples) - cls.tried}")


if __name__ == "__main__":
    unittest.main(verbosity=2)
