#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""devbroker top in a real terminal, while two real guests draw in 3D and one of them reads from a disk."""
import re
import shlex
import sys
import time
import xml.etree.ElementTree
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lab"))
import runner
from guest import LabError, wait
from terminal import PROMPT, Terminal, picture
from test_gpu_guest import Cube, configure
from test_gpu_guest_3d import wait_for

PICTURE = runner.SOURCE / "build/top.svg"
COLUMNS, ROWS = 120, 36
PICTURE_ROWS = 10
PHOTOS = 6
MEMORY_MIB = 256
CONTEXTS = 16
FRAME_RATE = 30
ABSENT = "build-server-whose-name-is-much-too-long-for-a-narrow-screen"
VM_TITLES = ["VM", "STATE", "DEVICES", "USB MB/s", "TRANSFERS/s", "GPU TIME", "SHARE", "WAITED", "GPU MEMORY", "FPS",
             "CONTEXTS", "REFUSED"]
DEVICE_TITLES = ["DEVICE", "VM", "IN MB/s", "OUT MB/s", "TRANSFERS/s", "P50", "P99", "IN FLIGHT", "ERRORS", "REFUSED",
                 "DESCRIPTION"]
NARROW = ["VM", "STATE", "USB MB/s", "GPU TIME", "GPU MEMORY", "FPS", "CONTEXTS", "REFUSED"]
RED = r"\033\[1m\033\[31m|\033\[1;31m|\033\[31m\033\[1m"


class Seen:
    """One look at the screen: the tables' rows by name, each as {title: text}."""

    def __init__(self, lines):
        self.lines, self.tables, titles = lines, {}, None
        for line in lines[1:]:
            words = re.split(r" {2,}", line.strip())
            if not line or re.match("(q|Ctrl-C) quits", line):
                titles = None
            elif words[0] in ("VM", "DEVICE"):
                titles, rows = words, self.tables.setdefault(words[0], {})
                self.tables[words[0] + " titles"] = words
            elif titles:
                if len(words) != len(titles):
                    raise LabError(f"{len(words)} cells below {len(titles)} titles: {line!r}\n" + "\n".join(lines))
                rows[words[0]] = dict(zip(titles, words))

    def names(self):
        """The VMs' in their order, the long one by whatever is left of it."""
        cut = ABSENT[0] + ".*…"
        return [ABSENT if re.match(cut, name) and ABSENT.endswith(name.split("…")[1]) else name for name in self.tables["VM"]]

    def vm(self, name):
        return list(self.tables["VM"].values())[self.names().index(name)]

    def device(self, name):
        return self.tables["DEVICE"][name]


def look(t):
    return Seen(t.lines())


def number(text):
    """The first one in a cell."""
    return float(re.match(r"<?([0-9.]+)", text)[1])


def wait_seen(t, what, condition, timeout=30):
    """Waits for a screen of which condition holds; one that is not complete yet is none."""
    def good():
        try:
            seen = look(t)
            return seen if condition(seen) else None
        except (KeyError, ValueError):
            return None
    try:
        return wait(what, good, timeout)
    except LabError as e:
        raise LabError(f"{e}; the screen:\n" + "\n".join(t.lines()))


def files(lab):
    out = configure("debian", "win11", memory=f"{MEMORY_MIB}M", virgl="yes", share="fair:50%", contexts=CONTEXTS,
                    frame_rate=FRAME_RATE)
    for name in ("debian", "win11"):
        out[f"vms.d/{name}.conf"] = out[f"vms.d/{name}.conf"].replace(f"/nonexistent/{name}.qmp",
                                                                      str(lab.work / name / "broker.qmp"))
    out[f"vms.d/{ABSENT}.conf"] = "[vm]\nqmp=/nonexistent/x.qmp\n"
    return out


