"""Profiles for one start: gone once their lock is free, whoever sweeps and whoever makes one meanwhile."""

import os
import subprocess
import sys

import pytest
from support.profiles import names
from support.stores import check_whole

from layerrun.errors import BusyError
from layerrun.store import removing
from layerrun.store.store import Store


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
