"""Profiles in the store: rows of their own with their app's configuration, and ephemeral ones that go by themselves."""

import os
import sqlite3
import subprocess

import pytest
from support.profiles import add_base, has_plan, names, plan, token
from support.stores import check_whole

from layerrun.errors import BaseInUseError, BusyError, ExistsError, NotFoundError, UsageError
from layerrun.model import AppConfig, AppKind, Home, IdMode, check_app_name, check_name
from layerrun.store import making, profiles
from layerrun.store.store import Store

# Names


def test_names():
    assert check_app_name("web") == ("web", None)
    assert check_app_name("web@work") == ("web", "work")
    assert check_app_name("a" * 63 + "@" + "b" * 63) == ("a" * 63, "b" * 63)
    for bad in (
        "@",
        "web@",
        "@work",
        "web@a@b",
        "web@A",
        "web@.a",
        "we b@a",
        "web@" + "a" * 64,
        "a" * 64 + "@b",
    ):
        with pytest.raises(UsageError):
            check_app_name(bad)
    with pytest.raises(UsageError) as caught:
        check_name("web@work")
    assert caught.value.hint == "layerrun app web --profile work"


def test_a_plain_name_holds_no_at(store, web):
    for kind in AppKind:
        with pytest.raises(UsageError):
            store.create_app("web@x", AppConfig(), kind=kind, ids=IdMode.NONE)
    with pytest.raises(UsageError):
        store.rename_app("web", "shop@x")
    assert names(store) == ["web"]


@pytest.mark.parametrize("profile", ["", "A", "a@b", "a/b", "../x", ".", "a" * 64, "a\n", "tmp-1234", "tmp-"])
def test_bad_profiles(store, web, profile):
    with pytest.raises(UsageError):
        store.create_profile(web, profile)
    assert os.listdir(f"{store.path}/apps") == [web.id]
    assert os.listdir(f"{store.path}/staging") == []


def test_what_has_no_profiles(store, web):
    throwaway = store.create_app("t", AppConfig(), kind=AppKind.THROWAWAY, ids=IdMode.NONE)
    profile = store.create_profile(web, "p")
    for app in (throwaway, profile):
        with pytest.raises(UsageError):
            store.create_profile(app, "q")
        with pytest.raises(UsageError):
            store.create_ephemeral(app)
    assert names(store) == ["t", "web", "web@p"]


def test_profiles_stand_behind_their_app(store, web):
    for name in ("web-x", "weba", "a"):
        store.create_app(name, AppConfig(), ids=IdMode.NONE)
    for profile in ("z", "b"):
        store.create_profile(web, profile)
    assert names(store) == ["a", "web", "web@b", "web@z", "web-x", "weba"]
    assert [app.name for app in store.profiles(web)] == ["web@b", "web@z"]


# What a profile is


def test_a_profile_is_an_app_of_its_own(store, web):
    made = store.create_profile(web, "work")
    assert (made.name, made.profile, made.parent, made.parent_name) == ("web@work", "work", web.id, "web")
    assert (made.kind, made.config, made.ids, made.ephemeral) == (AppKind.APP, web.config, web.ids, False)
    assert made.uid_start is not None
    assert made.uid_start != web.uid_start
    assert store.app("web@work") == made
    assert store.catalog.app_by_id(made.id) == made
    assert set(os.listdir(f"{store.app_dir(made)}/data")) == {"upper", "work", "roots"}
    with pytest.raises(ExistsError):
        store.create_profile(web, "work")
    assert len(os.listdir(f"{store.path}/apps")) == 2


