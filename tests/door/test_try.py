"""`try` without Python: in a spare, which nobody sees, and which becomes a throwaway as soon as anything is written."""

from __future__ import annotations

import os
import re
import subprocess
import time

import pytest
from support.tries import KEEP, TRUE, contents, throwaways, written


def test_the_second_try_needs_no_python(door, who):
    assert door(*TRUE, user=who, check=0).python
    assert not door(*TRUE, user=who, check=0).python
    door.hide_python()
    done = door("try", "-y", "--", "echo", "hot", user=who, check=0)
    assert (done.out, done.err) == ("hot\n", "")


FORMS = [
    ["--", "true"],
    ["true"],
    ["-n", "true"],
    ["--yes", "--", "true"],
    ["--keep", "--base", "host", "--", "true"],
    ["--base", "host", "-y", "true"],
    ["--cwd", "/etc", "--", "true"],
    ["-e", "A=b", "--env", "C==", "-n", "true"],
    ["--on-exit", "discard", "true"],
]


@pytest.mark.parametrize("words", FORMS, ids=" ".join)
def test_forms_that_need_no_python(door, words):
    door.warm("try", *words, check=0)


@pytest.mark.parametrize(
    "words",
    [
        ["--cwd=/", "--", "true"],
        ["-eA=b", "true"],
        ["--json", "true"],
        ["--name", "t", "true"],
        ["--hide", "/opt", "true"],
        ["--base=host", "true"],
        ["--on-exit=keep", "true"],
        ["--help"],
    ],
    ids=" ".join,
)
def test_forms_that_are_pythons(door, words):
    door.warm(*TRUE, check=0)
    assert door("try", *words, check=0).python


@pytest.mark.parametrize(
    "words",
    [
        ["-y", "-n", "true"],
        ["-n", "-n"],
        ["-n", "--on-exit", "keep", "true"],
        ["--on-exit", "undo", "true"],
        ["--on-exit"],
        ["--"],
        ["--", ""],
        [],
        ["--base"],
        ["-z"],
    ],
)
def test_forms_that_are_none(door, words):
    door.warm(*TRUE, check=0)
    assert door("try", *words, check=2).python


def test_nothing_is_left_behind(layerrun, door, who):
    door.warm(*TRUE, user=who, check=0)
    before = contents(layerrun.store(who))
    for script in (
        "true",
        "ls -laR /etc /home >/dev/null 2>&1; cat /etc/passwd",
        "echo x >/dev/shm/x; exit 3",
    ):
        done = door(*KEEP, script, user=who)
        assert (done.python, done.err) == (False, "")
    assert contents(layerrun.store(who)) == before


def test_over_a_base_of_ones_own(layerrun, door, small, who):
    small(who)
    look = ("try", "-n", "--base", "small", "--")
    assert door.warm(*look, "cat", "/etc/base", user=who, check=0).out == "base\n"
    done = door(*look, "sh", "-c", "echo x >/etc/new; chmod 700 /", user=who, check=0)
    assert done.python
    (name,) = throwaways(layerrun, who)
    assert written(layerrun, name, who) == ["P /", "A /etc/new"]
    assert not door(*look, "sh", "-c", "test ! -e /etc/new", user=who, check=0).python


def test_what_is_written_becomes_a_throwaway(layerrun, door, who):
    door.warm(*TRUE, user=who)
    done = door(*KEEP, "mkdir ~/layerrun-test; echo x >~/layerrun-test/file; exit 7", user=who, check=7)
    home = who.home if who else "/root"
    (name,) = throwaways(layerrun, who)
    assert re.fullmatch("try-[0-9a-f]{4}", name)
    assert done.out.split() == [
        "A",
        "-",
        f"{home}/layerrun-test/",
        "A",
        "2",
        "B",
        f"{home}/layerrun-test/file",
    ]
    verbs = ", ".join(f"layerrun {verb} {name}" for verb in ("diff", "commit", "discard"))
    assert done.err == f"layerrun: kept as {name}: {verbs}\n"
    # It is that one and no spare any more; the next one is ready.
    assert not door(*KEEP, "test ! -e ~/layerrun-test", user=who, check=0).python
    done = layerrun("try", "--name", name, "--", "cat", f"{home}/layerrun-test/file", user=who, check=0)
    assert done.out.startswith("x\n")
    layerrun("discard", "-y", name, user=who, check=0)
    assert throwaways(layerrun, who) == []


