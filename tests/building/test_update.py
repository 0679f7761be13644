"""A new version of the base: apps with a recipe are built anew over it, with the files of the last build."""

import json
import os
import pathlib
import shutil

import pytest
from support import users
from support.sandbox import small_tree
from support.whose import whose

from layerrun.building.build import build, stack_over
from layerrun.building.result import apply, rebuild_all, recipe_of
from layerrun.errors import BusyError
from layerrun.store.store import Store
from layerrun.updates import switching, update

RECIPE = """
base = "small"
name = "web"
[[step]]
add = "site"
to = "/srv/www"
[[step]]
run = "cat /etc/base >/etc/built; cat /srv/www/f >>/etc/built"
"""


@pytest.fixture(params=["root", pytest.param(users.PLAIN, marks=pytest.mark.long)])
def place(request, layerrun, folder, user_folder):
    who = whose(request.param)
    top = pathlib.Path(user_folder(who) if who else folder)
    small_tree(f"{top}/tree")
    (top / "site").mkdir()
    (top / "site" / "f").write_text("page\n")
    (top / "build.toml").write_text(RECIPE)
    if who:
        shutil.chown(top, who.uid)
        for path, folders, files in os.walk(top):
            for name in (*folders, *files):
                os.chown(f"{path}/{name}", who.uid, who.gid, follow_symlinks=False)

    def run(*words, check=0):
        return layerrun(*words, user=who, check=check).out

    run("base", "import", "small", f"{top}/tree")
    run("build", "-f", f"{top}/build.toml")
    return top, run


def layers(run):
    return json.loads(run("show", "web", "--json"))["config"]["layers"]


def test_layers_are_built_anew_over_a_new_version(place):
    top, run = place
    run("app", "web", "--", "sh", "-c", "echo mine >/srv/mine")
    first = layers(run)
    shutil.rmtree(top / "site")
    (top / "tree" / "etc" / "base").write_text("second\n")
    run("base", "update", "small", "--from", f"{top}/tree", "-y")
    assert run("app", "web", "--", "cat", "/etc/built", "/srv/mine") == "second\npage\nmine\n"
    second = layers(run)
    assert len(second) == 2
    assert second[0] == first[0]  # it is the same over both, and there once
    assert second[1] != first[1]
    run("base", "rollback", "small", "-y")
    assert run("app", "web", "--", "cat", "/etc/built") == "base\npage\n"
    assert layers(run) == first


def test_a_base_over_which_an_app_cannot_be_built_is_not_switched_to(place):
    top, run = place
    first = layers(run)
    (top / "tree" / "usr" / "bin" / "cat").unlink()
    run("base", "update", "small", "--from", f"{top}/tree", "-y", check=4)
    assert layers(run) == first
    assert run("app", "web", "--", "cat", "/etc/built") == "base\npage\n"


def set_layers(store, app, layers):
    with store.catalog.transaction():
        store.catalog.set_layers(app.id, layers)


@pytest.mark.parametrize("place", ["root"], indirect=True)
def test_what_is_committed_during_an_update_is_not_lost(place, layerrun):
    top, run = place
    (top / "tree" / "etc" / "base").write_text("second\n")
    run("base", "update", "small", "--from", f"{top}/tree", "-y")
    with Store.open(layerrun.store()) as store:
        one, two, app = store.base("small@1"), store.base("small"), store.app("web")
        built = rebuild_all(store, one)
        set_layers(store, app, app.config.layers[:1])  # as a commit would
        with pytest.raises(BusyError, match="'web' was changed"):
            switching.switch(store, one, what="update", layers=built)
        with pytest.raises(BusyError, match="'web' was changed"):
            update._stage(store, two, one, built, 3)
        assert store.base("small").version == 2
        assert store.catalog.slot("small").staged is None
        assert store.app("web").config.layers == app.config.layers[:1]
        set_layers(store, app, app.config.layers)
        switching.switch(store, one, what="update", layers=built)
        assert store.app("web").config.layers == built[app.id][1]


@pytest.mark.parametrize("place", ["root"], indirect=True)
def test_what_is_committed_during_a_build_is_not_lost(place, layerrun):
    with Store.open(layerrun.store()) as store:
        app = store.app("web")
        recipe = recipe_of(store, app)
        built = build(store, recipe, stack_over(store.base("small"), app.ids))
        set_layers(store, app, app.config.layers[:1])
        with pytest.raises(BusyError, match="'web' was changed"):
            apply(store, "web", recipe, built, before=())
        assert store.app("web").config.layers == app.config.layers[:1]
        apply(store, "web", recipe, built, before=app.config.layers[:1])
        assert store.app("web").config.layers == built.layers
