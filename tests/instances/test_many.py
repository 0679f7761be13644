"""Many at once: one instance, and no half state."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
from support.sandbox import wait_for


def ends(processes):
    found = []
    for process in processes:
        out, err = process.communicate(timeout=120)
        found.append((process.returncode, out, err))
    return found


def all_join(apps, layerrun, who, count):
    """All run in one instance: each waits inside until it sees that all others are there."""
    script = (
        ": >/tmp/in.$1; readlink /proc/self/ns/pid; all=$2; set -- /tmp/in.*;"
        " while [ $# -lt $all ]; do sleep 0.1; set -- /tmp/in.*; done"
    )
    running = [apps.popen("sh", "-c", script, "sh", str(n), str(count), user=who) for n in range(count)]
    found = ends(running)
    assert [code for code, _, _ in found] == [0] * count, [err for code, _, err in found if code]
    assert len({out for _, out, _ in found}) == 1


@pytest.mark.parametrize("made", [True, False])
def test_many_starts_are_one_instance(apps, layerrun, either, made):
    if made:
        layerrun("create", "a", user=either, check=0)
    all_join(apps, layerrun, either, 20)
    apps.gone(either)


@pytest.mark.long
def test_fifty_starts_are_one_instance(apps, layerrun, who):
    for _ in range(5):
        all_join(apps, layerrun, who, 50)
        apps.gone(who)


LOOP = """
import subprocess, sys
bad = 0
for _ in range(int(sys.argv[1])):
    done = subprocess.run(sys.argv[2:], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode or done.stderr:
        print(done.returncode, done.stderr)
"""


def quick(layerrun, who, number, times):
    argv = layerrun.argv("app", "a", "--", "true", user=who)
    running = [
        subprocess.Popen(
            [sys.executable, "-c", LOOP, str(times), *argv],
            env=layerrun.env(who),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
        )
        for _ in range(number)
    ]
    said = [process.communicate(timeout=250)[0] for process in running]
    assert said == [""] * number


def test_a_start_meets_the_end(layerrun, either):
    """Quick commands that find the instance beginning, running, ending: none fails, none says a word."""
    layerrun("create", "a", user=either, check=0)
    quick(layerrun, either, 4, 50)


@pytest.mark.long
def test_many_a_start_meets_the_end(layerrun, who):
    layerrun("create", "a", user=who, check=0)
    quick(layerrun, who, 4, 500)


def test_without_the_front_door(layerrun, monkeypatch):
    monkeypatch.setenv("LAYERRUN_FRONT_DOOR", "0")
    layerrun("create", "a", check=0)
    quick(layerrun, None, 4, 10)


def together(layerrun, who, times, *verbs):
    """Each verb in a loop beside the others; return (words, status, stderr) of all."""
    found = []

    def loop(words):
        for _ in range(times):
            done = layerrun(*words, user=who)
            found.append((words, done.rc, done.err))

    threads = [threading.Thread(target=loop, args=(words,)) for words in verbs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def check(layerrun, who, found, allowed):
    for words, code, err in found:
        assert "Traceback" not in err
        assert code in allowed, (words, code, err)
        assert err or code in {0, 137, 143}, (words, code)
    problems = layerrun("doctor", user=who)
    assert "Traceback" not in problems.err
    wait_for(lambda: '"instances": []' in layerrun("ps", "--json", user=who, check=0).out)


ECHO = ("app", "a", "--", "sh", "-c", "echo x >>~/x; echo y >/tmp/y")


@pytest.mark.parametrize("times", [5, pytest.param(60, marks=pytest.mark.long)])
def test_starts_and_resets(layerrun, either, times):
    layerrun("create", "a", user=either, check=0)
    found = together(layerrun, either, times, ECHO, ECHO, ("reset", "-y", "a"), ("reset", "-y", "a"))
    check(layerrun, either, found, {0, 5})
    # A start waits out a reset: it is over in a moment.
    assert {code for words, code, _ in found if words == ECHO} == {0}
    layerrun("reset", "-y", "a", user=either, check=0)
    assert layerrun("diff", "a", user=either, check=0).out == ""


@pytest.mark.parametrize("times", [5, pytest.param(60, marks=pytest.mark.long)])
def test_starts_and_resets_that_kill(layerrun, either, times):
    layerrun("create", "a", user=either, check=0)
    reset = ("reset", "-y", "--kill", "a")
    found = together(layerrun, either, times, ECHO, ECHO, reset)
    # A reset may lose against one start after the other; a start that is killed says so, or begins again.
    check(layerrun, either, found, {0, 5, 137})
    assert {code for words, code, _ in found if words == ECHO} <= {0, 137}
    layerrun(*reset, user=either, check=0)
    assert layerrun("diff", "a", user=either, check=0).out == ""


@pytest.mark.parametrize("times", [5, pytest.param(60, marks=pytest.mark.long)])
def test_starts_and_removes(layerrun, either, times):
    found = together(layerrun, either, times, ECHO, ECHO, ("remove", "-y", "a"), ("app", "a"), ("stop", "a"))
    for words, code, err in found:
        if words == ("app", "a"):
            assert code in {2, 5, 6}, err  # an app without a command of its own
    check(layerrun, either, [each for each in found if each[0] != ("app", "a")], {0, 5, 6, 137, 143})
    layerrun("remove", "-y", "a", user=either)
    assert layerrun("list", user=either, check=0).out == ""


@pytest.mark.parametrize("times", [5, pytest.param(60, marks=pytest.mark.long)])
def test_starts_and_renames(layerrun, either, times):
    layerrun("create", "a", user=either, check=0)
    other = ("app", "b", "--", "sh", "-c", "echo x >>~/x")
    found = together(
        layerrun, either, times, ("shell", "a"), other, ("rename", "a", "b"), ("rename", "b", "a"), ("ps",)
    )
    check(layerrun, either, found, {0, 1, 5, 6})  # 1: the name is taken
    names = layerrun("list", user=either, check=0).out.split()
    assert {"a", "b"} & set(names)


def test_starts_stops_and_kills(layerrun, either):
    layerrun("create", "a", user=either, check=0)
    wait = ("app", "a", "--", "sleep", "0.2")
    found = together(layerrun, either, 10, wait, wait, ("stop", "a"), ("kill", "a"), ("ps",))
    for words, code, err in found:
        # 1: kill found nothing that ran.
        assert code in ({0, 137, 143} if words == wait else {0, 1} if words[0] == "kill" else {0}), (
            words,
            code,
            err,
        )
    layerrun("app", "a", "--", "true", user=either, check=0)
