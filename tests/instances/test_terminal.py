"""A guest's terminal: one of its own where all three descriptors are one, else the caller's; under a real shell."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time

import pytest
from support.sandbox import wait_for


class Shell:
    """An interactive bash on a terminal of its own, typed at and read from."""

    def __init__(self, env, argv=("bash", "--norc", "--noprofile", "-i")):
        self.master, slave = pty.openpty()
        self.size(24, 80)

        def lead():
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            argv,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**env, "PS1": "$ ", "TERM": "dumb"},
            cwd="/",
            preexec_fn=lead,  # noqa: PLW1509  (no threads here)
        )
        os.close(slave)
        self.seen = ""

    def size(self, rows, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text):
        os.write(self.master, text.encode())

    def expect(self, pattern, seconds=30.0):
        """Read until ``pattern`` comes; return the match and drop what went before its end."""
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self.seen)):
            assert time.monotonic() < end, f"{pattern!r} never came: {self.seen!r}"
            if select.select([self.master], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self.master, 65536).decode(errors="replace")
                except OSError:
                    raise AssertionError(f"the terminal ended: {self.seen!r}") from None
        self.seen = self.seen[found.end() :]
        return found

    def end(self):
        for _ in range(2):
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            self.process.wait(30)
        if self.master >= 0:
            os.close(self.master)
            self.master = -1


@pytest.fixture
def shell(layerrun):
    """A function from who to a shell of theirs in which ``L`` is layerrun."""
    made = []

    def make(who=None):
        start = who.prefix() if who else []
        one = Shell(layerrun.env(who), [*start, "bash", "--norc", "--noprofile", "-i"])
        made.append(one)
        one.type(f"L={layerrun.argv(user=who)[len(start)]}; stty -echo; echo up$((1))\n")
        # A size that is set before the prompt is there may be lost: readline reads the terminal's and sets it again.
        one.expect(r"up1\r\n\$ ")
        return one

    yield make
    for one in made:
        one.end()


def quiet(apps, who, pattern):
    """Wait until no process of the app has ``pattern`` in its command line."""
    wait_for(
        lambda: (
            not any(pattern in p["command"] for p in apps.ps(who).get("a", {"processes": []})["processes"])
        )
    )


def busy(apps, who):
    """Wait until the app's sleep runs: a shell that is about to start one can lose a Ctrl-C."""

    def there():
        return any(p["command"] == "sleep 777" for p in apps.ps(who).get("a", {"processes": []})["processes"])

    wait_for(there)


def test_its_own(apps, shell, either):
    """Its name, its size from the first moment on and at every change, its being the controlling one."""
    apps.first(user=either)
    one = shell(either)
    one.size(31, 97)
    look = "tty; stty size; test -t 0 && : </dev/tty && echo ctty; read x; stty size; exit 7"
    one.type(f"$L app a -- sh -c '{look}'; echo S=$?\n")
    assert one.expect(r"(/dev/pts/\d+)\r\n")
    one.expect(r"31 97\r\n")
    one.expect(r"ctty\r\n")
    one.size(40, 120)
    wait_for(lambda: one.type("\n") or one.expect(r"(\d+ \d+)\r\n"))
    one.expect("S=7")


def test_a_size_comes_across(apps, shell):
    apps.first()
    one = shell()
    # Without a trap of its own bash may take a Ctrl-C for stty's, and go on.
    script = 'trap "exit 130" INT; trap "stty size" WINCH; echo ready; while :; do :; done'
    one.type(f"$L app a -- bash -c '{script}'; echo S=$?\n")
    one.expect("ready")
    one.size(12, 34)
    one.expect(r"12 34\r\n")
    one.type("\x03")
    one.expect("S=130")


@pytest.mark.parametrize("times", [3])
def test_the_size_is_there_at_once(apps, shell, times):
    one = shell()
    one.size(17, 71)
    for _ in range(times):
        one.type("$L app a -- stty size; echo S=$?\n")
        one.expect(r"17 71\r\n")
        one.expect("S=0")


@pytest.mark.parametrize("joined", [False, True])
def test_interrupt(apps, shell, either, joined):
    if joined:
        first = apps.first(user=either)
    one = shell(either)
    one.type("$L app a -- sh -c 'echo ready; sleep 777; echo no'; echo S=$?\n")
    one.expect("ready")
    busy(apps, either)
    one.type("\x03")
    one.expect("S=130")
    quiet(apps, either, "777")
    if joined:
        assert first.poll() is None


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("pipe", ["", " | cat"])
def test_suspend_and_go_on(apps, shell, either, joined, pipe):
    if joined:
        apps.first(user=either)
    one = shell(either)
    # No sleep: between vfork(2) and exec a child that is stopped keeps its parent from being stopped, anywhere.
    script = "echo ready; while [ ! -e /tmp/end ]; do :; done; rm /tmp/end; echo out; exit 9"
    one.type(f"$L app a -- sh -c '{script}'{pipe}; echo S=${{PIPESTATUS[0]}}\n")
    one.expect("ready")
    one.type("\x1a")
    one.expect("Stopped")
    one.expect(r"\$ ")
    one.type("stty -a | grep -o -- '-*icanon'; jobs; echo J=$?\n")
    one.expect(r"\bicanon")
    one.expect("J=0")
    one.type("fg; echo F=${PIPESTATUS[0]}\n")
    one.expect(r"\n")
    apps.run(": >/tmp/end", user=either, verb="enter")
    one.expect("out")
    one.expect("F=0" if pipe else "F=9")


