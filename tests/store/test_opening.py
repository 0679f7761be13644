"""Where the store is, what a new one looks like, and which folders are refused."""

import contextlib
import os
import shutil
import sqlite3
import stat
import subprocess
import sys

import pytest

from layerrun.errors import DamagedError, LayerrunError, StoreError, SystemError
from layerrun.model import AppConfig, IdMode
from layerrun.store import paths
from layerrun.store.catalog import SCHEMA
from layerrun.store.store import Store


def test_default_place(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert paths.default_store() == "/var/lib/layerrun"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/home/x")
    assert paths.default_store() == "/home/x/.local/share/layerrun"
    monkeypatch.setenv("XDG_DATA_HOME", "relative/is/ignored")
    assert paths.default_store() == "/home/x/.local/share/layerrun"
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert paths.default_store() == "/data/layerrun"
    monkeypatch.setenv("LAYERRUN_STORE", "/s")
    assert paths.default_store() == "/s"


def test_runtime_place(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert paths.runtime_dir() == "/run/layerrun"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    assert paths.runtime_dir() == "/tmp/layerrun-1000"
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert paths.runtime_dir() == "/run/user/1000/layerrun"


@pytest.mark.parametrize("umask", [0, 0o022, 0o777])
def test_new_store(folder, umask):
    path = f"{folder}/deep/er/store"
    old = os.umask(0o022)
    try:
        os.makedirs(f"{folder}/deep/er")
        os.umask(umask)
        with Store.open(path) as store:
            app = store.create_app("one", AppConfig(), ids=IdMode.NONE)
            assert stat.S_IMODE(os.stat(f"{store.app_dir(app)}/data/upper").st_mode) == stat.S_IMODE(
                os.stat("/").st_mode
            )
    finally:
        os.umask(old)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o700
    with open(f"{path}/format") as file:
        assert file.read() == "layerrun-store 1\n"
    database = sqlite3.connect(f"{path}/catalog.db")
    assert database.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert database.execute("PRAGMA user_version").fetchone()[0] == SCHEMA
    database.close()
    with Store.open(path, create=False) as store:
        assert [app.name for app in store.apps()] == ["one"]


@pytest.mark.root
def test_a_default_acl_around_it_does_not_come_in(folder):
    """An upper and a base would inherit it: other modes than were asked for, and another digest."""
    subprocess.run(["setfacl", "-d", "-m", "u:12345:rwx,o::rwx", folder], check=True)
    with Store.open(f"{folder}/store") as store:
        app = store.create_app("one", AppConfig(), ids=IdMode.NONE)
        upper = f"{store.app_dir(app)}/data/upper"
        assert os.listxattr(store.path) == os.listxattr(upper) == []


def test_not_there(store_path):
    with pytest.raises(StoreError, match="no store") as caught:
        Store.open(store_path, create=False)
    assert caught.value.hint
    assert not os.path.exists(store_path)


def test_store_through_a_link(folder):
    os.symlink("real", f"{folder}/link")
    with Store.open(f"{folder}/real"):
        pass
    with Store.open(f"{folder}/link") as store:
        assert store.path == f"{folder}/real"


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o701, 0o600, 0o1777])
def test_wrong_mode(store_path, mode):
    with Store.open(store_path):
        pass
    os.chmod(store_path, mode)
    with pytest.raises(StoreError, match="0700") as caught:
        Store.open(store_path)
    assert "chmod 700" in caught.value.hint
    assert stat.S_IMODE(os.stat(store_path).st_mode) == mode  # never repaired silently


def test_another_owner(store_path):
    with Store.open(store_path):
        pass
    os.chown(store_path, 65534, 65534)
    with pytest.raises(StoreError, match="belongs to uid 65534"):
        Store.open(store_path)


def test_foreign_folder_is_left_alone(store_path):
    os.mkdir(store_path, 0o700)
    with open(f"{store_path}/thesis.tex", "w"):
        pass
    with pytest.raises(StoreError, match="not a store"):
        Store.open(store_path)
    assert os.listdir(store_path) == ["thesis.tex"]


