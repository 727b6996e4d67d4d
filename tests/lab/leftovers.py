# SPDX-License-Identifier: MIT
"""What a test leaves behind: processes that lost their parent, as a worker does whose broker is killed.

The tests of a program run in a child of it. The program itself is where orphans go, and has no other children: so all that
it has besides the tests was left by one of them, whatever sessions and namespaces it is in.
"""
import ctypes
import os
import signal
import time
import unittest
from pathlib import Path

from guest import die_with_parent

PR_SET_CHILD_SUBREAPER = 36
# For what is ending: a worker that lost its broker, its guest and its device at once.
END_TIMEOUT = 5
_watched = False


def watch_over():
    """To be called once, before anything is started; what comes after it is done by the child."""
    global _watched
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    tests = os.fork()
    if tests == 0:
        die_with_parent()
        _watched = True
        return
    signal.signal(signal.SIGTERM, lambda *_: os.kill(tests, signal.SIGKILL))
    # A ^C is for both.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    status = _reap_until(tests)
    for pid in _children(os.getpid()):
        os.kill(pid, signal.SIGKILL)
    os._exit(max(os.waitstatus_to_exitcode(status), 0) or int(os.WIFSIGNALED(status)))


def _reap_until(pid):
    while True:
        ended, status = os.wait()
        if ended == pid:
            return status


def _children(pid):
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def left():
    """pid → command line of what was left and has not ended yet."""
    found = {}
    for pid in _children(os.getppid()) if _watched else []:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        # Without one: it has ended already.
        if pid != os.getpid() and words[0]:
            found[pid] = b" ".join(words).decode(errors="replace").strip()
    return found


def _wait_none(timeout):
    deadline = time.monotonic() + timeout
    while (found := left()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def end_workers():
    """Of a broker that was killed for good: nobody would end them for minutes."""
    for pid, command in left().items():
        if os.path.basename(command.split()[0]).startswith("devbroker-"):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


def check():
    """A list of what is still there when what is ending has had its time, for people; "": nothing. It is ended then."""
    found = _wait_none(END_TIMEOUT)
    for pid in found:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    _wait_none(END_TIMEOUT)
    return "\n".join(f"left behind: {pid} {command}" for pid, command in found.items())


class Checked:
    """A result's other base, before unittest's: a test that leaves a process behind has failed."""

    def addSuccess(self, test):
        said = check()
        if said:
            self.addFailure(test, (AssertionError, AssertionError(said), None))
        else:
            super().addSuccess(test)

    def stopTest(self, test):
        # Nothing of a test that has failed disturbs the next one.
        check()
        super().stopTest(test)


class Result(Checked, unittest.TextTestResult):
    pass


def main(verbosity=1):
    """unittest.main for tests that start processes."""
    watch_over()
    unittest.main(verbosity=verbosity, testRunner=unittest.TextTestRunner(verbosity=verbosity, resultclass=Result))
