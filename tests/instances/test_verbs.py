"""What people type at running apps: ps, stop, kill, and what needs an app that does not run."""

from __future__ import annotations

import signal

import pytest

LOOP = """
for s in HUP USR1 TERM; do trap "echo $s" $s; done
echo ready
while :; do sleep 0.01; done
"""


def test_nothing_of_that_name(layerrun):
    layerrun("create", "a", check=0)
    for verb in ("stop", "kill", "ps"):
        done = layerrun(verb, "b", check=6)
        assert "'b'" in done.err
        # All names are looked at before anything is done.
        layerrun(verb, "a", "nosuch", check=6)
    for verb in ("stop", "kill"):
        layerrun(verb, check=2)
        layerrun(verb, "--all", "a", check=2)
    layerrun("enter", "nosuch", "--", "true", check=6)


@pytest.mark.parametrize(
    "words",
    [
        ("stop", "a", "--timeout", "-1"),
        ("stop", "a", "--timeout", "x"),
        ("kill", "-s", "NOPE", "a"),
        ("kill", "-s", "0", "a"),
        ("kill", "-s", "99", "a"),
        ("kill", "-s", "", "a"),
        ("kill", "-s", "SIG_DFL", "a"),
    ],
)
def test_nonsense(layerrun, words):
    layerrun("create", "a", check=0)
    layerrun(*words, check=2)


def test_what_does_not_run(apps, layerrun, either):
    layerrun("create", "a", user=either, check=0)
    layerrun("create", "b", user=either, check=0)
    assert "b was not running" in layerrun("stop", "b", user=either, check=0).err
    for words in (("kill",), ("kill", "-s", "HUP")):
        assert "'b' is not running" in layerrun(*words, "b", user=either, check=1).err
    done = layerrun("enter", "b", "--", "true", user=either, check=125)
    assert "'b' is not running" in done.err
    # Those that run have had theirs.
    first = apps.first(user=either)
    assert "'b' is not running" in layerrun("kill", "b", "a", "b", user=either, check=1).err
    assert first.wait(60) == 137
    for verb in ("stop", "kill"):
        layerrun(verb, "--all", user=either, check=0)


@pytest.mark.parametrize("name", ["HUP", "SIGHUP", "hup", "1"])
def test_a_signal_reaches_everybody(apps, layerrun, name):
    both = [apps.ready("sh", "-c", LOOP) for _ in range(2)]
    layerrun("kill", "-s", name, "a", check=0)
    assert [process.stdout.readline() for process in both] == ["HUP\n"] * 2
    assert [process.poll() for process in both] == [None] * 2


def test_signals_as_anybody(apps, layerrun, who):
    first = apps.ready("sh", "-c", LOOP, user=who)
    guest = apps.ready("sh", "-c", LOOP, user=who, verb="enter")
    for number in (signal.SIGUSR1, signal.SIGTERM):
        layerrun("kill", "--signal", str(int(number)), "a", user=who, check=0)
        for process in (first, guest):
            assert process.stdout.readline() == f"{number.name.removeprefix('SIG')}\n"
    layerrun("kill", "-s", "KILL", "a", user=who, check=0)
    assert [process.wait(60) for process in (first, guest)] == [137, 137]


def test_many_names_and_all(apps, layerrun, either):
    started = {name: apps.first(user=either, app=name) for name in "abcd"}
    assert sorted(apps.ps(either)) == list("abcd")
    done = layerrun("ps", "a", "c", user=either, check=0).out
    assert [line.split()[0] for line in done.splitlines()[1:] if not line.startswith(" ")] == ["a", "c"]
    layerrun("stop", "a", "b", "a", user=either, check=0)
    assert sorted(apps.ps(either)) == ["c", "d"]
    assert [started[name].wait(60) for name in "ab"] == [143, 143]
    layerrun("kill", "c", user=either, check=0)
    started["e"] = apps.first(user=either, app="e")
    assert layerrun("stop", "--all", user=either, check=0).err == ""
    assert [started[name].wait(60) for name in "cde"] == [137, 143, 143]
    assert apps.ps(either) == {}


def test_reset_and_remove_with_kill(apps, layerrun, who):
    for words in (("reset",), ("reset", "--path", "/x"), ("remove",)):
        first = apps.first(user=who)
        apps.run("echo x >~/x", user=who)
        layerrun(*words, "-y", "a", user=who, check=5)
        assert first.poll() is None
        layerrun(*words, "-y", "--kill", "a", user=who, check=0)
        assert first.wait(60) == 137
        if words != ("reset", "--path", "/x"):
            assert (
                "a" not in layerrun("list", user=who).out.split() or not layerrun("diff", "a", user=who).out
            )
    assert layerrun("list", user=who, check=0).out == ""


def test_reset_all_with_kill(apps, layerrun):
    started = [apps.first(app=name) for name in "ab"]
    layerrun("create", "c", check=0)
    layerrun("reset", "-y", "--all", check=5)
    layerrun("reset", "-y", "--all", "--kill", check=0)
    assert [process.wait(60) for process in started] == [137, 137]


def test_kill_asks_as_before(apps, layerrun):
    """--kill is no answer to the question."""
    first = apps.first()
    for verb in ("reset", "remove"):
        layerrun(verb, "--kill", "a", check=2)
    layerrun("reset", "--kill", "--dry-run", "a", check=0)
    assert first.poll() is None
