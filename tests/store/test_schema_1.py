"""A store of the first schema, which knew no profiles: upgraded when it is opened, or left as it was."""

import os
import sqlite3

import pytest
from support.profiles import names
from support.stores import check_whole

from layerrun.model import AppConfig, AppKind, IdMode
from layerrun.store.catalog import SCHEMA
from layerrun.store.schema import MIGRATIONS
from layerrun.store.store import Store

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


def test_a_store_of_schema_5_has_all_columns_in_the_end(store_path, folder):
    with Store.open(folder + "/new"):
        pass
    make_schema_1(store_path)
    database = sqlite3.connect(f"{store_path}/catalog.db")
    for script in MIGRATIONS[1:5]:
        database.executescript(script)
    assert " tries " not in "".join(MIGRATIONS[:5])  # a script is never changed, only followed by another
    database.execute("PRAGMA user_version=5")
    database.commit()
    database.close()
    with Store.open(store_path) as store:
        assert store.catalog.slot("debian").tries == 3
    assert schema_of(store_path)[1] == schema_of(folder + "/new")[1]
