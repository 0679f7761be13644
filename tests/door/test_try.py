"""`try` without Python: in a spare, which nobody sees, and which becomes a throwaway as soon as anything is written."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import signal
import sqlite3
import subprocess
import time

import pytest
from programs.terminal import Terminal

TRUE = ("try", "-y", "--", "true")
KEEP = ("try", "-n", "--", "sh", "-c")


def plans(layerrun, who=None):
    return sorted(os.listdir(os.path.join(layerrun.store(who), "plans")))


def throwaways(layerrun, who=None):
    """Return the names that `list` shows."""
    lines = layerrun("list", user=who, check=0).out.splitlines()[1:]
    return [line.split()[0] for line in lines if line.split()[1] == "throwaway"]


def written(layerrun, name, who=None):
    return layerrun("diff", name, "-0", user=who, check=0).out.split("\0")[:-1]


def contents(store):
    """Return all of a store that a start might change: paths, times, sizes; and the catalog's rows."""
    found = []
    for top, folders, files in os.walk(store):
        for name in sorted(folders + files):
            path = os.path.join(top, name)
            info = os.lstat(path)
            # The kernel's own, made anew by each mount; SQLite's; and the line that says who has the lock.
            if "/work/" in path or name.startswith("catalog.db") or name in ("lock", "work"):
                continue
            found.append((os.path.relpath(path, store), info.st_ino, info.st_ctime_ns, info.st_size))
    database = sqlite3.connect(f"{store}/catalog.db")
    try:
        return sorted(found), list(database.iterdump())
    finally:
        database.close()


