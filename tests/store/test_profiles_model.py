"""Any sequence of what is done to apps and profiles, against a model of them."""

import os
import random

import pytest
from support.profiles import token
from support.stores import check_whole

from layerrun.errors import BusyError, ExistsError
from layerrun.model import AppConfig, IdMode
from layerrun.store.store import Store


class Model:
    """What the store must hold: for each app its token and its profiles' tokens."""

    def __init__(self, store, seed):
        self.store, self.random, self.apps, self.count = store, random.Random(seed), {}, 0
        self.held = []

    def names(self):
        return [name if p is None else f"{name}@{p}" for name, family in self.apps.items() for p in family]

    def new(self):
        self.count += 1
        return f"n{self.count}"

    def create(self):
        name = self.new()
        self.store.create_app(name, AppConfig(command=(name,)), ids=IdMode.RANGE)
        self.apps[name] = {None: None}

    def profile(self):
        name, profile = self.random.choice(list(self.apps)), self.random.choice("pqr")
        try:
            self.store.create_profile(self.store.app(name), profile)
        except ExistsError:
            assert profile in self.apps[name]
        else:
            assert profile not in self.apps[name]
            self.apps[name][profile] = None

    def write(self):
        name = self.random.choice(self.names())
        app, _, profile = name.partition("@")
        self.apps[app][profile or None] = token(self.store, self.store.app(name), self.new())

    def reset(self):
        name = self.random.choice(self.names())
        app, _, profile = name.partition("@")
        self.store.reset_app(name)
        self.apps[app][profile or None] = None

    def rename(self):
        old, new = self.random.choice(list(self.apps)), self.new()
        self.store.rename_app(old, new)
        self.apps[new] = self.apps.pop(old)

    def remove(self):
        name = self.random.choice(self.names())
        app, _, profile = name.partition("@")
        busy = not profile and any(e.parent == self.store.app(app).id for e, _ in self.held)
        try:
            self.store.remove_app(name)
        except BusyError:
            assert busy
            return
        assert not busy
        if profile:
            del self.apps[app][profile]
        else:
            del self.apps[app]

    def ephemeral(self):
        self.held.append(self.store.create_ephemeral(self.store.app(self.random.choice(list(self.apps)))))

    def end(self):
        if self.held:
            self.held.pop(self.random.randrange(len(self.held)))[1].release()

    def check(self):
        with Store.open(self.store.path) as store:
            apps = store.apps()
            assert {app.id for app in apps if app.ephemeral} == {app.id for app, _ in self.held}
            kept = {app.name: token(store, app) for app in apps if not app.ephemeral}
            assert kept == {
                name if p is None else f"{name}@{p}": text
                for name, family in self.apps.items()
                for p, text in family.items()
            }
            assert len({app.uid_start for app in apps}) == len(apps) == len(os.listdir(f"{store.path}/apps"))
            for app in apps:
                above = store.app(app.parent_name or app.name)
                assert (app.config, app.parent) == (above.config, above.id if app.profile else None)


@pytest.mark.parametrize("seed", range(3))
def test_any_sequence(store, store_path, seed):
    model = Model(store, seed)
    model.create()
    acts = [model.create, model.profile, model.profile, model.write, model.write, model.reset, model.rename]
    acts += [model.remove, model.ephemeral, model.end]
    for _ in range(120):
        (model.random.choice(acts) if model.apps else model.create)()
        model.check()
    while model.held:
        model.end()
    check_whole(store_path)