@pytest.mark.parametrize("joined", [False, True])
def test_in_the_background(apps, shell, joined):
    if joined:
        apps.first()
    one = shell()
    one.type("$L app a -- sh -c 'echo started; while [ ! -e /tmp/end ]; do sleep 0.05; done; exit 5' &\n")
    one.expect("started")
    one.type("echo mine$((40+2))\n")
    one.expect("mine42")
    apps.run(": >/tmp/end", verb="enter")
    one.type("wait %1; echo W=$?\n")
    one.expect("W=5")


@pytest.mark.parametrize("joined", [False, True])
def test_the_end_of_the_input(apps, shell, joined):
    if joined:
        apps.first()
    one = shell()
    one.type("$L app a -- cat; echo S=$?\n")
    one.type("line\n")
    one.expect("line")
    one.type("\x04")
    one.expect("S=0")
    one.type("$L app a -- cat </dev/null; echo S=$?\n")
    one.expect("S=0")


@pytest.mark.parametrize("joined", [False, True])
def test_mixed(apps, shell, either, joined):
    """stdin a terminal and stdout a pipe, and the other way round."""
    if joined:
        apps.first(user=either)
    one = shell(either)
    one.type(
        "$L app a -- sh -c 'echo ready; read x; echo got $x; exit 3' | tr a-z A-Z; echo S=${PIPESTATUS[0]}\n"
    )
    one.expect("READY")
    one.type("hello\n")
    one.expect("GOT")
    one.expect("S=3")
    one.type("echo through | $L app a -- sh -c 'cat; test -t 1 && echo tty; exit 4'; echo S=$?\n")
    one.expect(r"through\r\ntty\r\nS=4")
    # Ctrl-C reaches all of the command's group, as it would without layerrun.
    one.type("$L app a -- sh -c 'echo ready; sleep 777; echo no' | cat\n")
    one.expect("ready")
    busy(apps, either)
    one.type("\x03")
    one.expect(r"\$ ")
    one.type("echo S=${PIPESTATUS[0]}\n")
    one.expect("S=130")
    quiet(apps, either, "777")


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("pipe", ["", " | cat"])
def test_the_terminal_goes(apps, shell, either, joined, pipe):
    """As when a window is closed: what was started in it ends, nothing else."""
    if joined:
        first = apps.first(user=either)
    one = shell(either)
    one.type(f"$L app a -- sh -c 'echo ready; sleep 777; echo no'{pipe}\n")
    one.expect("ready")
    busy(apps, either)
    os.close(one.master)
    one.master = -1
    one.process.wait(30)
    if joined:
        quiet(apps, either, "777")
        assert first.poll() is None
    else:
        apps.gone(either)


def test_the_launcher_is_killed(apps, shell):
    """Nobody sets the terminal back then, but the shell goes on, and the command has ended."""
    apps.first()
    one = shell()
    one.type("$L app a -- sh -c 'echo ready; sleep 777; echo no'\n")
    one.expect("ready")
    busy(apps, None)
    (guest,) = (
        int(pid) for pid in os.listdir("/proc") if pid.isdecimal() and _parent(pid) == one.process.pid
    )
    os.kill(guest, signal.SIGKILL)
    one.expect("Killed")
    quiet(apps, None, "777")
    one.type("echo mine$((40+2))\n")
    one.expect("mine42")


def _parent(pid):
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except OSError:
        return 0


def test_much_output(apps, shell):
    """All of it arrives before the status."""
    apps.first()
    one = shell()
    one.type("$L app a -- sh -c 'seq 1 20000; exit 6'; echo S=$?\n")
    one.expect(r"\n20000\r\n")
    one.expect("S=6")


def test_job_control_inside(apps, shell, either):
    apps.first(user=either)
    one = shell(either)
    one.type("$L app a -- bash --norc -i; echo S=$?\n")
    one.expect(r"[$#] $")
    one.type("PS1='in> '; stty -echo\n")
    one.expect("in> ")
    one.type("sleep 777\n")
    time.sleep(0)
    wait_for(lambda: any(p["command"] == "sleep 777" for p in apps.ps(either)["a"]["processes"]))
    one.type("\x1a")
    one.expect("Stopped")
    one.type("kill %1; disown; echo in$((1+1))\n")  # else bash may warn that there are stopped jobs
    one.expect("in2")
    one.type("exit 8\n")
    one.expect("S=8")