def test_the_next_one_is_made_in_the_background(layerrun, door, monkeypatch, who):
    monkeypatch.setenv("LAYERRUN_SWEEP", "background")
    door.warm(*TRUE, user=who)
    # The end of what it writes to comes with the end of the command, whoever goes on.
    door(*KEEP, "mkdir -p ~/layerrun-test; echo x >~/layerrun-test/file", user=who, check=0)
    deadline = time.monotonic() + 30
    while door(*TRUE, user=who, check=0).python:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    for name in throwaways(layerrun, who):
        layerrun("discard", "-y", name, user=who, check=0)


def test_yes_commits(layerrun, door, folder, user_folder, who):
    place = os.path.join(folder, "place") if who is None else user_folder(who)
    os.makedirs(place, exist_ok=True)
    door.warm(*TRUE, user=who)
    for number, (words, status) in enumerate([(["-y"], 0), (["--on-exit", "commit"], 0), (["-y"], 4)]):
        done = door(
            "try", *words, "sh", "-c", f"echo x >{place}/{number}; exit {status}", user=who, check=status
        )
        assert done.python
        assert ("is not committed" in done.err) is (status == 4)
    assert sorted(os.listdir(place)) == ["0", "1"]
    assert len(throwaways(layerrun, who)) == 1


@pytest.mark.parametrize(
    "script",
    [
        "chmod 700 /",
        "touch /",
        "touch /layerrun-test; rm /layerrun-test",
        "mkdir -p ~/layerrun-test/deep; rm -r ~/layerrun-test",
        "touch /etc/layerrun-test; rm /etc/layerrun-test",
    ],
)
def test_what_comes_to_nothing_is_gone(layerrun, door, who, script):
    """The upper is no longer as it was, though no list of changes would show it: nobody else gets it."""
    mode = "stat -c %a /"
    before = door.warm(*KEEP, mode, user=who).out
    done = door(*KEEP, script, user=who)
    assert done.out == ""
    if done.rc == 0:
        assert (done.python, done.err) == (True, "")
    assert throwaways(layerrun, who) == []
    seen = door(*KEEP, mode, user=who, check=0)
    assert (seen.python, seen.out) == (False, before)


def test_what_runs_on_is_ended_before_one_looks(layerrun, door, who):
    door.warm(*TRUE, user=who)
    before = contents(layerrun.store(who))
    late = "(trap '' TERM HUP; echo ready >&2; sleep 0.5; echo late >~/layerrun-test) & sleep 0.1; exit 5"
    done = door(*KEEP, late, user=who, check=5)
    assert (done.python, done.err) == (False, "ready\n")
    assert subprocess.run(["sleep", "0.8"]).returncode == 0
    assert contents(layerrun.store(who)) == before


SCRIPTS = [
    *[f"exit {status}" for status in (0, 1, 77, 125, 126, 127, 255)],
    *[f"kill -{number} $$" for number in (1, 2, 9, 15)],
    "env | sort",
    "pwd; id; umask; hostname",
    "cat; echo out; echo err >&2",
    "grep -E '^(Sig|Shd|Cap|NoNew|Seccomp|PPid|Groups|Umask|Uid|Gid)' /proc/self/status",
    'for fd in /proc/self/fd/*; do echo "${fd##*/}"; done',
    "cut -d' ' -f5-7 /proc/self/mountinfo",
    "ls -lnd / /* /dev/* /run/* /tmp ~ | awk '{print $1, $3, $4, $NF}'",
    "echo x >~/layerrun-test; rm -f /etc/passwd 2>/dev/null; exit 3",
]


@pytest.mark.parametrize("script", SCRIPTS)
def test_both_ways_are_the_same(layerrun, door, who, mounts, script):
    options = {"user": who, "prefix": mounts.prefix(), "input": "typed\n"}
    door.warm(*TRUE, **{**options, "input": ""})
    hot = door(*KEEP, script, **options)
    cold = door(*KEEP, script, env={"LAYERRUN_FRONT_DOOR": "0"}, **options)
    assert cold.python
    for done in (hot, cold):
        done.out = re.sub(r"/proc/self/fd/\d+|^LAYERRUN_FRONT_DOOR=0\n", "", done.out, flags=re.MULTILINE)
        done.err = re.sub(r"try-[0-9a-f]{4}", "NAME", done.err)
        del done.python
    assert hot == cold


@pytest.mark.parametrize("command", ["no-such-command", "/nowhere/at/all", "/etc", "/etc/passwd"])
def test_a_command_that_cannot_run_is_told_by_python(layerrun, door, command):
    door.warm(*TRUE, check=0)
    hot = door("try", "--", command)
    cold = door("try", "--", command, env={"LAYERRUN_FRONT_DOOR": "0"})
    assert hot == cold
    assert hot.python
    assert hot.rc in (126, 127)
    assert throwaways(layerrun) == []
    assert not door(*TRUE, check=0).python