def begin(door, script, *options, who=None):
    """Start a `try` of a shell script that says a line when it is ready."""
    process = subprocess.Popen(
        door.argv("try", "-n", *options, "--", "sh", "-c", script, user=who),
        env=door.layerrun.env(who),
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    line = process.stdout.readline()
    assert line == "ready\n", (line, process.communicate(timeout=60))
    return process


def end(process, status=0):
    out, err = process.communicate("\n", timeout=60)
    assert process.returncode == status, (out, err)
    return out, err


def kill(process):
    """Kill a `try` as a whole: nobody is left to say what was written."""
    process.kill()
    process.communicate(timeout=60)


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


def test_what_the_two_tell_each_other_stays_between_them(layerrun, door):
    told = {"LAYERRUN_PASSED": "yes", "LAYERRUN_ENDED": "0 0123456789abcdef 7", "LAYERRUN_START": "9"}
    for _ in range(3):  # without a spare, with one, and by Python alone
        seen = door("try", "-n", "--", "env", env=told, check=0).out
        assert not [line for line in seen.splitlines() if line.partition("=")[0] in told]
    seen = door("try", "-n", "--", "env", env={**told, "LAYERRUN_FRONT_DOOR": "0"})
    assert not [line for line in seen.out.splitlines() if line.partition("=")[0] in told]


def test_many_at_once(layerrun, door, who):
    """Each has a layer of its own; more than there are spares for get one made for them."""
    running = [
        begin(door, f"echo x >~/layerrun-{n}; echo ready; read x; ls ~ | grep ^layerrun-", who=who)
        for n in range(6)
    ]
    for n, process in enumerate(running):
        out, err = end(process)
        assert out.startswith(f"layerrun-{n}\nA"), (out, err)
        assert out.count("\n") == 2
        assert "kept as try-" in err
    assert len(throwaways(layerrun, who)) == 6


def test_several_at_once_need_no_python(layerrun, door):
    running = [begin(door, "echo ready; read x") for _ in range(3)]
    for process in running:
        assert end(process) == ("", "")
    assert plans(layerrun) == [f".try@host.{n}" for n in range(3)]
    door.hide_python()
    running = [begin(door, "echo ready; read x") for _ in range(3)]
    for process in running:
        end(process)


@pytest.mark.parametrize("saved_by", ["list", "try"])
def test_killed_in_the_middle_nothing_is_lost(layerrun, door, who, saved_by):
    door.warm(*TRUE, user=who)
    kill(begin(door, "echo precious >~/layerrun-test; echo ready; sleep 100", who=who))
    if saved_by == "list":
        done = layerrun("list", user=who, check=0)
    else:
        # The front door takes no spare that holds anything; where it finds another, it may be later that it is seen.
        done = door(*KEEP, "test ! -e ~/layerrun-test", user=who, check=0)
        done.err += layerrun("list", user=who, check=0).err if not done.python else ""
    (name,) = throwaways(layerrun, who)
    verbs = ", ".join(f"layerrun {verb} {name}" for verb in ("diff", "commit", "discard"))
    said = f"layerrun: a try was cut short: kept as {name}: {verbs}\n"
    assert done.err == said
    home = who.home if who else "/root"
    assert written(layerrun, name, who) == [f"A {home}/layerrun-test"]
    done = layerrun("try", "--name", name, "-n", "cat", f"{home}/layerrun-test", user=who, check=0)
    assert done.out.startswith("precious\n")


def test_killed_without_a_plan_nothing_is_lost(layerrun, door):
    """Nothing in plans/ is needed."""
    door.warm(*TRUE)
    kill(begin(door, "echo precious >/etc/layerrun-test; echo ready; sleep 100"))
    shutil.rmtree(f"{layerrun.store()}/plans")
    (name,) = throwaways(layerrun)
    assert written(layerrun, name) == ["A /etc/layerrun-test"]


def test_killed_before_it_wrote_anything(layerrun, door, who):
    door.warm(*TRUE, user=who)
    kill(begin(door, "echo ready; sleep 100", who=who))
    assert layerrun("list", user=who, check=0).err == ""
    assert throwaways(layerrun, who) == []
    assert plans(layerrun, who) == [".try@host.0"]
    door.warm(*TRUE, user=who)


def test_what_runs_is_not_taken_away(layerrun, door):
    door.warm(*TRUE)
    process = begin(door, "echo x >/etc/layerrun-test; echo ready; read x; cat /etc/layerrun-test")
    assert layerrun("list", check=0).err == ""
    assert throwaways(layerrun) == []
    layerrun("reset", "-y", "--all", check=0)
    out, _ = end(process)
    assert out.startswith("x\nA")
    assert len(throwaways(layerrun)) == 1


def test_the_command_ends_the_try_not_a_signal_to_it(door, layerrun):
    door.warm(*TRUE)
    process = begin(
        door, "trap 'echo x >/etc/layerrun-test; exit 9' TERM; echo ready; while :; do sleep 0.1; done"
    )
    process.send_signal(signal.SIGTERM)
    out, err = end(process, 9)
    assert "/etc/layerrun-test" in out
    assert "kept as" in err


def test_a_change_of_the_mounts_outdates_it(door, mounts, who):
    # Not in /var/tmp, which would have to be taken apart, and where others come and go.
    place = "/srv/place"
    mounts.sh('mount -t tmpfs -o mode=755 tmpfs /srv; mkdir "$1"; echo beneath >"$1/file"', place)
    options = {"prefix": mounts.prefix(), "user": who}
    door.warm(*TRUE, check=0, **options)
    mounts.sh('mount -t tmpfs tmpfs "$1"; echo mounted >"$1/file"', place)
    for wanted in ("mounted", "beneath", "mounted", "beneath", "mounted", "beneath"):
        done = door("try", "--", "cat", f"{place}/file", check=0, **options)
        assert done.out == f"{wanted}\n"
        door.warm(*TRUE, check=0, **options)
        mounts.sh(
            'umount "$1" || mount -t tmpfs tmpfs "$1"; ls "$1" | grep . || echo mounted >"$1/file"', place
        )
    door.warm(*TRUE, check=0, **options)


def test_a_base_is_removed_with_its_spares(layerrun, door, small, who):
    small(who)
    layerrun("remove", "-y", "small", user=who, check=0)
    door.warm("try", "-n", "--base", "small", "true", user=who, check=0)
    assert layerrun("base", "show", "small", "--json", user=who, check=0).out.count('"used_by": []') == 1
    process = begin(door, "echo ready; read x", "--base", "small", who=who)
    done = layerrun("base", "remove", "-y", "small", user=who, check=3)
    assert "is in use by a `try` that runs" in done.err
    end(process)
    layerrun("base", "remove", "-y", "small", user=who, check=0)
    assert os.listdir(f"{layerrun.store(who)}/apps") == []
    layerrun("try", "--base", "small", "true", user=who, check=6)


def test_a_base_is_not_removed_under_what_was_written(layerrun, door, small):
    small()
    layerrun("remove", "-y", "small", check=0)
    door.warm("try", "-n", "--base", "small", "true", check=0)
    kill(begin(door, "echo x >/etc/layerrun-test; echo ready; sleep 100", "--base", "small"))
    done = layerrun("base", "remove", "-y", "small", check=3)
    (name,) = throwaways(layerrun)
    assert f"is in use by {name}" in done.err
    assert written(layerrun, name) == ["A /etc/layerrun-test"]


def test_nobody_sees_a_spare(layerrun, door):
    door.warm(*TRUE, check=0)
    name = ".try@host.0"
    assert layerrun("list", check=0).out == ""
    assert layerrun("list", "--json", check=0).out.count('"apps": []') == 1
    assert layerrun("ps", "--json", check=0).out.count('"instances": []') == 1
    assert '"apps": []' in layerrun("du", "--json", check=0).out
    assert name not in layerrun("doctor").out
    for words in (["show"], ["diff"], ["plan"], ["discard", "-y"], ["remove", "-y"], ["du"], ["reset", "-y"]):
        done = layerrun(*words, name)
        assert done.rc in (2, 6), words
    completing = {"_LAYERRUN_COMPLETE": "bash_complete", "COMP_WORDS": "layerrun show ", "COMP_CWORD": "2"}
    assert layerrun(env=completing).out.strip() == ""
    assert not door(*TRUE, check=0).python


def test_reset_all_drops_them(layerrun, door):
    door.warm(*TRUE, check=0)
    layerrun("reset", "-y", "--all", check=0)
    assert plans(layerrun) == []
    assert os.listdir(f"{layerrun.store()}/apps") == []
    door.warm(*TRUE, check=0)


def test_a_damaged_plan(layerrun, door):
    door.warm(*TRUE, check=0)
    plan = pathlib.Path(layerrun.store(), "plans", ".try@host.0")
    whole = plan.read_bytes()
    for damaged in (b"", whole[:-1], whole[: len(whole) // 2], whole[::-1], b"\0" * len(whole)):
        plan.write_bytes(damaged)
        done = door("try", "-n", "--", "echo", "right", check=0)
        assert (done.python, done.out, done.err) == (True, "right\n", "")
        door.warm(*TRUE, check=0)
    assert throwaways(layerrun) == []


@pytest.mark.parametrize("gone", ["", "/data", "/data/upper", "/lock", "/data/work"])
def test_a_spare_whose_files_are_gone(layerrun, door, small, gone):
    small()
    layerrun("remove", "-y", "small", check=0)
    words = ("try", "-n", "--base", "small", "true")
    door.warm(*words, check=0)
    (spare,) = os.listdir(f"{layerrun.store()}/apps")
    place = f"{layerrun.store()}/apps/{spare}{gone}"
    shutil.rmtree(place) if os.path.isdir(place) else os.unlink(place)
    door.warm(*words, check=0)
    assert throwaways(layerrun) == []
    assert layerrun("list", check=0).err == ""
    layerrun("base", "remove", "-y", "small", check=0)
    assert os.listdir(f"{layerrun.store()}/apps") == []


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