def begin_work(lab, b, cubes):
    """Both draw, and the second one reads its disk again and again."""
    win11 = cubes[1].guest
    for cube in cubes:
        b.wait_vm(cube.screen.name, "up")
        cube.begin()
    b.cli("disk", "add", lab.image("stick.img", 64), "--name", "stick")
    device = b.cli("attach", "stick", "win11", "--wait")["device"]
    disk = win11.wait_disk(device["serial"])
    win11.run(f"while :; do dd if=/dev/{disk} of=/dev/null bs=64k iflag=direct 2>/dev/null; done &")


def busy(seen):
    stick = seen.device("disk:stick")
    return (number(stick["IN MB/s"]) > 0 and stick["P99"] != "-" and stick["VM"] == "win11" and
            all(number(seen.vm(name)["GPU TIME"]) > 0 and number(seen.vm(name)["FPS"]) > 0 and
                number(seen.vm(name)["CONTEXTS"]) >= 1 for name in ("debian", "win11")))


def check_photo(lab, seen):
    """What holds of each screen; all that there is fits into it."""
    if seen.tables["VM titles"] != VM_TITLES or not set(seen.tables["DEVICE titles"]) <= set(DEVICE_TITLES):
        raise LabError(f"titles: {seen.tables}")
    if seen.names() != [ABSENT, "debian", "win11"]:
        raise LabError(f"VMs: {seen.names()}")
    for name in ("debian", "win11"):
        vm = seen.vm(name)
        used, limit = re.fullmatch(r"([0-9.]+)/(\d+) MiB", vm["GPU MEMORY"]).groups()
        if not 0 < float(used) <= float(limit) == MEMORY_MIB or vm["STATE"] != "up" or vm["SHARE"] != "fair:50%" or \
                vm["CONTEXTS"].split("/")[1] != str(CONTEXTS) or vm["FPS"].split("/")[1] != str(FRAME_RATE) or \
                number(vm["FPS"]) > 1.3 * FRAME_RATE or number(vm["GPU TIME"]) > 100:
            raise LabError(f"{name}: {vm}")
    absent = seen.vm(ABSENT)
    if absent["STATE"] != "gone" or any(absent[title] != "-" for title in VM_TITLES[5:]):
        raise LabError(f"a VM without a GPU that is not there: {absent}")
    if number(seen.vm("win11")["USB MB/s"]) <= 0 or seen.vm("win11")["DEVICES"] != "1" or \
            seen.vm("debian")["USB MB/s"] != "0.0":
        raise LabError(f"USB: {seen.tables['VM']}")


def check_numbers(lab, b, seen):
    """What stands there is what the broker says elsewhere."""
    for name in ("debian", "win11"):
        gpu, vm = b.cli("gpu", "show", name)["gpu"], seen.vm(name)
        if abs(number(vm["GPU MEMORY"]) - gpu["memory_bytes"] / (1 << 20)) > 16 or \
                number(vm["CONTEXTS"]) != gpu["contexts"] or number(vm["REFUSED"]) != gpu["refused"]:
            raise LabError(f"{name}: {vm}, and {gpu}")


def photographs(lab, b, t):
    wait_seen(t, "two busy VMs", busy, 60)
    shots = []
    for _ in range(PHOTOS):
        seen = look(t)
        check_photo(lab, seen)
        shots.append(seen)
        time.sleep(1.1)
    check_numbers(lab, b, seen)
    if sum(map(busy, shots)) < PHOTOS - 1:
        raise LabError("idle in " + "\n".join("\n".join(s.lines) for s in shots))
    for name, title in (("debian", "FPS"), ("win11", "FPS"), ("win11", "USB MB/s"), ("win11", "GPU TIME")):
        if len({s.vm(name)[title] for s in shots}) < 2:
            raise LabError(f"{name}: {title} is always {shots[0].vm(name)[title]}")
    if len({s.lines[0][:24] for s in shots}) != PHOTOS:
        raise LabError(f"its clock: {[s.lines[0] for s in shots]}")
    vm, stick = shots[-1].vm("win11"), shots[-1].device("disk:stick")
    lab.note(f"win11: GPU {vm['GPU TIME']}, {vm['GPU MEMORY']}, {vm['FPS']} frames/s; stick: {stick['IN MB/s']} MB/s, "
             f"{stick['TRANSFERS/s']} transfers/s, 99 of 100 in {stick['P99']}")


