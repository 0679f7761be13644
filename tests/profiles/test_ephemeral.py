"""Ephemeral starts: a fresh upper each, and nothing of it afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import pytest
from support.sandbox import inside_of, wait_for


def ephemeral(run):
    return [name for name, one in run.apps().items() if one["ephemeral"]]


@pytest.mark.parametrize(
    ("script", "status"),
    [("true", 0), ("exit 7", 7), ("exit 125", 125), ("kill -9 $$", 137), ("kill $$", 143)],
)
def test_nothing_is_left(run, script, status):
    before = run.folders()
    run.sh(
        f"test ! -e /var/tmp/token && echo e >/var/tmp/token; {script}", "web", "--ephemeral", check=status
    )
    assert run.folders() == before
    assert list(run.apps()) == ["web"]
    assert run.sh("cat /var/tmp/token", "web") == "web\n"


def test_a_command_that_is_not_there(run):
    before = run.folders()
    for command, status in (("/no/such", 127), ("/etc", 126)):
        done = run("app", "web", "--ephemeral", "--", command, check=status)
        assert command in done.err
        assert run.folders() == before


def test_its_stack_is_the_apps(run):
    run("create", "db", "--hide", "/srv", "-e", "A=b", "--", "sh", "-c", "ls -A /srv; echo $A; exit 4")
    assert run("app", "db", "--ephemeral", check=4).out == "b\n"
    run("app", "web", "--ephemeral", check=2)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["app", "nosuch", "--ephemeral", "--", "true"], 6, "there is no app 'nosuch'"),
        (["app", "web", "--ephemeral", "--profile", "a", "--", "true"], 2, "exclude each other"),
        (["app", "web@a", "--ephemeral", "--", "true"], 2, "exclude each other"),
        (["app", "web@tmp-3f2a", "--", "true"], 2, "ephemeral"),
    ],
)
def test_what_is_wrong_costs_nothing(run, words, status, said):
    before = run.folders()
    done = run(*words, check=status)
    assert said in done.err, done.err
    assert run.folders() == before


def test_many_at_once_beside_the_app(run):
    before = run.folders()
    first = run.popen("echo ready; read line", "web")
    script = "test ! -e /var/tmp/token; echo $? >/var/tmp/token; echo ready; read line; cat /var/tmp/token"
    many = [run.popen(script, "web", "--ephemeral") for _ in range(6)]
    names = ephemeral(run)
    assert len(set(names)) == 6
    assert all(name.startswith("web@tmp-") for name in names)
    instances = {one["name"]: one["pid"] for one in json.loads(run("ps", "--json").out)["instances"]}
    assert sorted(instances) == sorted(["web", *names])
    assert run.sh("cat /var/tmp/token", "web") == "web\n"
    for process in many:
        assert process.communicate("\n", timeout=60) == ("0\n", "")
    run.ended(first)
    assert run.folders() == before


def test_one_can_be_joined_and_stopped(run):
    process = run.popen("echo e >/var/tmp/token; echo ready; exec sleep 1000", "web", "--ephemeral")
    (name,) = ephemeral(run)
    assert run("enter", name, "--", "cat", "/var/tmp/token").out == "e\n"
    assert run.sh("cat /var/tmp/token", name) == "e\n"
    run("remove", "-y", "web", check=5)
    run("reset", "-y", "--all")  # it goes at its end: it is not in the way
    run("stop", name)
    assert process.wait(60) == 143
    wait_for(lambda: name not in run.apps())
    run("remove", "-y", "web")
    assert run.folders() == {"apps": [], "staging": [], "trash": [], "plans": []}


def test_what_its_command_leaves_ends_too(run):
    before = run.folders()
    run.sh("setsid sleep 1234 & (trap '' TERM HUP; sleep 1235 &); true", "web", "--ephemeral")
    assert json.loads(run("ps", "--json").out)["instances"] == []
    assert run.folders() == before


def test_renamed_meanwhile(run):
    before = run.folders()
    process = run.popen("echo ready; read line; exit 5", "web", "--ephemeral")
    run("rename", "web", "shop")
    assert ephemeral(run)[0].startswith("shop@tmp-")
    run.ended(process, 5)
    assert list(run.apps()) == ["shop"]
    assert run.folders()["apps"] == before["apps"]


def test_no_command_sweeps_what_runs(run):
    """Each of these opens the store, and finds a free-looking profile whose lock is held."""
    process = run.popen(
        "echo e >/var/tmp/token; echo ready; read line; cat /var/tmp/token", "web", "--ephemeral"
    )
    for _ in range(3):
        for words in ("list", "du", "doctor", "reset -y web", "app web --ephemeral -- true"):
            run(*words.split(), check=None)
    assert len(ephemeral(run)) == 1
    assert process.communicate("\n", timeout=60) == ("e\n", "")
    assert process.returncode == 0


@pytest.mark.parametrize("how", ["launcher", "init", "all"])
def test_killed(run, gone, how):
    before = run.folders()
    process = run.popen("echo ready; exec sleep 1000", "web", "--ephemeral")
    pids = inside_of(process.pid)
    victims = {"launcher": [process.pid], "init": pids[:1], "all": [process.pid, *pids]}[how]
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    process.wait(60)
    gone(pids)
    run("list")
    assert run.folders() == before
    assert list(run.apps()) == ["web"]
    run("remove", "-y", "web")


def test_killed_while_it_is_made(run, gone):
    """At some moment of the start: whatever is there of it, the next command sweeps it."""
    before = run.folders()
    left = delay = 0
    while left < 3:
        delay += 15
        assert delay < 10_000, "it never came as far as making anything"
        argv = run.layerrun.argv("app", "web", "--ephemeral", "--", "sleep", "1000", user=run.who)
        process = subprocess.Popen(argv, env=run.layerrun.env(run.who), cwd="/", stdin=subprocess.DEVNULL)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(delay / 1000)
        inside = inside_of(process.pid)
        process.kill()
        process.wait()
        gone(inside)
        left += len(os.listdir(f"{run.path}/apps")) > 1
        run("list")
        assert run.folders() == before
    assert left


def test_ids_are_given_back(run, who):
    """As root each start takes a range of ids, and the next one the same again; a plain user has but one map."""
    maps = {run.sh("cat /proc/self/uid_map", "web", "--ephemeral") for _ in range(3)}
    assert len(maps) == 1
    assert (maps == {run.sh("cat /proc/self/uid_map", "web")}) is bool(who)


def test_no_python_stays_behind(run):
    """Not while it runs; at its end Python is called once more, and sees to it that nothing is left."""
    if os.environ.get("LAYERRUN_FRONT_DOOR") == "0":
        return
    before = run.folders()
    for words in (["web", "--ephemeral"], ["web", "--profile", "a"]):
        process = run.popen("echo ready; read line; exit 3", *words)
        assert os.path.basename(os.readlink(f"/proc/{process.pid}/exe")) == "layerrun"
        run.ended(process, 3)
    run("remove", "-y", "web@a")
    assert run.folders() == before


def test_a_store_that_cannot_be_opened_at_the_end(run):
    """The status is the command's own all the same, and what could not be thrown away is swept later."""
    before = run.folders()
    process = run.popen("echo ready; read line; exit 3", "web", "--ephemeral")
    os.chmod(run.path, 0o755)
    run.ended(process, 3)
    os.chmod(run.path, 0o700)
    if os.environ.get("LAYERRUN_FRONT_DOOR") != "0":  # else the start has had the store open all along
        assert run.folders() != before
    run("list")
    assert run.folders() == before