def test_it_has_its_apps_configuration_at_any_time(store, web):
    profile = store.create_profile(web, "work")
    plan(store, "web")
    plan(store, "web@work")
    store.update_app("web", AppConfig(home=Home.FRESH, command=("other",)))
    again = store.app("web@work")
    assert again.config == AppConfig(home=Home.FRESH, command=("other",))
    assert again.generation == profile.generation + 1
    assert os.path.isdir(f"{store.app_dir(profile)}/data/home")
    assert not has_plan(store, "web@work")
    assert not has_plan(store, "web")
    with pytest.raises(UsageError, match="web"):
        store.update_app("web@work", AppConfig())
    assert store.app("web").config.command == ("other",)
    fresh = store.create_profile(store.app("web"), "fresh")
    assert os.path.isdir(f"{store.app_dir(fresh)}/data/home")


def test_a_base_beneath_profiles_is_guarded(store):
    for name, digit in (("debian", "b"), ("alpine", "c")):
        add_base(store, name, digit)
    web = store.create_app("web", AppConfig(base="debian"), ids=IdMode.RANGE)
    store.create_profile(web, "work")
    with pytest.raises(BaseInUseError, match=r"in use by web$"), store.catalog.transaction():
        store.catalog.delete_base(store.base("debian"))
    database = sqlite3.connect(f"{store.path}/catalog.db")
    database.execute("PRAGMA foreign_keys=ON")
    with pytest.raises(sqlite3.IntegrityError):
        database.execute("DELETE FROM bases WHERE slot = 'debian'")
    database.close()
    store.update_app("web", AppConfig(base="alpine"))
    with store.catalog.transaction():
        store.catalog.delete_base(store.base("debian"))
    assert store.app("web@work").config.base == "alpine"


def test_resets_are_apart(store, web):
    profile = store.create_profile(web, "work")
    token(store, web, "web")
    token(store, profile, "work")
    plan(store, "web@work")
    store.reset_app("web")
    assert (token(store, web), token(store, profile)) == (None, "work")
    assert has_plan(store, "web@work")
    token(store, web, "web")
    store.reset_app("web@work")
    assert (token(store, web), token(store, profile)) == ("web", None)
    assert not has_plan(store, "web@work")


# The app takes them along


def test_rename_takes_profiles_along(store, web):
    profile = store.create_profile(web, "work")
    app, lock = store.create_ephemeral(web)
    for name in ("web", "web@work", "other"):
        plan(store, name)
    with store.app_lock(web, "look"), store.app_lock(profile, "look"):  # also while they run
        store.rename_app("web", "shop")
    assert names(store) == ["shop", app.name.replace("web", "shop"), "shop@work"]
    assert store.app("shop@work").id == profile.id
    assert not has_plan(store, "web")
    assert not has_plan(store, "web@work")
    assert has_plan(store, "other")
    lock.release()
    with pytest.raises(NotFoundError):
        store.app("web@work")


def test_rename_of_a_profile(store, web):
    profile = store.create_profile(web, "work")
    store.create_profile(web, "other")
    plan(store, "web@work")
    assert store.rename_app("web@work", "web@home") == store.app("web@home")
    assert (store.app("web@home").id, store.app("web@home").profile) == (profile.id, "home")
    assert not has_plan(store, "web@work")
    assert store.rename_app("web@home", "web@home").profile == "home"
    for new in ("shop", "shop@home", "web", "web@", "web@tmp-1"):
        with pytest.raises(UsageError):
            store.rename_app("web@home", new)
    with pytest.raises(ExistsError):
        store.rename_app("web@home", "web@other")
    app, lock = store.create_ephemeral(web)
    with lock, pytest.raises(UsageError):
        store.rename_app(app.name, "web@kept")
    assert set(names(store)) == {"web", "web@home", "web@other", app.name}


@pytest.mark.parametrize("keep", [False, True])
def test_remove_takes_profiles_along(store, web, keep):
    profile = store.create_profile(web, "work")
    other = store.create_app("other", AppConfig(), ids=IdMode.NONE)
    for app in (web, profile, other):
        token(store, app, app.name)
        plan(store, app.name)
    kept = store.remove_app("web", keep_data=keep)
    assert names(store) == ["other"]
    assert os.listdir(f"{store.path}/plans") == ["other"]
    assert os.listdir(f"{store.path}/apps") == [other.id]
    assert len(kept) == (2 if keep else 0)
    if keep:
        assert kept == store.kept("web") + store.kept("web@work")
        for path, name in zip(kept, ("web", "web@work"), strict=True):
            with open(f"{path}/upper/token") as file:
                assert file.read() == name
    assert store.create_app("web", AppConfig(), ids=IdMode.RANGE).uid_start == web.uid_start
    check_whole(store.path)


