"""I4: killed at any line while a stack changes, nothing that an app has is lost, and the next command works."""

import os
import random
import shutil
from pathlib import Path

import pytest
from support.stores import check_whole, die_at_line

from layerrun.model import AppConfig, Home, IdMode
from layerrun.runtime import restoring, snapshots, squash
from layerrun.store.store import Store

# Neighbouring lines mostly stand for the same state on disk. 1 tries every one, as the long test does.
STRIDE = int(os.environ.get("CRASH_STRIDE", "113"))


def write(store, app, name, text):
    for part in ("upper", "home"):
        with open(f"{store.app_dir(app)}/data/{part}/{name}", "w") as file:
            file.write(text)


def shown(store, name, part="upper"):
    """What an app shows: its files by name, of those that `write` makes."""
    app = store.app(name)
    places = [f"{store.app_dir(app)}/data/{part}"]
    for layer in reversed(app.stack):
        places.append(f"{store.path}/layers/{layer}/{'tree' if part == 'upper' else part}")
    found = {}
    for place in places:
        for entry in os.scandir(place):
            if entry.name not in found:
                found[entry.name] = Path(entry.path).read_text() if entry.is_file() else None
    return {key: text for key, text in found.items() if text is not None}


@pytest.fixture
def template(folder):
    """Two apps: "one" with three snapshots and something above them, "two" with something of its own."""
    path = f"{folder}/template"
    with Store.open(path) as store:
        for name in ("one", "two"):
            app = store.create_app(name, AppConfig(home=Home.FRESH), ids=IdMode.RANGE)
            write(store, app, "precious", name)
        for number in (1, 2, 3):
            write(store, store.app("one"), f"f{number}", str(number))
            snapshots.snapshot(store, store.app("one"), f"s{number}")
        write(store, store.app("one"), "above", "all")
    return path


ALL = {"precious": "one", "f1": "1", "f2": "2", "f3": "3", "above": "all"}
ONE = {"precious": "one", "f1": "1"}


def same_twice(store, name):
    upper, home = shown(store, name), shown(store, name, "home")
    assert upper == home
    return upper


def made(store):
    return [found for found in snapshots.history(store, store.app("one")) if found.number > 3]


def check_snapshot(store, *, done):
    assert same_twice(store, "one") == ALL
    assert len(made(store)) == 1 if done else len(made(store)) <= 1
    snapshots.rollback(store, store.app("one"), "s1")
    assert same_twice(store, "one") == ONE


def check_rollback(store, *, done):
    now = same_twice(store, "one")
    assert now == ONE if done else now in (ALL, ONE)
    if now == ONE:
        (kept,) = made(store)
        assert kept.automatic
        snapshots.rollback(store, store.app("one"), str(kept.number))
        assert same_twice(store, "one") == ALL


def check_branch(store, *, done):
    assert same_twice(store, "one") == ALL
    names = [app.name for app in store.apps()]
    assert not done or "new" in names
    if "new" in names:
        assert same_twice(store, "new") == ALL
        store.remove_app("one")
        assert same_twice(store, "new") == ALL


def check_factory(store, *, done):
    assert same_twice(store, "one") == ALL
    app = store.app("one")
    assert (app.frozen == ()) == bool(app.config.layers)
    if done or app.config.layers:
        store.reset_app("one")
        assert same_twice(store, "one") == ALL
        snapshots.rollback(store, store.app("one"), "s1")
        assert same_twice(store, "one") == ONE


def check_squash(store, *, done):
    assert same_twice(store, "one") == ALL
    assert len(store.app("one").frozen) == 1 if done else len(store.app("one").frozen) in (1, 3)
    snapshots.rollback(store, store.app("one"), "s1")
    assert same_twice(store, "one") == ONE


def check_restore(store, *, done):
    now = shown(store, "one")
    assert now.pop("f2") == ("2" if done else now.get("f2", "2"))
    assert now.pop("above") == "all"


def check_reset(store, *, done):
    assert same_twice(store, "one") in (({},) if done else ({}, ALL))
    snapshots.rollback(store, store.app("one"), "s1")
    assert same_twice(store, "one") == ONE


ACTIONS = {
    "snapshot": (lambda s: snapshots.snapshot(s, s.app("one"), "new"), check_snapshot),
    "rollback": (lambda s: snapshots.rollback(s, s.app("one"), "s1"), check_rollback),
    "branch": (lambda s: snapshots.branch(s, s.app("one"), "new"), check_branch),
    "factory": (lambda s: snapshots.factory(s, s.app("one")), check_factory),
    "squash": (lambda s: squash.squash(s, s.app("one")), check_squash),
    "restore": (lambda s: restoring.restore(s, s.app("one"), "s2", ["/f2"]), check_restore),
    "reset": (lambda s: s.reset_app("one"), check_reset),
}


def at_every_line(template, store_path, action, check, stride):
    def act():
        with Store.open(store_path) as store:
            action(store)

    number, killed = random.randint(1, stride), True
    while killed:
        shutil.copytree(template, store_path)
        killed = die_at_line(number, act)
        check_whole(store_path)
        with Store.open(store_path) as store:
            assert not [
                name for name in os.listdir(f"{store_path}/layers") if store.catalog.layer(name) is None
            ]
            check(store, done=not killed)
            assert same_twice(store, "two") == {"precious": "two"}
            for app in store.apps():
                assert set(os.listdir(store.app_dir(app))) <= {"data", "lock"}, (
                    "nothing of the change is left"
                )
        check_whole(store_path)
        shutil.rmtree(store_path)
        number += stride
    assert number > 100


@pytest.mark.parametrize("what", ACTIONS)
def test_killed(template, store_path, what):
    at_every_line(template, store_path, *ACTIONS[what], STRIDE)


@pytest.mark.long
@pytest.mark.parametrize("what", ACTIONS)
def test_killed_at_every_line(template, store_path, what):
    at_every_line(template, store_path, *ACTIONS[what], 1)