def bomb(lab, t, guest):
    """What is refused is counted, in red while it grows; of the other VM nothing is. Returns such a photo."""
    t.resize(COLUMNS, PICTURE_ROWS)
    guest.run("( while :; do gpubomb huge 3; done ) >/dev/null 2>&1 & echo $! >/tmp/bomb")

    def red():
        photo = t.photo()
        line = next((line for line in photo.split("\n") if line.startswith("debian")), "")
        # Of many lines in this photo the last cell of the right one.
        return photo if re.search(rf"(?:{RED})\d+[^0-9]*$", line) and number(look(t).vm("debian")["REFUSED"]) >= 3 else None
    photo = wait_for("refusals in red", red, 60)
    t.resize(COLUMNS, ROWS)
    guest.run("kill $(cat /tmp/bomb); while pidof gpubomb >/dev/null; do sleep 0.1; done")
    still = wait_seen(t, "refusals that stay", lambda s: number(s.vm("debian")["REFUSED"]) >= 3)
    if still.vm("win11")["REFUSED"] != "0":
        raise LabError(f"the other VM: {still.vm('win11')}")
    lab.note(f"{still.vm('debian')['REFUSED']} refusals of a program that wanted 16384x16384 textures")
    return photo


def save(photo):
    """As a picture for people, which says the same: docs/pictures/top.svg is one."""
    svg = picture(photo, COLUMNS, PICTURE_ROWS)
    words = " ".join(e.text or "" for e in xml.etree.ElementTree.fromstring(svg).iter())
    for word in ("devbroker top", "debian", "win11", "disk:stick", "fair:50%"):
        if word not in words:
            raise LabError(f"no {word} in the picture")
    PICTURE.write_text(svg)


def sorts(t):
    """By name it begins with debian; by what goes over USB with win11."""
    def first(name):
        return lambda s: s.names()[0] == name
    t.keys("u")
    wait_seen(t, "by USB", first("win11"), 5)
    t.keys("n")
    wait_seen(t, "by name", first(ABSENT), 5)
    t.keys("g")
    wait_seen(t, "by GPU", lambda s: s.names()[2] == ABSENT, 5)
    t.keys("n")


def narrow(t):
    """Less of it, and nothing in pieces; what does not fit is there when one looks for it."""
    t.resize(80, 24)
    seen = wait_seen(t, "80 columns", lambda s: s.tables["VM titles"] == NARROW, 10)
    for line in seen.lines:
        if len(line) > 80:
            raise LabError(f"{len(line)} columns: {line}")
    if seen.names() != [ABSENT, "debian", "win11"] or \
            len(seen.lines) != 24 or "…" in "".join(seen.tables["DEVICE titles"]) or "disk:stick" not in seen.tables["DEVICE"]:
        raise LabError("\n".join(seen.lines))
    t.resize(80, 7)
    wait("some lines", lambda: len(t.lines()) == 7 and "lines 1-5 of 7" in t.lines()[6])
    if t.lines()[1].split()[0] != "VM":
        raise LabError("\n".join(t.lines()))
    t.keys("Down", "F5", "Down", "Up")  # at once, as a slow line brings them
    wait("the next lines", lambda: "lines 2-6 of 7" in t.lines()[6])
    t.keys("NPage")
    wait("the last lines", lambda: "lines 3-7 of 7" in t.lines()[6] and t.lines()[5].startswith("disk:stick"))
    if t.lines()[1].split()[0] != "VM" or any(line.startswith("debian") for line in t.lines()):
        raise LabError("no titles above what is scrolled:\n" + "\n".join(t.lines()))
    t.resize(20, 4)
    wait("four lines", lambda: len(t.lines()) == 4 and all(len(line) <= 20 for line in t.lines()))
    t.resize(COLUMNS, ROWS)
    wait_seen(t, "all of it", lambda s: s.tables["VM titles"] == VM_TITLES, 10)


