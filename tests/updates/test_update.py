"""Bases move from version to version, with all their apps, and back; what fails changes nothing."""

import json
import os
import pathlib

import attrs
import pytest

from layerrun import api
from layerrun.errors import HealthError, UsageError
from layerrun.runtime.compile import compile_plan
from layerrun.store.plans import is_stored, write_plan
from layerrun.store.store import Store

NEW = {"etc/shared": "2\n", "etc/new": "new\n", "etc/old": None}


def test_there_and_back(place):
    place("create", "web", "--base", "small", check=0)
    place.sh("echo mine >/etc/mine")
    two = place.version("two", NEW)
    seen = place.json("base", "update", "small", "--from", two, "-y", "--check", "test -e /etc/new")
    assert (seen["old"]["version"], seen["new"]["version"], seen["switched"]) == (1, 2, True)
    assert (seen["changed"], seen["apps"], seen["hidden"]) == (3, ["web"], [])
    assert [(one["command"], one["app"], one["passed"]) for one in seen["checks"]] == [
        ("test -e /etc/new", None, True)
    ]
    look = "cat /etc/shared /etc/mine; ls /etc/old 2>/dev/null; true"
    assert place.sh(look) == "2\nmine\n"
    for current, shown in ((1, "1\nmine\n/etc/old\n"), (2, "2\nmine\n"), (1, "1\nmine\n/etc/old\n")):
        place("base", "rollback", "small", "-y", check=0)
        assert place.sh(look) == shown
        assert place.versions() == {1: current == 1, 2: current == 2}
    place("base", "switch", "small", "2", "-y", check=0)
    assert place.sh(look) == "2\nmine\n"
    moves = place.json("base", "history", "small")["moves"]
    assert [(m["what"], m["version"], m["earlier"]) for m in moves] == [
        ("update", 2, 1), ("rollback", 1, 2), ("rollback", 2, 1), ("rollback", 1, 2), ("switch", 2, 1),
    ]  # fmt: skip
    assert place("base", "verify", "small", check=0).out == ""
    assert place("base", "verify", "small@1", check=0).out == ""


def test_what_is_the_same_is_no_update(root):
    assert "is up to date" in root("base", "update", "small", "-y", check=0).err
    assert root.versions() == {1: True}
    two = root.version("two", NEW)
    root.update(two)
    root.update(f"{root.top}/one")  # the first version is there, and becomes current again
    assert root.versions() == {1: True, 2: False}


@pytest.mark.parametrize(
    ("check", "why"),
    [
        ("echo bad; exit 7", "exit status 7"),
        ("kill -9 $$", "it was ended by SIGKILL"),
        ("(trap '' TERM INT; sleep 1000) & sleep 1000", "it did not end within 0.7 s"),
        ("while :; do echo loud; done", "it did not end within 0.7 s"),
    ],
)
def test_a_check_that_fails(root, check, why):
    root("create", "web", "--base", "small", check=0)
    two = root.version("two", NEW)
    failed = root.update(
        two, "--timeout", "0.7" if "sleep" in check or "while" in check else "60", "--check", check, check=4
    )
    assert why in failed.err
    assert "small@1" in failed.err
    assert root.versions() == {1: True}
    assert root.sh("cat /etc/shared") == "1\n"
    status = root.json("status")["bases"][0]
    assert status["version"] == 1
    assert why in status["failed"]
    assert [app["name"] for app in root.json("list")["apps"]] == ["web"]
    assert len(os.listdir(root.store("bases"))) == 1
    root.update(two)
    assert root.json("status")["bases"][0]["failed"] is None