def test_foreign_folder_with_our_names(store_path):
    os.makedirs(f"{store_path}/apps/precious")
    os.chmod(store_path, 0o700)
    with pytest.raises(StoreError, match="not a store"):
        Store.open(store_path)
    assert os.listdir(f"{store_path}/apps") == ["precious"]


def test_not_a_folder(store_path):
    with open(store_path, "w"):
        pass
    with pytest.raises(StoreError, match="not a directory"):
        Store.open(store_path)


@pytest.mark.parametrize(
    ("text", "match"), [("layerrun-store 2\n", "format '2'"), ("x\0", "unreadable"), ("", "unreadable")]
)
def test_other_format(store_path, text, match):
    with Store.open(store_path):
        pass
    with open(f"{store_path}/format", "w") as file:
        file.write(text)
    with pytest.raises(StoreError, match=match):
        Store.open(store_path)


def test_newer_schema(store_path):
    with Store.open(store_path):
        pass
    database = sqlite3.connect(f"{store_path}/catalog.db")
    database.execute(f"PRAGMA user_version={SCHEMA + 1}")
    database.close()
    with pytest.raises(StoreError, match="schema") as caught:
        Store.open(store_path)
    assert "newer layerrun" in caught.value.hint


def test_some_other_database(store_path):
    with Store.open(store_path):
        pass
    os.unlink(f"{store_path}/catalog.db")
    database = sqlite3.connect(f"{store_path}/catalog.db")
    database.execute("CREATE TABLE recipes (name)")
    database.commit()
    database.close()
    with pytest.raises(StoreError, match="not a catalog"):
        Store.open(store_path)


@pytest.mark.parametrize("content", [b"garbage" * 1000, b"SQLite format 3\0" + b"\xff" * 4096])
def test_garbage_catalog(store_path, content):
    with Store.open(store_path):
        pass
    with open(f"{store_path}/catalog.db", "wb") as file:
        file.write(content)
    with pytest.raises(StoreError, match=r"damaged|refused|cannot"):
        Store.open(store_path)


GARBAGE = (
    "{",
    "[]",
    "7",
    "null",
    '{"later": 1}',
    '{"network": 7}',
    '{"network": "?"}',
    '{"policy": []}',
    '{"policy": {"later": 1}}',
    '{"policy": {"network": "?"}}',
    '{"shares": 5}',
    '{"home": "?"}',
)


def test_garbage_in_a_row(store_path):
    with Store.open(store_path) as store:
        store.create_app("one", AppConfig(), ids=IdMode.NONE)
    garbage = [("config", text) for text in GARBAGE]
    for column, value in [*garbage, ("ids", "?")]:
        database = sqlite3.connect(f"{store_path}/catalog.db")
        database.execute("UPDATE apps SET config = '{}', ids = 'none'")
        database.execute(f"UPDATE apps SET {column} = ?", (value,))
        database.commit()
        database.close()
        with Store.open(store_path) as store, pytest.raises(DamagedError, match="one"):
            store.apps()


def test_missing_catalog_is_not_made_anew(store_path):
    with Store.open(store_path):
        pass
    os.unlink(f"{store_path}/catalog.db")
    with pytest.raises(DamagedError, match="missing"):
        Store.open(store_path)
    assert not os.path.exists(f"{store_path}/catalog.db")


def test_missing_folder(store_path):
    with Store.open(store_path):
        pass
    os.rmdir(f"{store_path}/staging")
    with pytest.raises(DamagedError, match="staging"):
        Store.open(store_path)


@pytest.mark.parametrize("upto", ["apps", "catalog.db"])
def test_making_that_was_cut_short(store_path, upto):
    with Store.open(store_path):
        pass
    os.unlink(f"{store_path}/format")
    if upto == "apps":
        for name in os.listdir(store_path):
            if name != "apps":
                path = f"{store_path}/{name}"
                (shutil.rmtree if os.path.isdir(path) else os.unlink)(path)
    with Store.open(store_path) as store:
        store.create_app("one", AppConfig(), ids=IdMode.NONE)


