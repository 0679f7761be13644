"""Stored plans: none outlives what it was made from, whoever comes in between."""

import os

import pytest

from layerrun.model import AppConfig, IdMode
from layerrun.runtime import data
from layerrun.store.plans import write_plan
from layerrun.store.store import Store


@pytest.fixture
def store(store_path):
    with Store.open(store_path) as opened:
        yield opened


def plans(store):
    return sorted(os.listdir(f"{store.path}/plans"))


CHANGES = {
    "update": lambda store, name: store.update_app(name, AppConfig(command=("new",))),
    "reset": lambda store, name: store.reset_app(name),
    "remove": lambda store, name: store.remove_app(name),
    "rename": lambda store, name: store.rename_app(name, "three"),
    "reset --path": lambda store, name: data.reset_paths(store, store.app(name), ["/x"]),
    "clear-cache": lambda store, name: data.clear_cache(store, store.app(name)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_forgotten(store, change):
    app = store.create_app("one", AppConfig(), ids=IdMode.NONE)
    write_plan(store, app, b"plan")
    assert plans(store) == ["one"]
    CHANGES[change](store, "one")
    assert plans(store) == []


@pytest.mark.parametrize("change", [name for name in CHANGES if name != "rename"])
def test_forgotten_though_renamed_before_the_lock_was_had(store, change, monkeypatch):
    """While a change waits for the lock the app is renamed and started under its new name."""
    store.create_app("one", AppConfig(), ids=IdMode.NONE)
    locked = Store.app_lock

    def late(self, app, what, wait=0.0):
        with Store.open(store.path) as other:
            write_plan(other, other.rename_app("one", "two"), b"plan")
        assert plans(store) == ["two"]
        return locked(self, app, what, wait)

    monkeypatch.setattr(Store, "app_lock", late)
    CHANGES[change](store, "one")
    assert plans(store) == []


def test_not_written_under_a_name_that_is_anothers_now(store):
    app = store.create_app("one", AppConfig(), ids=IdMode.NONE)
    store.rename_app("one", "two")
    store.create_app("one", AppConfig(), ids=IdMode.NONE)
    write_plan(store, app, b"plan")
    assert plans(store) == []
