"""Bases share files: what each takes, what goes with the last, and putting right what was spoilt."""

import json
import os
import shutil
import subprocess
from unittest import mock

import pytest

from layerrun.bases import sharing
from layerrun.store.store import Store

FILES = {
    "usr/bin/tool": b"#!/bin/sh\n" * 5000,
    "usr/lib/same": b"a" * 100_000,
    "etc/first": b"1" * 50_000,
    "usr/empty": b"",
}


@pytest.fixture
def source(folder):
    root = f"{folder}/source"
    for path, data in FILES.items():
        os.makedirs(os.path.dirname(f"{root}/{path}"), exist_ok=True)
        with open(f"{root}/{path}", "wb") as file:
            file.write(data)
        os.utime(f"{root}/{path}", (10**9, 10**9))
    os.symlink("tool", f"{root}/usr/bin/link")
    subprocess.run(["chmod", "-R", "a+rX", folder], check=True)
    return root


@pytest.fixture
def second(folder, source):
    """The next version: one file is another."""
    root = f"{folder}/second"
    subprocess.run(["cp", "-a", source, root], check=True)
    with open(f"{root}/etc/first", "wb") as file:
        file.write(b"2" * 50_000)
    return root


@pytest.fixture(params=["root", "plain", "single"])
def user(request):
    if request.param == "root":
        return None
    return request.getfixturevalue(f"{request.param}_user")


def objects(store):
    return [os.path.join(at, name) for at, _, names in os.walk(f"{store}/objects") for name in names]


def tree_of(layerrun, name, user):
    shown = json.loads(layerrun("base", "show", name, "--json", user=user).out)
    return f"{layerrun.store(user)}/bases/{shown['id']}/tree"


@pytest.mark.parametrize(
    "user", ["root", "plain", pytest.param("single", marks=pytest.mark.long)], indirect=True
)
def test_what_removing_an_app_gives_back(layerrun, user, source):
    """Its upper, and of its layers what no other app has."""
    layerrun("base", "import", "one", source, user=user, check=0)
    layerrun("create", "web", "--base", "one", user=user, check=0)
    app_id = json.loads(layerrun("show", "web", "--json", user=user).out)["id"]
    upper = f"{layerrun.store(user)}/apps/{app_id}/data/upper"

    def write(name, size):
        with open(f"{upper}/{name}", "wb") as file:
            file.write(os.urandom(size))
        if user is not None:
            os.chown(f"{upper}/{name}", user.uid, user.gid)

    def frees(*names):
        found = json.loads(layerrun("du", *names, "--json", user=user).out)["apps"]
        return {one["name"]: one["frees"] for one in found}

    write("frozen", 300_000)
    layerrun("snapshot", "web", user=user, check=0)
    write("new", 100_000)
    assert 400_000 <= frees()["web"] < 500_000
    assert frees("web") == frees()
    layerrun("snapshot", "web", user=user, check=0)
    layerrun("branch", "web", "other", user=user, check=0)
    assert all(count < 100_000 for count in frees().values()), "both have it"
    layerrun("remove", "-y", "web", user=user, check=0)
    assert 400_000 <= frees()["other"] < 500_000


def test_the_layers_of_many_apps_are_not_all_open_at_once(layerrun, source):
    layerrun("base", "import", "one", source, check=0)
    for name in ("a", "b", "c"):
        layerrun("create", name, "--base", "one", check=0)
        app_id = json.loads(layerrun("show", name, "--json", check=0).out)["id"]
        with open(f"{layerrun.store()}/apps/{app_id}/data/upper/own", "wb") as file:
            file.write(os.urandom(10_000))
        layerrun("snapshot", name, check=0)
    with Store.open(layerrun.store()) as store:
        at_once = sharing.frees_of_layers(store, store.apps())
        assert len(at_once) == 3
        with (
            mock.patch.object(sharing, "_MOST_OPEN", 1),
            mock.patch.object(sharing, "_frees", wraps=sharing._frees) as asked,
        ):
            assert sharing.frees_of_layers(store, store.apps()) == at_once
        assert [len(call.args[1]) for call in asked.call_args_list] == [1, 1, 1]