def test_no_room_for_descriptors_left_over(store_path):
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with Store.open(store_path) as store:
            store.create_app(None, AppConfig(), ids=IdMode.NONE)
    os.chmod(store_path, 0o755)
    with pytest.raises(StoreError):
        Store.open(store_path)
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.root
def test_overlay_is_refused(folder):
    for name in ("l", "u", "w", "m"):
        os.mkdir(f"{folder}/{name}")
    options = f"lowerdir={folder}/l,upperdir={folder}/u,workdir={folder}/w"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, f"{folder}/m"], check=True)
    try:
        with pytest.raises(StoreError, match="on overlay") as caught:
            Store.open(f"{folder}/m/store")
        assert "LAYERRUN_STORE" in caught.value.hint
    finally:
        subprocess.run(["umount", f"{folder}/m"], check=True)


@pytest.mark.root
def test_read_only_file_system(folder):
    os.mkdir(f"{folder}/m")
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", f"{folder}/m"], check=True)
    try:
        with Store.open(f"{folder}/m/store") as store:
            store.create_app("one", AppConfig(), ids=IdMode.NONE)
        subprocess.run(["mount", "-o", "remount,ro", f"{folder}/m"], check=True)
        with pytest.raises(LayerrunError) as caught, Store.open(f"{folder}/m/store") as store:
            store.apps()
        assert "LAYERRUN_STORE" in caught.value.hint
        with pytest.raises(SystemError, match="Read-only"):
            Store.open(f"{folder}/m/another")
    finally:
        subprocess.run(["umount", f"{folder}/m"], check=True)


def fill(path):
    with open(path, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass


@pytest.mark.root
def test_full_disk(folder):
    os.mkdir(f"{folder}/m")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", f"{folder}/m"], check=True)
    try:
        path = f"{folder}/m/store"
        with Store.open(path) as store:
            store.create_app("one", AppConfig(), ids=IdMode.NONE)
        fill(f"{folder}/m/filler")
        with pytest.raises(LayerrunError) as caught, Store.open(path) as store:  # noqa: PT012  (any may fail)
            for number in range(100):
                store.create_app(f"app-{number}", AppConfig(command=("x" * 3000,)), ids=IdMode.NONE)
        assert caught.value.hint
        os.unlink(f"{folder}/m/filler")
        with Store.open(path) as store:
            names = [app.name for app in store.apps()]
            assert "one" in names
            assert len(names) == len(os.listdir(f"{path}/apps"))
            store.reset_app("one")
            assert os.listdir(f"{path}/staging") == []
    finally:
        subprocess.run(["umount", f"{folder}/m"], check=True)


@pytest.mark.root
def test_full_disk_from_the_start(folder):
    os.mkdir(f"{folder}/m")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", f"{folder}/m"], check=True)
    try:
        with pytest.raises(LayerrunError):
            Store.open(f"{folder}/m/store")
        subprocess.run(["mount", "-o", "remount,size=8m", f"{folder}/m"], check=True)
        with Store.open(f"{folder}/m/store") as store:
            store.create_app("one", AppConfig(), ids=IdMode.NONE)
    finally:
        subprocess.run(["umount", f"{folder}/m"], check=True)


def test_plain_user(plain_user, user_folder):
    path = f"{user_folder(plain_user)}/store"
    code = (
        "import sys; from layerrun.store.store import Store; from layerrun.model import *\n"
        "with Store.open(sys.argv[1]) as s:\n"
        "    a = s.create_app('one', AppConfig(home='fresh'), ids=IdMode.SUBIDS)\n"
        "    s.reset_app('one'); print(s.rootless, s.app('one').generation, s.worst_ids)\n"
        "    s.remove_app('one')\n"
    )
    done = plain_user.run([sys.executable, "-c", code, path])
    assert done.stderr == ""
    assert done.stdout == "True 2 subids\n"
    assert os.listdir(f"{path}/trash") == os.listdir(f"{path}/apps") == []
    with pytest.raises(StoreError, match="belongs to"):  # not even root's to use
        Store.open(path)
