"""Snapshots from the command line: taken, gone back to, branched from, in every mode."""

import json
import os

import pytest
from support import users
from support.whose import whose

SINGLE = pytest.param(users.SINGLE, marks=pytest.mark.long)
WHO = ["root", pytest.param(users.PLAIN, marks=pytest.mark.long), SINGLE]
everybody = pytest.mark.parametrize("who", ["root", users.PLAIN, SINGLE], indirect=True)


@pytest.fixture(params=WHO)
def who(request):
    return whose(request.param)


@pytest.fixture
def sh(layerrun, who):
    """Run a line of shell in an app of the user's in turn."""

    def run(name, line, check=0):
        return layerrun("app", name, "--", "sh", "-c", line, user=who, check=check).out

    return run


@pytest.fixture
def verb(layerrun, who):
    def run(*words, check=0):
        return layerrun(*words, user=who, check=check)

    return run


def history(verb, name):
    return json.loads(verb("history", name, "--json").out)["snapshots"]


@everybody
@pytest.mark.parametrize("home", ["overlay", "fresh"])
def test_there_and_back(verb, sh, home):
    verb("create", "web", "--home", home)
    sh("web", "echo one >~/a; mkdir ~/d; echo x >~/d/x; ln ~/a ~/b")
    verb("snapshot", "web", "first")
    assert sh("web", "cat ~/a ~/b ~/d/x").split() == ["one", "one", "x"]
    sh("web", "rm ~/a; echo two >~/d/x; echo new >~/d/y; mv ~/d ~/e")
    verb("snapshot", "web")
    assert sh("web", "ls ~/e; test -e ~/a || echo gone; test -e ~/d || echo moved").split() == [
        "x",
        "y",
        "gone",
        "moved",
    ]
    sh("web", "echo three >~/e/x")
    verb("rollback", "web", "first")
    assert sh("web", "cat ~/a ~/d/x; test -e ~/e || echo gone").split() == ["one", "x", "gone"]
    # What it had before going back is a snapshot by itself.
    assert [(s["number"], s["tag"], s["automatic"]) for s in history(verb, "web")] == [
        (1, "first", False),
        (2, None, False),
        (3, None, True),
    ]
    verb("rollback", "web:3")
    assert sh("web", "cat ~/e/x ~/e/y").split() == ["three", "new"]


def test_reset_drops_what_is_frozen_and_keeps_snapshots(verb, sh):
    sh("web", "echo one >~/a")
    verb("snapshot", "web", "kept")
    sh("web", "echo two >~/a")
    verb("reset", "-y", "web")
    assert sh("web", "test -e ~/a || echo gone").split() == ["gone"]
    verb("rollback", "web", "kept")
    assert sh("web", "cat ~/a").split() == ["one"]


def test_branches_go_their_own_way(verb, sh):
    sh("web", "echo one >~/a")
    verb("branch", "web", "left")
    verb("branch", "web", "right")
    sh("left", "echo two >~/a")
    sh("right", "rm ~/a")
    assert sh("web", "cat ~/a").split() == ["one"]
    assert sh("left", "cat ~/a").split() == ["two"]
    assert sh("right", "test -e ~/a || echo gone").split() == ["gone"]
    verb("remove", "-y", "web")
    assert sh("left", "cat ~/a").split() == ["two"]


def test_a_branch_of_a_snapshot_and_a_profile(verb, sh):
    sh("web", "echo one >~/a")
    verb("snapshot", "web", "first")
    sh("web", "echo two >~/a")
    verb("branch", "web:first", "old")
    verb("branch", "web", "web@test")
    assert sh("old", "cat ~/a").split() == ["one"]
    assert verb("app", "web", "--profile", "test", "--", "sh", "-c", "cat ~/a").out.split() == ["two"]
    assert verb("branch", "old", "web@other", check=2).err


def test_a_clone_has_the_snapshots_too(verb, sh):
    sh("web", "echo one >~/a")
    verb("snapshot", "web", "first")
    sh("web", "echo two >~/a")
    verb("clone", "web", "shop")
    assert sh("shop", "cat ~/a").split() == ["two"]
    verb("rollback", "shop", "first")
    assert sh("shop", "cat ~/a").split() == ["one"]
    assert sh("web", "cat ~/a").split() == ["two"]
    assert [s["number"] for s in history(verb, "shop")] == [1, 2]


@everybody
def test_throwaways_have_them_too(verb, who, layerrun):
    verb("try", "-n", "--name", "t", "--", "sh", "-c", "echo one >~/a")
    verb("snapshot", "t")
    verb("try", "-n", "--name", "t", "--", "sh", "-c", "cat ~/a; echo two >~/a")
    verb("rollback", "t")
    assert verb("try", "-n", "--name", "t", "--", "sh", "-c", "cat ~/a").out.startswith("one\n")
    verb("branch", "t", "web", "--app")
    assert verb("app", "web", "--", "sh", "-c", "cat ~/a").out.startswith("one\n")


