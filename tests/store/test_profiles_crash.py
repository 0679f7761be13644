"""I4 for profiles: killed at any line, a change of an app and its profiles is made to all of them or to none."""

import os
import shutil

import pytest
from support.stores import check_whole, die_at_line, strides

from layerrun.model import AppConfig, Home, IdMode
from layerrun.store.store import Store


# As in test_crash.py; these changes have more lines.
@pytest.fixture(params=strides(61, 17))
def stride(request):
    return request.param


@pytest.fixture
def template(folder):
    path = f"{folder}/template"
    with Store.open(path) as store:
        web = store.create_app("web", AppConfig(), ids=IdMode.RANGE)
        for app in (web, store.create_profile(web, "a"), store.create_profile(web, "b")):
            with open(f"{store.app_dir(app)}/data/upper/precious", "w") as file:
                file.write(app.name)
        os.mkdir(f"{path}/plans")
        for app in store.apps():
            open(f"{path}/plans/{app.name}", "w").close()
    return path


def precious(store):
    found = {}
    for app in store.apps():
        try:
            with open(f"{store.app_dir(app)}/data/upper/precious") as file:
                found[app.name] = file.read()
        except FileNotFoundError:
            found[app.name] = None
    return found


ALL = {"web": "web", "web@a": "web@a", "web@b": "web@b"}


def at_every_line(template, store_path, stride, action, check):
    def act():
        with Store.open(store_path) as store:
            action(store)

    number, killed = 1, True
    while killed:
        shutil.copytree(template, store_path)
        killed = die_at_line(number, act)
        check_whole(store_path)
        with Store.open(store_path) as store:
            check(store, done=not killed)
            for name in os.listdir(f"{store_path}/plans"):
                assert store.catalog.app(name) is not None, "a plan outlived what it was made for"
        shutil.rmtree(store_path)
        number += stride
    assert number > 100


def test_create(template, store_path, stride):
    def check(store, *, done):
        found = precious(store)
        assert found in ([ALL | {"web@c": None}] if done else [ALL, ALL | {"web@c": None}])
        if "web@c" not in found:
            store.create_profile(store.app("web"), "c")
        assert len({app.uid_start for app in store.apps()}) == 4

    at_every_line(template, store_path, stride, lambda s: s.create_profile(s.app("web"), "c"), check)


def test_ephemeral(template, store_path, stride):
    def action(store):
        store.create_ephemeral(store.app("web"))[1].release()
        store.sweep()

    def check(store, *, done):
        assert precious(store) == ALL

    at_every_line(template, store_path, stride, action, check)


@pytest.mark.parametrize("keep", [False, True])
def test_remove(template, store_path, stride, keep):
    def check(store, *, done):
        found = precious(store)
        assert found in ([{}] if done else [{}, ALL])
        kept = [path for name in ALL for path in store.kept(name)]
        assert len(kept) == (3 if keep and not found else 0)
        for path in kept:
            with open(f"{path}/upper/precious") as file:
                assert file.read() == os.path.basename(path).rpartition("-")[0]
        if found:
            store.remove_app("web")

    at_every_line(template, store_path, stride, lambda s: s.remove_app("web", keep_data=keep), check)


def test_update_and_rename(template, store_path, stride):
    def action(store):
        store.update_app("web", AppConfig(home=Home.FRESH))
        store.rename_app("web", "shop")
        store.rename_app("shop@a", "shop@c")

    renamed = {"shop": "web", "shop@a": "web@a", "shop@b": "web@b"}
    last = {"shop": "web", "shop@b": "web@b", "shop@c": "web@a"}

    def check(store, *, done):
        found = precious(store)
        assert found in ([last] if done else [ALL, renamed, last])
        assert len({(app.config, app.generation) for app in store.apps()}) == 1
        for app in store.apps():
            if app.config.home is Home.FRESH:
                os.close(store.open_app_dir(app, "data/home"))

    at_every_line(template, store_path, stride, action, check)
