"""Profiles in the store: rows of their own with their app's configuration, and ephemeral ones that go by themselves."""

import os
import random
import sqlite3
import subprocess
import sys

import pytest
from support.stores import check_whole

from layerrun.errors import BaseInUseError, BusyError, ExistsError, NotFoundError, UsageError
from layerrun.model import AppConfig, AppKind, Base, BaseKind, Home, IdMode, check_app_name, check_name
from layerrun.store import making, profiles, removing
from layerrun.store.catalog import SCHEMA
from layerrun.store.schema import MIGRATIONS
from layerrun.store.store import Store

BASE = Base(
    id="b" * 16,
    name="debian",
    kind=BaseKind.TREE,
    digest="sha256:0",
    ids=IdMode.RANGE,
    source="/x",
    created="2026-01-01T00:00:00Z",
    entries=1,
    size=1,
)


@pytest.fixture
def store(store_path):
    with Store.open(store_path) as opened:
        yield opened


@pytest.fixture
def web(store):
    return store.create_app("web", AppConfig(command=("true",)), ids=IdMode.RANGE)


def add_base(store, name="debian", digit="b"):
    os.makedirs(f"{store.path}/bases/{digit * 16}/tree")
    with open(f"{store.path}/bases/{digit * 16}/manifest", "w"):
        pass
    import attrs

    with store.catalog.transaction():
        store.catalog.add_base(attrs.evolve(BASE, id=digit * 16, name=name))


def token(store, app, text=None):
    path = f"{store.app_dir(app)}/data/upper/token"
    if text is not None:
        with open(path, "w") as file:
            file.write(text)
        return text
    try:
        with open(path) as file:
            return file.read()
    except FileNotFoundError:
        return None


def plan(store, name):
    os.makedirs(f"{store.path}/plans", exist_ok=True)
    with open(f"{store.path}/plans/{name}", "w"):
        pass


def has_plan(store, name):
    return os.path.exists(f"{store.path}/plans/{name}")


def names(store):
    return [app.name for app in store.apps()]


# The schema


SCHEMA_1 = """
    CREATE TABLE bases (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        kind TEXT NOT NULL,
        digest TEXT NOT NULL,
        ids TEXT NOT NULL,
        source TEXT NOT NULL,
        created TEXT NOT NULL,
        entries INTEGER NOT NULL,
        size INTEGER NOT NULL
    );
    CREATE TABLE apps (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        kind TEXT NOT NULL,
        base_id TEXT REFERENCES bases(id) ON DELETE RESTRICT,
        config TEXT NOT NULL,
        ids TEXT NOT NULL,
        uid_start INTEGER UNIQUE,
        created TEXT NOT NULL,
        generation INTEGER NOT NULL
    );
    CREATE INDEX apps_by_base ON apps (base_id);
    """


def schema_of(path):
    database = sqlite3.connect(f"{path}/catalog.db")
    try:
        tables = database.execute("SELECT type, name, tbl_name FROM sqlite_master ORDER BY name").fetchall()
        columns = {name: database.execute(f"PRAGMA table_info({name})").fetchall() for _, name, _ in tables}
        return tables, columns, database.execute("PRAGMA user_version").fetchone()
    finally:
        database.close()


def make_schema_1(path):
    """Turn a new store into one that the first layerrun made: with an app, a throwaway and a base."""
    with Store.open(path) as store:
        os.makedirs(f"{path}/bases/{'b' * 16}/tree")
        with open(f"{path}/bases/{'b' * 16}/manifest", "w"):
            pass
        ids = [store.create_app(name, AppConfig(), ids=IdMode.NONE).id for name in ("one", "two")]
    os.unlink(f"{path}/catalog.db")
    database = sqlite3.connect(f"{path}/catalog.db")
    database.execute("PRAGMA journal_mode=WAL")
    database.executescript(SCHEMA_1)
    config = (
        '{"base": "debian", "layers": [], "shares": [], "hides": ["/h"], "home": "overlay", "caches": [],'
        ' "command": ["a", "b"], "env": [], "network": "host"}'
    )
    database.execute(
        "INSERT INTO bases VALUES (?, 'debian', 'tree', 'sha256:0', 'range', '/x', 't', 1, 1)", ("b" * 16,)
    )
    database.execute(
        "INSERT INTO apps VALUES (?, 'one', 'app', ?, ?, 'range', 524288, 't', 3)", (ids[0], "b" * 16, config)
    )
    database.execute(
        "INSERT INTO apps VALUES (?, 'two', 'throwaway', NULL, '{}', 'none', NULL, 't', 1)", (ids[1],)
    )
    database.execute("PRAGMA application_id=1818846572")
    database.execute("PRAGMA user_version=1")
    database.commit()
    database.close()


def test_the_first_schema_is_what_it_was():
    assert MIGRATIONS[0] == "\n" + SCHEMA_1.removeprefix("\n")


