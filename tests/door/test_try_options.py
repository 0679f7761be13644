"""A `try` with options, on a terminal, in other stores; what Python alone can say, and no Python that stays."""

from __future__ import annotations

import os
import re

import pytest
from programs.terminal import Terminal
from support.tries import TRUE, begin, end, throwaways


def test_a_store_that_was_named_on_the_command_line(layerrun, door, folder):
    other = f"{folder}/other"
    words = (
        "--store",
        other,
        "try",
        "-n",
        "--",
        "sh",
        "-c",
        "echo $LAYERRUN_STORE; echo x >/etc/layerrun-test",
    )
    done = door(*words, env={"LAYERRUN_STORE": None}, check=0)
    assert done.out.startswith("\nA")
    assert "kept as" in done.err
    assert not os.path.exists(layerrun.store())


@pytest.mark.parametrize(("typed", "left"), [("discard", 0), ("keep", 1), ("", 1), ("\x03", 1)], ids=ascii)
def test_what_was_written_is_asked_about_on_a_terminal(layerrun, door, typed, left):
    door.warm(*TRUE)
    argv = door.argv("try", "--", "sh", "-c", "echo x >/etc/layerrun-test; tty; exit 4")
    with Terminal(argv, layerrun.env()) as terminal:
        terminal.expect(r"/dev/pts/\d+")
        terminal.expect(r"A +2 B +/etc/layerrun-test")
        terminal.expect(r"\[c\]ommit \[p\]ick \[k\]eep \[d\]iscard\? \[k\] ")
        assert terminal.cooked()
        terminal.line(typed)
        assert terminal.status() == 4
    assert len(throwaways(layerrun)) == left
    assert not door(*TRUE).python


def test_folder_and_variables_without_python(door, who):
    look = ("try", "--cwd", "/usr", "-e", "A=b=c", "-e", "LAYERRUN_APP=mine", "-n", "--", "sh", "-c")
    done = door.warm(*look, 'pwd; echo "$A $LAYERRUN_APP"', user=who, check=0)
    assert done.out == "/usr\nb=c mine\n"


@pytest.mark.parametrize(
    "words",
    [
        ["--cwd", "/nowhere"],
        ["--cwd", "relative"],
        ["--cwd", ""],
        ["-e", "=x"],
        ["-e", ""],
        ["--base", "x"],
    ],
    ids=" ".join,
)
def test_what_cannot_be_is_said_by_python(layerrun, door, words):
    door.warm(*TRUE)
    hot = door("try", *words, "--", "true")
    cold = door("try", *words, "--", "true", env={"LAYERRUN_FRONT_DOOR": "0"})
    assert hot == cold
    assert hot.rc != 0
    assert throwaways(layerrun) == []
    assert not door(*TRUE).python


LONG = [[], ["--hide", "/opt"], ["--name", "t"], ["--json"], ["-e", "A=b"], ["--no-userns"]]


@pytest.mark.parametrize("words", LONG, ids=" ".join)
def test_no_python_stays(layerrun, door, words):
    """Whatever was asked for: Python has gone while the command runs, and is there again for the end."""
    process = begin(door, "echo x >/etc/layerrun-test; echo ready; read x; exit 6", *words)
    with open(f"/proc/{process.pid}/cmdline", "rb") as file:
        assert os.path.basename(file.read().split(b"\0")[0]) == b"layerrun"
    with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
        children = file.read().split()
    assert len(children) == 1
    out, err = end(process, 6)
    (name,) = throwaways(layerrun)
    assert "/etc/layerrun-test" in out
    assert f"kept as {name}" in err
    assert name == "t" or "--name" not in words


@pytest.mark.parametrize("words", LONG, ids=" ".join)
def test_a_command_that_never_ran_leaves_nothing(layerrun, door, words):
    done = door("try", "-n", *words, "--", "no-such-command", check=127)
    cold = door("try", "-n", *words, "--", "no-such-command", env={"LAYERRUN_FRONT_DOOR": "0"}, check=127)
    assert re.sub("try-[0-9a-f]{4}", "try", done.err) == re.sub("try-[0-9a-f]{4}", "try", cold.err)
    assert throwaways(layerrun) == []
