# SPDX-License-Identifier: MIT
"""A real terminal: tmux with a server of its own and a shell in it; what is typed, what is seen, and a picture of that."""
import html
import os
import re
import shlex
import subprocess
import unicodedata

from guest import LabError, wait

SHELL = ["bash", "--norc", "--noprofile", "-i"]
PROMPT = "ready> "
CELL = 8.4, 18  # of 14 pixels' type
MARGIN = 12
STYLES = {"1": "b", "31": "r", "32": "g", "33": "y"}
CSS = ("text{font:14px 'DejaVu Sans Mono',Menlo,Consolas,monospace;fill:#d4d4d4}"
       ".b{font-weight:bold}.r{fill:#f14c4c}.g{fill:#4ec07a}.y{fill:#e5c453}")


class Terminal:
    def __init__(self, folder, columns, rows, env=()):
        self.tmux = ["tmux", "-S", str(folder / "tmux")]
        shell = ["env", "-u", "TMUX", "TERM=screen-256color", f"PS1={PROMPT}", *env, *SHELL]
        # Its status line would take a row.
        (folder / "tmux.conf").write_text("set -g status off\n")
        subprocess.run([*self.tmux, "-u", "-f", str(folder / "tmux.conf"), "new-session", "-d", "-x", str(columns), "-y",
                        str(rows), shlex.join(shell)], check=True, env={**os.environ, "LC_ALL": "C.UTF-8"})
        try:
            wait("a shell", lambda: self.lines()[:1] == [PROMPT.rstrip()])
        except LabError:
            self.close()
            raise

    def _call(self, *words):
        return subprocess.run([*self.tmux, *words], check=True, stdout=subprocess.PIPE, text=True,
                              env={**os.environ, "LC_ALL": "C.UTF-8"}).stdout

    def photo(self):
        """What is on the screen, with its colours."""
        return self._call("capture-pane", "-p", "-e")

    def lines(self):
        """What is on the screen as text, up to the last line with something on it."""
        return self._call("capture-pane", "-p").rstrip("\n").split("\n")

    def keys(self, *names):
        """Types them: characters or tmux's names of keys."""
        self._call("send-keys", *names)

    def type(self, line):
        self._call("send-keys", "-l", line)
        self.keys("Enter")

    def wait_shell(self):
        wait("the shell", lambda: self.lines()[-1] == PROMPT.rstrip())

    def clear(self):
        """For a shell that waits for a line."""
        self.type("clear")
        wait("an empty screen", lambda: self.lines() == [PROMPT.rstrip()])

    def resize(self, columns, rows):
        self._call("resize-window", "-x", str(columns), "-y", str(rows))

    def flags(self):
        """Whether a program has taken the screen; whether the cursor is seen; whether long lines wrap."""
        return tuple(word == "1" for word in
                     self._call("display-message", "-p", "#{alternate_on} #{cursor_flag} #{wrap_flag}").split())

    def wait_line(self, pattern, timeout=20):
        """Waits until a whole line matches; returns the match."""
        def found():
            return next((m for m in (re.fullmatch(pattern, line) for line in self.lines()) if m), None)
        try:
            return wait(f"a line {pattern!r}", found, timeout)
        except LabError as e:
            raise LabError(f"{e}; the screen:\n" + "\n".join(self.lines()))

    def close(self):
        subprocess.run([*self.tmux, "kill-server"], stderr=subprocess.DEVNULL)


def width(text):
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 0 if unicodedata.combining(c) else 1 for c in text)


def runs(photo):
    """Of each line what is in one style: (column, classes, text)."""
    for line in photo.rstrip("\n").split("\n"):
        out, at, style = [], 0, set()
        for code, text in re.findall(r"\033\[([0-9;]*)m|([^\033]+)", line):
            if text:
                out.append((at, " ".join(sorted(style)), text))
                at += width(text)
                continue
            for n in code.split(";"):
                style = (set() if n in ("", "0") else style - {"r", "g", "y"} if n == "39" else
                         style | ({STYLES[n]} if n in STYLES else set()))
        yield out


def picture(photo, columns, rows):
    """A photo as SVG."""
    (w, h), lines = CELL, []
    for y, line in enumerate(runs(photo)):
        for at, classes, text in line:
            # Each cell at its own place: several blanks are one in SVG, and fonts differ.
            for cell in re.finditer(r"\S+(?: \S+)*", text):
                x, style = MARGIN + (at + width(text[:cell.start()])) * w, f' class="{classes}"' if classes else ""
                lines.append(f'<text x="{x:.1f}" y="{MARGIN + y * h + 14}"{style} textLength="{width(cell[0]) * w:.1f}">'
                             f"{html.escape(cell[0], quote=False)}</text>")
    size = f"{columns * w + 2 * MARGIN:.0f}", f"{rows * h + 2 * MARGIN:.0f}"
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{size[0]}" height="{size[1]}" viewBox="0 0 {size[0]} {size[1]}">\n'
            f'<style>{CSS}</style>\n<rect width="100%" height="100%" rx="6" fill="#1e1e1e"/>\n' + "\n".join(lines) +
            "\n</svg>\n")