def test_remove_a_profile_alone(store, web):
    for name in ("a", "b"):
        store.create_profile(web, name)
    store.remove_app("web@a")
    assert names(store) == ["web", "web@b"]
    check_whole(store.path)


def test_remove_when_folders_are_missing(store, web):
    profile = store.create_profile(web, "work")
    for app in (web, profile):
        subprocess.run(["rm", "-r", store.app_dir(app)], check=True)
    store.remove_app("web")
    assert names(store) == []
    check_whole(store.path)


@pytest.mark.parametrize("change", [pytest.param("remove", marks=pytest.mark.long), "edit"])
def test_a_profile_in_use_holds_its_app(store, web, change):
    profile = store.create_profile(web, "work")
    acts = {"remove": lambda: store.remove_app("web"), "edit": lambda: store.update_app("web", AppConfig())}
    with store.app_lock(profile, "look"):
        with pytest.raises(BusyError, match="web@work"):
            acts[change]()
        assert names(store) == ["web", "web@work"]
        assert store.app("web") == web
        store.app_lock(web, "look").release()  # nothing of it stays locked
    acts[change]()


@pytest.mark.parametrize("change", ["remove", "edit"])
def test_a_profile_made_meanwhile(store, web, change, monkeypatch):
    """Between the locking and the transaction: the one that came second says that it is busy."""
    check = profiles.check_complete
    made = []

    def late(opened, family):
        # The transaction has begun; what another process recorded just before it is seen within.
        opened.catalog._db.execute("ROLLBACK")
        with Store.open(store.path) as other:
            made.append(other.create_profile(other.app("web"), "late"))
        opened.catalog._db.execute("BEGIN IMMEDIATE")
        check(opened, family)

    monkeypatch.setattr(profiles, "check_complete", late)
    with pytest.raises(BusyError, match="web@late"):
        store.remove_app("web") if change == "remove" else store.update_app("web", AppConfig(command=("x",)))
    assert names(store) == ["web", "web@late"]
    assert store.app("web@late").config == web.config
    monkeypatch.undo()
    store.remove_app("web")
    check_whole(store.path)


def test_remove_is_told_what_goes_along(store, web):
    known = store.create_profile(web, "known")
    store.create_profile(web, "new")
    with pytest.raises(BusyError, match="web@new"):
        store.remove_app("web", along=[known.id])
    assert names(store) == ["web", "web@known", "web@new"]
    store.remove_app("web", along=[app.id for app in store.profiles(web)])
    assert names(store) == []


def test_an_app_edited_while_a_profile_is_made(store, web, monkeypatch):
    record = making._row_of

    def late(opened, parent, profile, *rest):
        with Store.open(store.path) as other:
            other.update_app("web", AppConfig(home=Home.FRESH))
        return record(opened, parent, profile, *rest)

    monkeypatch.setattr(making, "_row_of", late)
    with pytest.raises(BusyError):
        store.create_profile(web, "work")
    monkeypatch.undo()
    assert os.listdir(f"{store.path}/apps") == [web.id]
    with pytest.raises(BusyError):
        store.create_profile(web, "work")  # still what was read before
    store.create_profile(store.app("web"), "work")


def test_an_app_removed_while_a_profile_is_made(store, web):
    with Store.open(store.path) as other:
        other.remove_app("web")
    with pytest.raises(NotFoundError):
        store.create_profile(web, "work")
    with pytest.raises(NotFoundError):
        store.create_ephemeral(web)
    check_whole(store.path)