def begin(t, command):
    """Types it, and waits until it shows something."""
    t.clear()
    t.type(command)
    wait_seen(t, command, lambda s: t.flags()[0] and s.vm("debian"))


def settings(t):
    """What the terminal is set to, by its own word."""
    t.clear()
    t.type("stty -a")

    def said():
        lines = t.lines()
        return " ".join(lines[1:-1]) if lines[-1] == PROMPT.rstrip() and "extproc" in "".join(lines[-2:-1]) else None
    return wait("its settings", said)


def expect_shell(t, code, before):
    """It is over with that exit code, and the terminal is as it was before."""
    wait("its end, with a cursor and lines that wrap", lambda: t.flags() == (False, True, True))
    t.wait_shell()
    t.type("echo code: $?")
    t.wait_line(f"code: {code}")
    t.wait_shell()
    after = settings(t)
    if after != before:
        raise LabError(f"before: {before}\nafter: {after}")


def stopped(t, before):
    """Ctrl-Z gives the shell its terminal back; fg goes on."""
    t.keys("C-z")
    t.wait_line(r"\[1\]\+ +Stopped .*")
    t.wait_shell()
    if settings(t) != before or t.flags() != (False, True, True):
        raise LabError(f"while it is stopped: {t.flags()}, {settings(t)}")
    t.type("fg")
    wait_seen(t, "it goes on", lambda s: busy(s) and t.flags() == (True, False, False))


def other_ways(t, command, before):
    """Without colours; without keys; not as JSON; into a pipe; with a wrong order."""
    begin(t, f"NO_COLOR=1 {command} top --delay 1 --order gpu")
    if "\033[" in t.photo():
        raise LabError(f"colours in spite of NO_COLOR: {t.photo()!r}")
    t.keys("q")
    expect_shell(t, 0, before)
    begin(t, f"{command} top </dev/null")
    time.sleep(1.5)
    if not t.flags()[0] or not t.lines()[-1].startswith("Ctrl-C quits"):
        raise LabError(f"where nobody can type: {t.lines()}")
    t.keys("C-c")
    expect_shell(t, 0, before)
    for wrong in ("--json", "--order size"):
        t.clear()
        t.type(f"{command} top {wrong}; echo code: $?")
        t.wait_line("code: 2")
        t.wait_shell()
    t.clear()
    t.type(f"{command} top | cat -v; TERM=dumb {command} top")
    wait("two tables and two again", lambda: [w.split()[0] for w in t.lines() if w].count("disk:stick") == 2)
    if "^[" in "".join(t.lines()):
        raise LabError("\n".join(t.lines()))
    t.wait_shell()


def broker_ends(lab, b, t, command, before):
    """It says why it is over where that can be read."""
    begin(t, f"{command} top")
    if b.stop() != 0:
        raise LabError("devbrokerd did not stop cleanly")
    t.wait_line("devbroker: devbrokerd closed the connection")
    expect_shell(t, 3, before)


def test_top(lab):
    """two guests that draw, and a disk that is read, in a terminal of 120x36, 80x24 and less: right, in order, and left as found"""
    b = lab.start_broker(files(lab))
    cubes = [Cube(lab, name) for name in ("debian", "win11")]
    begin_work(lab, b, cubes)
    command = shlex.join(b.command())
    t = Terminal(lab.work, COLUMNS, ROWS)
    try:
        before = settings(t)
        begin(t, f"{command} top")
        photographs(lab, b, t)
        save(bomb(lab, t, cubes[0].guest))
        sorts(t)
        narrow(t)
        stopped(t, before)
        t.keys("q")
        expect_shell(t, 0, before)
        other_ways(t, command, before)
        broker_ends(lab, b, t, command, before)
    finally:
        t.close()


if __name__ == "__main__":
    runner.main([sys.modules[__name__]])
