"""--status-fd, and LAYERRUN_FRONT_DOOR=alone: what a program is told of a start."""

from __future__ import annotations

import json
import os
import subprocess
import types

import pytest

DOORS = {"hot": None, "cold": "0", "alone": "alone"}


@pytest.fixture
def told(layerrun):
    """``told("app", "--status-fd", "FD", …)`` runs it and gives rc, err and the events; FD is the descriptor."""

    def run(*words, user=None, check=None, front_door=None, env=None):
        read, write = os.pipe()
        words = [str(write) if word == "FD" else word for word in words]
        done = subprocess.run(
            layerrun.argv(*words, user=user),
            env=layerrun.env(user, LAYERRUN_FRONT_DOOR=front_door, **(env or {})),
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            pass_fds=[write],
            timeout=120,
        )
        os.close(write)
        with open(read) as file:
            lines = file.read().splitlines()
        if check is not None:
            assert done.returncode == check, (done.stdout, done.stderr, lines)
        return types.SimpleNamespace(
            rc=done.returncode, out=done.stdout, err=done.stderr, events=[json.loads(line) for line in lines]
        )

    return run


@pytest.fixture
def warm(layerrun, who):
    """The app ``a`` with a plan that is stored; gives whose it is."""
    layerrun("app", "a", "--", "true", user=who, check=0)
    return who


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("status", [0, 7, 125, 127])
def test_a_command_that_ends(told, warm, door, status):
    for _ in range(6):
        done = told(
            *("app", "--status-fd", "FD", "a", "--", "sh", "-c", f"exit {status}"),
            user=warm,
            front_door=DOORS[door],
        )
        if done.events != [{"event": "unsure"}]:  # something else on the machine has outdated the plan
            break
        told("app", "a", "--", "true", user=warm)
    started, exited = done.events
    assert (started["event"], started["joined"]) == ("started", False)
    assert started["pid"] > 1
    assert exited == {"event": "exited", "exit_code": status}
    assert done.rc == status


@pytest.mark.parametrize("command", ["no-such", "/etc", "/etc/hostname", '/n/\u00fc"\\\n\udcff'])
@pytest.mark.parametrize("door", ["hot", "cold"])
def test_a_command_that_cannot_be_run(told, warm, door, command):
    done = told("app", "a", "--status-fd", "FD", "--", command, user=warm, front_door=DOORS[door])
    assert done.rc in (126, 127)
    (failed,) = done.events
    assert failed["event"] == "failed"
    assert "cannot run" in failed["message"]
    assert "exit_code" not in failed


@pytest.mark.root
@pytest.mark.idmap
def test_a_first_start_that_fails(told, layerrun):
    done = told("app", "new", "--status-fd", "FD", "--", "/no-such", check=127)
    assert [event["event"] for event in done.events] == ["failed"]
    done = told("app", "new", "--status-fd", "FD", check=6)
    assert [event["event"] for event in done.events] == ["failed"]
    assert layerrun("list", check=0).out == ""


ALONE = [
    ("/no-such", 127, 2),
    ("/etc", 126, 13),
    ('/n/\u00fc"\\\n\udcff', 127, 2),
]


@pytest.mark.parametrize(("command", "status", "errno"), ALONE, ids=range(len(ALONE)))
def test_alone_a_command_that_cannot_be_run(told, warm, command, status, errno):
    for _ in range(6):
        done = told("app", "--status-fd", "FD", "a", "--", command, user=warm, front_door="alone")
        if done.events != [{"event": "unsure"}]:
            break
        told("app", "a", "--", "true", user=warm)
    (failed,) = done.events
    assert os.fsencode(failed.pop("path")) == os.fsencode(command)
    assert failed == {"event": "failed", "errno": errno, "step": "execute", "op": -1}
    assert (done.rc, done.err) == (status, "")


@pytest.mark.root
@pytest.mark.idmap
def test_alone_whatever_needs_python_is_unsure(told, layerrun, store_path):
    forms = [
        ["app", "--status-fd", "FD", "new", "--", "true"],
        ["app", "--status-fd", "FD", "a", "--ephemeral", "--", "true"],
        ["app", "--status-fd", "FD", "A", "--", "true"],
        ["app", "--status-fd", "FD", "a"],
        ["app", "--status-fd", "FD", "a", "--", ""],
        ["app", "--status-fd", "FD", "a", "-e", "x"],
        ["app", "--status-fd", "FD", "a", "--cwd", "x"],
    ]
    layerrun("app", "a", "--", "true", check=0)
    for words in forms[:-1]:
        done = told(*words, front_door="alone", check=125)
        assert (done.events, done.out, done.err) == ([{"event": "unsure"}], "", ""), words
    assert os.listdir(f"{store_path}/plans") == ["a"]
    os.unlink(f"{store_path}/plans/a")
    done = told("app", "--status-fd", "FD", "a", "--", "true", front_door="alone", check=125)
    assert done.events == [{"event": "unsure"}]


