# SPDX-License-Identifier: MIT
"""devbrokerd and devbroker inside the host in a VM. What can be asked of it is what Broker has; only the way is another."""
import shlex

from broker import Broker
from guest import LabError

CONFIG, RUN, STATE, LOG = "/etc/devbroker", "/run/devbroker", "/tmp/state", "/run/devbrokerd.log"


class HostBroker(Broker):
    def __init__(self, host, files=None, log_level="info"):
        self.host = host
        self.files = files or {}
        self.process = None  # its pid in there
        self.log_level = log_level

    def start(self, timeout=20):
        h = self.host
        h.run(f"mkdir -p {CONFIG}/vms.d {CONFIG}/disks.d")
        for name, text in self.files.items():
            h.push(f"{CONFIG}/{name}", text)
        self.process = int(h.run(f"devbrokerd --config {CONFIG} --run-dir {RUN} --state-dir {STATE} --libexec /opt/libexec --log-level "
                                 f"{self.log_level} >>{LOG} 2>&1 & echo $!"))
        h.run(f"i=0; until devbroker --run-dir {RUN} status >/dev/null 2>&1; do [ -d /proc/{self.process} ] && "
              f"[ $i -lt {timeout * 10} ] || break; i=$((i + 1)); usleep 100000; done", timeout=2 * timeout)
        if h.run(f"[ -d /proc/{self.process} ]", check=False)[0] != 0:
            raise LabError("devbrokerd did not start: " + self.log_text()[-500:])
        return self

    def log_text(self):
        try:
            return self.host.run(f"cat {LOG}", timeout=10, check=False)[1]
        except (LabError, OSError, AttributeError):
            return ""

    def run_cli(self, args, timeout):
        words = " ".join(shlex.quote(str(a)) for a in args)
        code, text = self.host.run(f"( devbroker --run-dir {RUN} {words} 2>/tmp/cli.err || {{ c=$?; cat /tmp/cli.err; "
                                   "exit $c; } )", timeout=timeout, check=False)
        return (code, text, "") if code == 0 else (code, "", text)

    def begin_cli(self, *args):
        """Starts it in the background."""
        words = " ".join(shlex.quote(str(a)) for a in args)
        self.host.run(f"devbroker --run-dir {RUN} {words} >/tmp/cli.begun 2>&1 &")

    def children(self):
        out = {}
        for stat in self.host.run("cat /proc/[0-9]*/stat 2>/dev/null; true").splitlines():
            name, rest = stat[stat.index("(") + 1:stat.rindex(")")], stat[stat.rindex(")") + 2:].split()
            if int(rest[1]) == self.process:
                out[int(stat.split()[0])] = (name, rest[0])
        return out

    def workers(self):
        """Pids of all its devbroker-usb, with their spawner's too."""
        out = self.host.run("for p in /proc/[0-9]*; do [ \"$(cat $p/comm 2>/dev/null)\" = devbroker-usb ] && echo ${p#/proc/}; "
                            "done; true")
        return [int(pid) for pid in out.split()]

    def fds(self):
        return int(self.host.run(f"ls /proc/{self.process}/fd | wc -l"))

    def rss_kib(self, pid=None):
        return int(self.host.run(f"grep VmRSS /proc/{pid or self.process}/status").split()[1])

    def stop(self, timeout=15):
        pid, self.process = self.process, None
        return self.host.run(f"kill -TERM {pid}; wait {pid}", timeout=timeout, check=False)[0]

    def kill(self):
        if self.process:
            self.host.run(f"kill -KILL {self.process}; wait {self.process}", check=False)
            self.process = None
