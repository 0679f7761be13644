"""Many processes on one store: nobody loses anything, somebody wins, nobody hangs."""

import os
import subprocess
import sys

from support.stores import check_whole

from layerrun.model import AppConfig, IdMode
from layerrun.store.store import Store

HEAD = """
import sys
from layerrun.errors import *
from layerrun.model import *
from layerrun.store.store import Store
path, me = sys.argv[1:]
"""


def run(count, code, path):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", HEAD + code, path, str(n)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in range(count)
    ]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [error for _, error in outputs] == [""] * count
    return [out.split() for out, _ in outputs]


def test_all_make_the_store(store_path):
    code = "Store.open(path).create_app('a' + me, AppConfig(), ids=IdMode.RANGE)"
    run(8, code, store_path)
    with Store.open(store_path) as store:
        assert [app.name for app in store.apps()] == [f"a{n}" for n in range(8)]
        assert len({app.uid_start for app in store.apps()}) == 8
    check_whole(store_path)


def test_one_gets_the_name(store_path):
    code = """
with Store.open(path) as store:
    for n in range(10):
        try:
            store.create_app(f"a{n}", AppConfig(), ids=IdMode.RANGE)
            print(n)
        except ExistsError:
            pass
"""
    won = [int(n) for output in run(5, code, store_path) for n in output]
    assert sorted(won) == list(range(10))
    check_whole(store_path)


def test_everybody_changes_everything(store_path):
    code = """
with Store.open(path) as store:
    for n in range(25):
        name = f"a{n % 3}"
        for change in (
            lambda: store.create_app(name, AppConfig(), ids=IdMode.RANGE),
            lambda: store.reset_app(name),
            lambda: store.rename_app(name, f"b{me}"),
            lambda: store.rename_app(f"b{me}", name),
            lambda: store.update_app(name, AppConfig(command=("sh",))),
            lambda: store.remove_app(name) if n % 4 == 0 else None,
            lambda: Store.open(path).close(),
        ):
            try:
                change()
            except (BusyError, ExistsError, NotFoundError):
                pass
"""
    run(4, code, store_path)
    check_whole(store_path)


def test_removed_under_a_reset(store_path):
    """Whoever locks first does it; the other learns that it is busy or gone, never a stray OSError."""
    code = """
with Store.open(path) as store:
    for n in range(60):
        try:
            if me == "0":
                store.create_app("x", AppConfig(), ids=IdMode.NONE)
                store.remove_app("x")
            else:
                store.reset_app("x")
        except (BusyError, NotFoundError, ExistsError):
            pass
"""
    run(3, code, store_path)
    with Store.open(store_path) as store:
        for app in store.apps():
            store.remove_app(app.name)
    check_whole(store_path)


def test_many_apps_open_fast_enough_to_count(store_path):
    """Opening does not look at the apps: with no ticket left there is nothing to look for."""
    with Store.open(store_path) as store:
        store.create_app("one", AppConfig(), ids=IdMode.NONE)
    for n in range(300):
        os.mkdir(f"{store_path}/apps/{n:016x}")
    with Store.open(store_path) as store:
        assert len(os.listdir(f"{store_path}/apps")) == 301
        assert len(store.apps()) == 1