def test_an_apps_health_is_asked_with_its_data(place):
    place("create", "web", "--base", "small", "--health", "cat /etc/mine && test ! -e /etc/bad", check=0)
    place("create", "other", "--base", "small", check=0)
    two = place.version("two", NEW)
    failed = place.update(two, check=4)
    assert "of web failed over it: exit status 1" in failed.err
    place.sh("echo mine >/etc/mine")
    place("app", "web", "--profile", "work", "--", "sh", "-c", "echo x >/etc/mine", check=0)
    place.update(two)
    place.update(place.version("bad", {"etc/bad": ""}), check=4)
    place("edit", "web", "--unset", "health", check=0)
    place.update(f"{place.top}/bad")
    # The checks wrote nothing into it.
    assert place.sh("ls /etc/mine /etc/bad") == "/etc/bad\n/etc/mine\n"


def test_a_check_of_the_base_is_kept(root):
    root("base", "health", "small", "--add", "test ! -e /etc/bad", "--add", "true", check=0)
    root("base", "health", "small", "--drop", "true", check=0)
    assert root.json("base", "health", "small")["health"] == ["test ! -e /etc/bad"]
    root.update(root.version("bad", {"etc/bad": ""}), check=4)
    assert root("base", "health", "small", "--drop", "nothing").rc == 6
    assert root("base", "health", "host", "--add", "x").rc == 2


def test_what_runs_keeps_what_it_has(place):
    place("create", "web", "--base", "small", check=0)
    place("app", "web", "-d", "--", "sleep", "1000", check=0)
    two = place.version("two", NEW)
    assert place.json("base", "update", "small", "--from", two, "-y")["running"] == ["web"]
    assert place("enter", "web", "--", "cat", "/etc/shared", check=0).out == "1\n"
    assert place("base", "remove", "-y", "small@1").rc == 3
    place("stop", "web", check=0)
    assert place.sh("cat /etc/shared") == "2\n"
    place("base", "remove", "-y", "small@1", check=0)
    assert place.versions() == {2: True}
    assert place("base", "rollback", "small", "-y").rc == 6


def test_a_version_is_not_repaired_beneath_what_runs_on_it(root):
    root("create", "web", "--base", "small", check=0)
    root("create", "old", "--base", "small@1", check=0)
    with Store.open(root.store()) as store:
        tree = store.base_path(store.base("small"))
    two = root.version("two", NEW)
    pathlib.Path(tree, "etc/added").write_text("x")
    repair = ("base", "verify", "small@1", "--repair", f"{root.top}/one", "-y")
    for app in ("web", "old"):
        root("app", app, "-d", "--", "sleep", "1000", check=0)
        if app == "web":
            root.update(two)
        assert app in root(*repair, check=5).err
        root("stop", app, check=0)
    assert os.path.exists(f"{tree}/etc/added")
    root("app", "web", "-d", "--", "sleep", "1000", check=0)  # on the other version
    assert root("base", "verify", "small@1").rc == 1
    root("stop", "web", check=0)
    root(*repair, check=0)


def test_throwaways_stay_where_they_began(place):
    place("try", "-n", "--name", "t", "--base", "small", "--", "sh", "-c", "echo t >/etc/t", check=0)
    place("try", "-n", "--base", "small", "--", "true", check=0)  # a spare is ready from now on
    place.update(place.version("two", NEW))
    assert [(c["change"], c["path"]) for c in place.json("diff", "t")["changes"]] == [("A", "/etc/t")]
    assert place("try", "-n", "--base", "small", "--", "cat", "/etc/shared", check=0).out == "2\n"
    assert place("try", "-n", "--base", "small@1", "--", "cat", "/etc/shared", check=0).out == "1\n"
    assert place("base", "remove", "-y", "small@1").rc == 3
    place("discard", "-y", "t", check=0)
    place("base", "remove", "-y", "small@1", check=0)


def test_dry_run_and_no(root):
    root("create", "web", "--base", "small", check=0)
    two = root.version("two", NEW)
    seen = root.json("base", "update", "small", "--from", two, "--dry-run")
    assert (seen["switched"], seen["changed"]) == (False, 3)
    assert root("base", "update", "small", "--from", two).rc == 2  # nobody to ask
    assert root.versions() == {1: True}
    root.update(two)
    assert root.versions() == {1: False, 2: True}  # a number that nobody saw is given again


