"""Spares: several at once, killed at any moment, outdated, damaged, gone; nobody sees them."""

from __future__ import annotations

import os
import pathlib
import shutil
import signal

import pytest
from support.tries import KEEP, TRUE, begin, end, kill, plans, throwaways, written


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
