"""Completion of profiles and snapshots in a real bash, which breaks words at ``@`` and ``:``."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time

import pytest

pytestmark = [pytest.mark.root, pytest.mark.idmap]


class Bash:
    """An interactive bash that has loaded the completion script."""

    def __init__(self, layerrun, folder):
        program = layerrun.argv()[0]
        with open(f"{folder}/rc", "w") as file:
            file.write("PS1='$ '; bind 'set bell-style none'; bind 'set enable-bracketed-paste off'\n")
            file.write(layerrun("completion", "bash", check=0).out)
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", "bash", "--noprofile", "--rcfile", f"{folder}/rc", "-i"],
            env=layerrun.env(
                TERM="dumb", PATH=f"{os.path.dirname(program)}:{os.environ['PATH']}", HISTFILE=""
            ),
            cwd="/",
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        self.until("$ ")

    def until(self, text, seconds=30.0):
        """Return what comes, up to ``text``."""
        seen, end = "", time.monotonic() + seconds
        while text not in seen:
            assert time.monotonic() < end, f"{text!r} never came:\n{seen}"
            if select.select([self.master], [], [], 0.5)[0]:
                seen += os.read(self.master, 65536).decode(errors="replace").replace("\r", "")
        return seen

    def run(self, typed):
        """Type the rest of a line and return what comes until the next prompt: typed ahead, a tab may be a tab."""
        os.write(self.master, f"{typed}; echo 'done'-$?\n".encode())
        return self.until("done-0\n$ ")

    def end(self):
        os.write(self.master, b"\x15exit\n")
        self.process.wait(30)
        os.close(self.master)


@pytest.fixture
def bash(layerrun, folder):
    for words in (["web"], ["web", "--profile", "work"], ["wiki"], ["wiki", "--profile", "other"]):
        layerrun("app", *words, "--", "true", check=0)
    layerrun("snapshot", "web", "before", check=0)
    layerrun("try", "-n", "--name", "wet", "--", "touch", "/srv/x", check=0)
    started = Bash(layerrun, folder)
    yield started
    started.end()


@pytest.mark.parametrize("breaks", [True, False])
@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("which web@wo", "which web@work"),
        ("which web@", "which web@work"),
        ("du web@work wiki@", "du web@work wiki@other"),
        ("which wik", "which wiki"),
        ("which wiki@o", "which wiki@other"),
        ("app web --profile ", "app web --profile work"),
        ("app wiki --profile o", "app wiki --profile other"),
        ("rollback wiki", "rollback wiki"),
        ("rollback web:", "rollback web:before"),
        ("restore web:be", "restore web:before"),
        ("forget web b", "forget web before"),
        ("restore web before /us", "restore web before /usr/"),
        ("diff wiki web:b", "diff wiki web:before"),
        ("diff wiki /us", "diff wiki /usr/"),
        ("commit wet /us", "commit wet /usr/"),
        ("discard w", "discard wet"),
    ],
)
def test_completion(bash, typed, completed, breaks):
    if not breaks:
        bash.run("COMP_WORDBREAKS=${COMP_WORDBREAKS//[@:]/}")
    # Only said, not run: the completion calls the program, not the function.
    bash.run("layerrun() { printf '<%s>' \"$*\"; }")
    os.write(bash.master, f"layerrun {typed}\t".encode())
    bash.until(completed[-2:])
    assert f"<{completed}" in bash.run("end")