def test_what_makes_no_sense(verb, sh):
    sh("web", "echo one >~/a")
    assert "no snapshot that somebody asked for" in verb("rollback", "web", check=6).err
    assert "number" in verb("snapshot", "web", "12", check=2).err
    verb("snapshot", "web", "first")
    assert "already" in verb("snapshot", "web", "first", check=1).err
    assert "did you mean first" in verb("rollback", "web", "fist", check=6).err
    assert verb("rollback", "web:first", "first", check=2).err
    assert verb("pin", "web", check=2).err
    verb("pin", "web:first")
    assert "unpin" in verb("forget", "web:first", check=2).err
    verb("unpin", "web", "first")
    verb("forget", "web:first")
    assert history(verb, "web") == []
    verb("snapshot", "web")
    # A number is never given again.
    assert [s["number"] for s in history(verb, "web")] == [2]


def test_layers_go_with_what_stands_on_them(verb, sh, layerrun, who):
    layers = os.path.join(layerrun.store(who), "layers")
    sh("web", "echo one >~/a")
    verb("snapshot", "web")
    sh("web", "echo two >~/a")
    verb("snapshot", "web")
    assert len(os.listdir(layers)) == 2
    verb("forget", "web:2")
    assert len(os.listdir(layers)) == 2  # it stands on both
    verb("rollback", "web", "1")
    verb("forget", "web:3")
    assert len(os.listdir(layers)) == 1
    verb("remove", "-y", "web")
    assert os.listdir(layers) == []


@everybody
def test_an_app_that_runs_is_busy(verb, layerrun, who):
    verb("app", "web", "--detach", "--", "sleep", "60")
    for words in (("snapshot", "web"), ("branch", "web", "other"), ("clone", "web", "other")):
        assert "running" in verb(*words, check=5).err
    verb("snapshot", "--kill", "web")
    assert verb("ps").out.strip() == ""


def test_what_is_kept_has_the_layers_too(verb, sh, layerrun, who):
    sh("web", "echo one >/var/tmp/layerrun-a")
    verb("snapshot", "web")
    sh("web", "echo two >/var/tmp/layerrun-b")
    verb("remove", "--keep-data", "web")
    kept = os.path.join(layerrun.store(who), "kept")
    (name,) = os.listdir(kept)
    for place, text in (("frozen/tree/var/tmp/layerrun-a", "one"), ("upper/var/tmp/layerrun-b", "two")):
        with open(os.path.join(kept, name, place)) as file:
            assert file.read().strip() == text
    assert os.listdir(os.path.join(layerrun.store(who), "layers")) == []


def test_du_counts_layers_once_in_the_total(verb, sh):
    sh("web", "head -c 1000000 /dev/urandom >~/big")
    verb("snapshot", "web")
    verb("branch", "web", "two")
    sh("two", "head -c 500000 /dev/urandom >~/more")
    sh("web", "rm ~/big")
    told = json.loads(verb("du", "--json").out)
    web, two = sorted(app["allocated"] for app in told["apps"])
    assert 1000000 < web < 1200000
    assert 1500000 < two < 1800000
    assert 1500000 < told["total"] < 1800000
    listed = json.loads(verb("list", "--size", "--json").out)["apps"]
    assert sorted(app["allocated"] for app in listed) == [web, two]
    # Of a reset app what its snapshots hold is still there.
    verb("reset", "-y", "web")
    verb("remove", "-y", "two")
    assert 1000000 < json.loads(verb("du", "--json").out)["total"] < 1200000
    verb("forget", "web:1")
    assert json.loads(verb("du", "--json").out)["total"] < 200000


def test_gc_takes_what_was_made_by_itself(verb, sh):
    sh("web", "echo one >~/a")
    verb("snapshot", "web")
    for text in ("two", "three"):
        sh("web", f"echo {text} >~/a; head -c 1000000 /dev/urandom >~/big")
        verb("rollback", "web", "1")
    verb("pin", "web:3")
    verb("gc", "-y")
    assert len(history(verb, "web")) == 3
    (one,) = json.loads(verb("gc", "--all", "--dry-run", "--json").out)["garbage"]
    assert one["what"].startswith("web:2,")
    assert one["bytes"] > 1000000
    verb("gc", "--all", "-y")
    assert [found["number"] for found in history(verb, "web")] == [1, 3]
    verb("rollback", "web", "3")
    assert sh("web", "cat ~/a").split() == ["three"]