def test_a_second_version_costs_its_difference(layerrun, user, source, second):
    layerrun("base", "import", "one", source, user=user, check=0)
    layerrun("base", "import", "two", second, user=user, check=0)
    found = json.loads(layerrun("du", "--json", user=user).out)
    one, two = found["bases"]
    assert found["total"] < one["allocated"] + two["allocated"] - 140_000
    assert 50_000 <= two["frees"] < 100_000
    same = [os.stat(f"{tree_of(layerrun, name, user)}/usr/lib/same") for name in ("one", "two")]
    assert same[0].st_ino == same[1].st_ino
    assert len(objects(layerrun.store(user))) == 5
    # What only the second had goes with it; what only a crash can leave goes with gc.
    quick = {"LAYERRUN_SWEEP": "foreground"}
    layerrun("base", "remove", "-y", "two", user=user, env=layerrun.env(user, **quick), check=0)
    assert len(objects(layerrun.store(user))) == 4
    assert layerrun("base", "verify", "one", user=user).rc == 0
    layerrun("base", "remove", "-y", "one", user=user, env=layerrun.env(user, **quick), check=0)
    assert objects(layerrun.store(user)) == []


def test_gc_takes_objects_without_a_tree(layerrun, source):
    layerrun("base", "import", "one", source, check=0)
    store = layerrun.store()
    shutil.copy(objects(store)[0], f"{os.path.dirname(objects(store)[0])}/left")
    assert "object" in layerrun("gc", "--dry-run").out
    assert len(objects(store)) == 5
    layerrun("gc", "-y", check=0)
    assert len(objects(store)) == 4
    assert layerrun("base", "verify", "one").rc == 0


def spoil(top):
    with open(f"{top}/usr/lib/same", "r+b") as file:
        file.write(b"b")
    os.unlink(f"{top}/usr/bin/link")
    os.chmod(f"{top}/etc", 0o777)
    os.mkdir(f"{top}/usr/added")


def test_repair_from_what_it_came_from(layerrun, user, source):
    layerrun("base", "import", "one", source, user=user, check=0)
    top = tree_of(layerrun, "one", user)
    spoil(top)
    wrong = layerrun("base", "verify", "one", user=user)
    assert wrong.rc == 1
    assert sorted(line.split()[1] for line in wrong.out.splitlines()) == [
        "/etc",
        "/usr/added",
        "/usr/bin/link",
        "/usr/lib/same",
    ]
    done = layerrun("base", "verify", "one", "--repair", source, "-y", "--json", user=user)
    assert done.rc == 0
    assert len(json.loads(done.out)["repaired"]) == 4
    assert layerrun("base", "verify", "one", user=user).rc == 0
    # The object was spoilt as well, and the next import gets the good one.
    layerrun("base", "import", "again", source, user=user, check=0)
    assert layerrun("base", "verify", "again", user=user).rc == 0


def test_repair_from_another_version(layerrun, source, second):
    layerrun("base", "import", "one", source, check=0)
    top = tree_of(layerrun, "one", None)
    spoil(top)
    with open(f"{top}/etc/first", "ab") as file:
        file.write(b"spoilt, and the second version has something else")
    done = layerrun("base", "verify", "one", "--repair", second, "-y", "--json")
    assert done.rc == 1
    told = json.loads(done.out)
    assert {one["path"] for one in told["repaired"]} == {"/usr/added", "/usr/bin/link", "/usr/lib/same"}
    assert {one["path"] for one in told["problems"]} == {"/etc", "/etc/first"}
    assert layerrun("base", "verify", "one", "--repair", source, "-y").rc == 0


def test_repair_waits_for_no_app(layerrun, source):
    layerrun("base", "import", "one", source, check=0)
    layerrun("create", "web", "--base", "one", check=0)
    spoil(tree_of(layerrun, "one", None))
    with open(f"{layerrun.store()}/apps/{os.listdir(layerrun.store() + '/apps')[0]}/lock", "w") as lock:
        import fcntl

        fcntl.flock(lock, fcntl.LOCK_EX)
        assert layerrun("base", "verify", "one", "--repair", source, "-y").rc == 5
    assert layerrun("base", "verify", "one", "--repair", source, "-y").rc == 0


def test_owners_that_one_id_cannot_keep(layerrun, folder, source, single_user):
    """They stand in the manifest, so it is the base that root's store has."""
    os.chown(f"{source}/etc/first", 33, 44)
    os.mknod(f"{source}/usr/null", 0o20666, os.makedev(1, 3))
    tar = f"{folder}/tree.tar"
    subprocess.run(["tar", "-C", source, "--exclude=./usr/null", "-cf", tar, "."], check=True)
    os.unlink(f"{source}/usr/null")
    mine = json.loads(layerrun("base", "import", "one", source, "--json").out)
    for name, what in (("folder", source), ("tar", tar)):
        theirs = json.loads(layerrun("base", "import", name, what, "--json", user=single_user).out)
        assert theirs["digest"] == mine["digest"]
        assert theirs["ids"] == "single"
        assert layerrun("base", "verify", name, user=single_user).rc == 0
        assert "in the manifest alone" in layerrun("base", "show", name, user=single_user).out