def test_kept_versions(root):
    root("base", "keep", "small", "1", check=0)
    root("base", "pin", "small@1", check=0)
    assert "small@1 is pinned" in root("base", "remove", "-y", "small@1", check=2).err
    for number in range(2, 6):
        root.update(root.version(str(number), {"etc/n": f"{number}\n"}))
    assert root.versions() == {1: False, 4: False, 5: True}
    root("base", "unpin", "small@1", check=0)
    root("create", "old", "--base", "small@4", check=0)
    assert root.sh("cat /etc/n", app="old") == "4\n"
    assert root("base", "remove", "-y", "small@5").rc == 3
    root("gc", "-y", "--all", check=0)
    assert root.versions() == {4: False, 5: True}
    root("remove", "-y", "old", check=0)
    root("base", "remove", "-y", "small", check=0)
    assert root.json("base", "versions")["versions"] == []


def test_staged_until_the_next_start(place):
    place("create", "web", "--base", "small", check=0)
    assert place.sh("cat /etc/shared") == "1\n"
    two = place.version("two", NEW)
    assert place.json("base", "update", "small", "--from", two, "-y", "--stage")["staged"] is True
    assert place.json("status")["bases"][0]["staged"] == 2
    assert place.versions() == {1: True, 2: False}
    assert place.sh("cat /etc/shared") == "2\n"
    assert place.json("status")["bases"][0]["staged"] is None


@pytest.mark.long
def test_a_later_update_outdoes_what_is_staged(root):
    root("create", "web", "--base", "small", check=0)
    root.update(root.version("two", NEW), "--stage")
    root.update(root.version("three", {"etc/shared": "3\n"}))
    assert root.json("status")["bases"][0]["staged"] is None
    assert root.sh("cat /etc/shared") == "3\n"
    root.update(root.version("four", {"etc/shared": "4\n"}), "--stage")
    root("base", "rollback", "-y", "small", check=0)
    assert root.json("status")["bases"][0]["staged"] == 4, "a later one stays"


def test_a_start_that_cannot_switch_leaves_no_plan_behind(root):
    root("create", "web", "--base", "small", check=0)
    root.sh("true")
    root.update(root.version("two", NEW), "--stage")
    with Store.open(root.store()) as store:
        app = store.app("web")
        write_plan(store, app, b"a start that was under way")
        assert not is_stored(store, "web", b"a start that was under way")
        done = api.Store(store.path).app("web").run(["cat", "/etc/shared"], capture_output=True)
        assert done.stdout == b"2\n"
        assert store.base("small").version == 2
        write_plan(store, store.app("web"), b"later")
        assert is_stored(store, "web", b"later")


@pytest.mark.parametrize("own", [True, pytest.param(False, marks=pytest.mark.long)])
def test_an_app_that_does_not_start_goes_back(place, own):
    place("create", "web", "--base", "small", *(["--", "cat", "/etc/shared"] if own else []), check=0)
    words = ("app", "web") if own else ("app", "web", "--", "cat", "/etc/shared")
    assert place(*words, check=0).out == "1\n"
    place.update(place.version("bad", {"etc/shared": "2\n", "usr/bin/cat": None}))
    for number in (1, 2):
        failed = place(*words, check=127)
        assert f"{number} of 3 times" in failed.err
        assert place.json("status")["apps"][0]["failures"] == number
    assert "it is back on small@1" in place(*words, check=127).err
    assert place(*words, check=0).out == "1\n"
    state = place.json("status")["apps"][0]
    assert (state["name"], state["state"], state["base"]) == ("web", "fallen", "small@1")
    assert place("base", "remove", "-y", "small@1").rc == 3
    # The next update takes it along again.
    place.update(place.version("good", {"etc/shared": "3\n"}))
    assert place(*words, check=0).out == "3\n"
    assert place.json("status")["apps"] == []