def test_a_store_of_schema_1_is_upgraded(store_path, folder):
    make_schema_1(store_path)
    with Store.open(store_path) as store:
        one, two = store.app("one"), store.app("two")
        assert (one.kind, one.uid_start, one.generation) == (AppKind.APP, 524288, 3)
        assert one.config == AppConfig(base="debian", hides=("/h",), command=("a", "b"))
        assert (two.kind, two.config) == (AppKind.THROWAWAY, AppConfig())
        for app in (one, two):
            assert (app.parent, app.profile, app.ephemeral) == (None, None, False)
        profile = store.create_profile(one, "p")
        assert profile.config == one.config
        store.remove_app("one")
    check_whole(store_path)
    with Store.open(f"{folder}/new"):
        pass
    assert schema_of(store_path) == schema_of(f"{folder}/new")
    assert schema_of(store_path)[2] == (SCHEMA,)


def test_an_upgrade_cut_short_is_none(store_path, monkeypatch):
    make_schema_1(store_path)
    monkeypatch.setattr(
        "layerrun.store.catalog.MIGRATIONS",
        (MIGRATIONS[0], MIGRATIONS[1] + "; SELECT nonsense", *MIGRATIONS[2:]),
    )
    with pytest.raises(Exception, match="nonsense"):
        Store.open(store_path)
    monkeypatch.undo()
    assert schema_of(store_path)[2] == (1,)
    with Store.open(store_path) as store:
        assert names(store) == ["one", "two"]


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


# Ephemeral


def test_ephemeral_goes_once_its_lock_is_free(store, web):
    app, lock = store.create_ephemeral(web)
    assert app.ephemeral
    assert app.name.startswith("web@tmp-")
    assert app.uid_start not in (None, web.uid_start)
    with pytest.raises(BusyError, match=app.name):
        store.app_lock(app, "look")
    for _ in range(3):
        with Store.open(store.path) as other:
            assert other.app(app.name) == app
    lock.release()
    with Store.open(store.path) as other:
        assert names(other) == ["web"]
        assert os.listdir(f"{store.path}/apps") == [web.id]
    check_whole(store.path)


def test_ephemeral_keeps_no_data(store, web):
    _, lock = store.create_ephemeral(web)
    lock.release()
    (kept,) = store.remove_app("web", keep_data=True)
    assert os.path.basename(kept) == f"web-{web.id}"
    assert os.listdir(f"{store.path}/kept") == [os.path.basename(kept)]


def test_more_than_one_sweep_takes(store, web, monkeypatch):
    monkeypatch.setattr(removing, "_MANY", 3)
    held = [store.create_ephemeral(web) for _ in range(8)]
    for _, lock in held[:7]:
        lock.release()
    left = []
    while len(store.apps()) > 2:
        left.append(len(store.apps()))
        store.sweep()
    assert left == [9, 6, 3]
    assert names(store) == ["web", held[7][0].name]
    held[7][1].release()


def test_a_damaged_ephemeral_keeps_nobody_from_the_store(store, web):
    app, lock = store.create_ephemeral(web)
    lock.release()
    subprocess.run(["rm", "-r", store.app_dir(app)], check=True)
    with open(store.app_dir(app), "w"):
        pass
    with Store.open(store.path) as other:
        assert "web" in names(other)
    os.unlink(store.app_dir(app))
    with Store.open(store.path) as other:
        other.remove_app("web")
        assert names(other) == []


OPEN = "import sys; from layerrun.store.store import Store; Store.open(sys.argv[1]).close()"


def sweep_elsewhere(path):
    subprocess.run([sys.executable, "-c", OPEN, path], check=True, timeout=60, cwd="/")


def test_no_sweep_takes_what_is_just_being_made(store, web):
    """Other processes open the store at each line of the making: nothing is swept before it is locked."""
    lines = 0

    def trace(frame, event, _arg):
        nonlocal lines
        if not frame.f_code.co_filename.endswith("/making.py"):
            return None
        if event == "line" and lines < 1000:
            lines += 1
            sys.settrace(None)
            sweep_elsewhere(store.path)
            sys.settrace(trace)
        return trace

    sys.settrace(trace)
    try:
        app, lock = store.create_ephemeral(web)
    finally:
        sys.settrace(None)
    assert lines > 30
    sweep_elsewhere(store.path)
    assert store.app(app.name) == app
    assert set(os.listdir(f"{store.app_dir(app)}/data")) == {"upper", "work", "roots"}
    lock.release()
    sweep_elsewhere(store.path)
    assert names(store) == ["web"]


MAKE = """
import os, sys
from layerrun.store.store import Store
for _ in range(20):
    with Store.open(sys.argv[1]) as store:
        app, lock = store.create_ephemeral(store.app("web"))
    with Store.open(sys.argv[1]) as store:
        assert store.app(app.name) == app
        assert os.path.isdir(store.app_dir(app) + "/data/upper")
        if os.urandom(1) < b"\\x80":
            lock.release()
            store.sweep()
    # else: as after a kill -9, it is left to whoever comes next
"""


def test_makers_and_sweepers_at_once(store, web):
    workers = [
        subprocess.Popen([sys.executable, "-c", MAKE, store.path], cwd="/", stderr=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    for worker in workers:
        assert (worker.communicate(timeout=120)[1], worker.returncode) == ("", 0)
    with Store.open(store.path) as other:
        assert names(other) == ["web"]
    check_whole(store.path)


# All of it, against a model


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