@pytest.mark.root
@pytest.mark.idmap
def test_alone_without_anybody_to_tell(layerrun):
    done = layerrun("list", env={"LAYERRUN_FRONT_DOOR": "alone"}, check=125)
    assert (done.out, done.err) == ("", "")


@pytest.mark.parametrize("door", ["hot", "cold"])
def test_who_joins(told, layerrun, warm, door):
    running = subprocess.Popen(
        layerrun.argv("app", "a", "--", "sh", "-c", "echo up; read x", user=warm),
        env=layerrun.env(warm),
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert running.stdout.readline() == b"up\n"
        for verb in ("app", "enter"):
            done = told(
                *(verb, "a", "--status-fd", "FD", "--", "sh", "-c", "exit 9"),
                user=warm,
                front_door=DOORS[door],
                check=9,
            )
            started, exited = done.events
            assert (started["event"], started["joined"]) == ("started", True)
            assert os.path.exists(f"/proc/{started['pid']}")
            assert exited == {"event": "exited", "exit_code": 9}
            done = told(verb, "a", "--status-fd", "FD", "--", "/no-such", user=warm, front_door=DOORS[door])
            assert [event["event"] for event in done.events] == ["failed"]
            assert done.rc == 127
    finally:
        running.communicate(b"x\n", timeout=60)


@pytest.mark.parametrize("door", ["hot", "cold"])
@pytest.mark.parametrize("verb", [["try", "-n"], ["try", "-n", "--name", "t"], ["app", "a", "--ephemeral"]])
def test_other_starts(told, warm, verb, door):
    done = told(
        *verb, "--status-fd", "FD", "--", "sh", "-c", "exit 3", user=warm, front_door=DOORS[door], check=3
    )
    assert [event["event"] for event in done.events] == ["started", "exited"]


@pytest.mark.root
@pytest.mark.idmap
def test_it_says_started_while_the_command_runs(layerrun):
    layerrun("app", "a", "--", "true", check=0)
    read, write = os.pipe()
    process = subprocess.Popen(
        layerrun.argv("app", "--status-fd", str(write), "a", "--", "cat"),
        env=layerrun.env(),
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        pass_fds=[write],
    )
    os.close(write)
    with open(read) as file:
        assert json.loads(file.readline())["event"] == "started"
        assert process.poll() is None
        process.communicate(timeout=60)
        assert json.loads(file.readline()) == {"event": "exited", "exit_code": 0}
        assert file.readline() == ""


@pytest.mark.parametrize("door", ["hot", "cold"])
def test_a_reader_who_has_gone(layerrun, warm, door):
    read, write = os.pipe()
    os.close(read)
    done = layerrun(
        *("app", "--status-fd", str(write), "a", "--", "sh", "-c", "exit 3"),
        user=warm,
        env={"LAYERRUN_FRONT_DOOR": DOORS[door]},
        pass_fds=[write],
        check=3,
    )
    os.close(write)
    assert done.err == ""


@pytest.mark.root
@pytest.mark.idmap
@pytest.mark.parametrize("door", ["hot", "cold"])
def test_the_command_does_not_get_the_descriptor(told, layerrun, door):
    layerrun("app", "a", "--", "true", check=0)
    look = ("sh", "-c", "for fd in /proc/self/fd/*; do echo ${fd##*/}; done")
    done = told("app", "--status-fd", "FD", "a", "--", *look, front_door=DOORS[door], check=0)
    assert set(done.out.split()) <= {"0", "1", "2", "3", "4", "self"}, done.out
    plain = layerrun("app", "a", "--", *look, check=0)
    assert done.out == plain.out


@pytest.mark.root
@pytest.mark.idmap
@pytest.mark.parametrize("number", ["999", "0", "-1", "x", "", "1x", "99999999999999999999"])
def test_a_descriptor_that_is_none(layerrun, number):
    layerrun("app", "a", "--", "true", check=0)
    for words in (
        ["app", "--status-fd", number, "a", "--", "true"],
        ["app", f"--status-fd={number}", "a", "--", "true"],
    ):
        hot = layerrun(*words, check=2)
        cold = layerrun(*words, check=2, env={"LAYERRUN_FRONT_DOOR": "0"})
        assert (hot.out, hot.err) == (cold.out, cold.err)