def test_a_start_that_goes_well_ends_the_trial(root):
    root("create", "web", "--base", "small", check=0)
    root.update(root.version("two", NEW))
    assert [app["state"] for app in root.json("status")["apps"]] == ["trial"]
    root.sh("exit 3", check=3)
    assert root.json("status")["apps"] == []


def test_a_start_that_has_read_its_app_keeps_to_that_version(root):
    root("create", "web", "--base", "small", check=0)
    with Store.open(root.store()) as store:
        app, old = store.app("web"), store.base("small")
        root.update(root.version("two", NEW))
        assert store.base("small").id != old.id
        *_, base = store.lower_fds(app)
        with open("etc/shared", opener=lambda path, flags: os.open(path, flags, dir_fd=base)) as file:
            assert file.read() == "1\n"
        os.close(base)
        plan = repr(compile_plan(store, app))
        assert f"bases/{old.id}/" in plan
        assert f"bases/{store.base('small').id}/" not in plan


def test_an_app_that_is_given_another_base_is_on_trial_no_more(root):
    root("create", "web", "--base", "small", check=0)
    root("base", "import", "other", f"{root.top}/one", check=0)
    root.update(root.version("two", NEW))
    with Store.open(root.store()) as store:
        app, other = store.app("web"), store.base("other")
        with store.catalog.transaction():
            store.catalog.configure_app(app.id, app.config, app.base_id)
        assert store.catalog.trial(app.id) is not None
        with store.catalog.transaction():
            store.catalog.configure_app(app.id, attrs.evolve(app.config, base="other"), other.id)
        assert store.catalog.trial(app.id) is None


def test_errors(root, layerrun):
    assert issubclass(HealthError, Exception)
    two = root.version("two", NEW)
    for words, status in (
        (("base", "update", "host", "--from", two, "-y"), 2),
        (("base", "update", "small@1", "--from", two, "-y"), 2),
        (("base", "update", "nothing", "--from", two, "-y"), 6),
        (("base", "update", "small", "--from", f"{root.top}/nowhere", "-y"), 2),
        (("base", "update", "small", "--from", two, "--timeout", "0", "-y"), 2),
        (("base", "switch", "small", "9", "-y"), 6),
        (("base", "switch", "small", "other@1", "-y"), 2),
        (("base", "switch", "small", "1"), 2),
        (("base", "rollback", "small", "-y"), 6),
        (("base", "rollback", "host", "-y"), 2),
        (("base", "pin", "small"), 2),
        (("base", "pin", "small@9"), 6),
        (("base", "history", "host"), 2),
        (("base", "keep", "nothing"), 6),
        (("base", "shadows", "small"), 6),
    ):
        done = layerrun(*words)
        assert done.rc == status, (words, done.rc, done.err)
        assert "Traceback" not in done.err
    assert json.loads(layerrun("base", "versions", "--json").out)["versions"][0]["version"] == 1


def test_checks_have_the_network_that_is_theirs(root):
    alone = 'test "$(grep -c : /proc/net/dev)" = 1'
    host = len([line for line in pathlib.Path("/proc/net/dev").read_text().splitlines() if ":" in line])
    root("create", "web", "--base", "small", "--network", "none", "--health", alone, check=0)
    root("create", "other", "--base", "small", "--health", alone.replace("= 1", f"= {host}"), check=0)
    two = root.version("two", NEW)
    root.update(two, "--check", alone, "--dry-run")
    root.update(two, "--check", alone.replace("= 1", f"= {host}"), "--check-network", "host")
    assert root.update(two, "--check-network", "link:web", check=2).err
    small = api.Store(root.store()).base("small")
    for wrong in ({"network": "link:web"}, {"tries": 0}, {"timeout": 0}):
        with pytest.raises(UsageError):
            small.update(two, **wrong)
    with pytest.raises(HealthError):
        small.update(root.version("three", {"etc/new": "3\n"}), checks=["false"])
    assert (small.version, [base.name for base in small.versions()]) == (2, ["small@1", "small@2"])
