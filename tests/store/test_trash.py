"""What is thrown away: at once out of sight, deleted at leisure, never twice by a crowd."""

import os
import time

import pytest

from layerrun.model import AppConfig, IdMode
from layerrun.store import trash
from layerrun.store.store import Store


@pytest.fixture
def store(store_path):
    with Store.open(store_path) as opened:
        yield opened


def test_any_kind_of_thing(store, folder):
    os.mkdir(f"{folder}/host")
    with open(f"{folder}/host/note", "w"):
        pass
    fd = os.open(store.path, os.O_RDONLY)
    os.mkdir("empty", dir_fd=fd)
    os.makedirs(f"{store.path}/full/deeper")
    os.symlink(f"{folder}/host", "link", dir_fd=fd)
    os.mkfifo("fifo", dir_fd=fd)
    os.mkdir("locked", 0, dir_fd=fd)
    for name in ("empty", "full", "link", "fifo", "locked", "not there"):
        trash.to_trash(store, fd, name)
        assert not os.path.lexists(f"{store.path}/{name}")
    os.close(fd)
    assert os.listdir(f"{store.path}/trash") == []
    assert os.listdir(f"{folder}/host") == ["note"]


def test_in_the_background(store, monkeypatch):
    monkeypatch.delenv("LAYERRUN_SWEEP")
    app = store.create_app("one", AppConfig(), ids=IdMode.NONE)
    for n in range(50):
        os.mkdir(f"{store.app_dir(app)}/data/upper/{n}")
    store.reset_app("one")
    assert os.listdir(f"{store.app_dir(app)}/data/upper") == []
    deadline = time.monotonic() + 30
    while os.listdir(f"{store.path}/trash") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert os.listdir(f"{store.path}/trash") == []


def test_a_large_trash_does_not_start_a_crowd(store, monkeypatch):
    monkeypatch.delenv("LAYERRUN_SWEEP")
    for number in range(500):
        os.mkdir(f"{store.path}/trash/{number:016x}")
    started = []
    monkeypatch.setattr(trash, "_delete", lambda store, name, *, background: started.append(name))
    os.utime(store.trash_fd, (0, 0))
    trash.sweep(store)
    assert 0 < len(started) <= 20
    assert trash.empty(store, background=False) == []
    assert len(started) >= 500


def test_young_trash_is_somebody_elses(store, monkeypatch):
    """A deleter that was started within the last minute is not joined by every further command."""
    monkeypatch.delenv("LAYERRUN_SWEEP")
    asked = []
    monkeypatch.setattr(
        trash, "_delete", lambda _store, name, *, background: asked.append((name, background))
    )
    os.makedirs(f"{store.path}/trash/x/y")
    Store.open(store.path).close()
    assert asked == []
    for age in (3600, -3600):  # old, or from a clock that was wrong
        when = time.time() - age
        os.utime(f"{store.path}/trash", (when, when))
        Store.open(store.path).close()
        Store.open(store.path).close()
        assert asked == [("x", True)]
        asked.clear()
    assert trash.sweep(store, background=False) == []
    assert asked == [("x", False)]


def test_what_cannot_be_deleted_is_said(store, monkeypatch):
    def fail(_store, name, *, background):
        raise OSError(5, "broken")

    monkeypatch.setattr(trash, "_delete", fail)
    os.makedirs(f"{store.path}/trash/x/y")
    assert trash.sweep(store, background=False) == ["x"]
    Store.open(store.path).close()  # and keeps nobody from working
