"""A disk without a byte or an inode left: what makes room still works."""

import contextlib
import os
import subprocess

import pytest

from layerrun.bases import sources, versions
from layerrun.errors import LayerrunError
from layerrun.model import AppConfig, IdMode
from layerrun.runtime import data, snapshots
from layerrun.store import freezing, reserve
from layerrun.store.store import Store

pytestmark = pytest.mark.root


@pytest.fixture(params=["size=40m,nr_inodes=3000", "size=40m,nr_inodes=300"])
def disk(request, folder):
    """A small disk with a store that has two apps and a base, and a function that fills it up."""
    top = f"{folder}/m"
    os.mkdir(top)
    subprocess.run(["mount", "-t", "tmpfs", "-o", request.param, "tmpfs", top], check=True)
    os.makedirs(f"{folder}/source/usr")
    path = f"{top}/store"
    with Store.open(path) as store:
        for name in ("one", "two"):
            app = store.create_app(name, AppConfig(), ids=IdMode.NONE)
            upper = f"{store.app_dir(app)}/data/upper"
            os.makedirs(f"{upper}/var/cache/x")
            with open(f"{upper}/var/cache/x/f", "w") as file:
                file.write("x")
        sources.bring(store, "b", f"{folder}/source")

    def fill():
        with contextlib.suppress(OSError), open(f"{top}/filler", "ab", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        with contextlib.suppress(OSError):
            for number in range(10**6):
                os.close(os.open(f"{top}/{number}", os.O_CREAT | os.O_EXCL))

    yield path, fill
    subprocess.run(["umount", top], check=True)


def kept(path):
    return len(os.listdir(f"{path}/{reserve.FOLDER}"))


def full(path):
    space = os.statvfs(path)
    return space.f_bavail == 0 or space.f_favail == 0


WAYS = {
    "reset": lambda store: store.reset_app("one"),
    "remove": lambda store: store.remove_app("one"),
    "reset --path": lambda store: data.reset_paths(store, store.app("one"), ["/var"]),
    "clear-cache": lambda store: data.clear_cache(store, store.app("one")),
    "base remove": lambda store: versions.remove(store, "b"),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_makes_room_works(disk, way):
    path, fill = disk
    Store.open(path).close()
    assert kept(path) == reserve.FILES
    fill()
    assert full(path)
    with Store.open(path) as store:
        # What merely looks around leaves the reserve as it was.
        assert len(store.apps()) == 2
        assert len(data.diff(store, store.app("one"))) >= 2
    assert kept(path) >= reserve.FILES - 1
    fill()
    with Store.open(path) as store:
        WAYS[way](store)
    with Store.open(path) as store:
        names = [app.name for app in store.apps()]
        assert names == (["two"] if way == "remove" else ["one", "two"])
        if way == "reset":
            assert os.listdir(f"{store.app_dir(store.app('one'))}/data/upper") == []
        assert os.path.exists(f"{store.app_dir(store.app('two'))}/data/upper/var/cache/x/f")
        assert bool(store.catalog.bases()) == (way != "base remove")
    assert os.listdir(f"{path}/staging") == []


def test_what_takes_room_does_not_get_the_reserve(disk):
    path, fill = disk
    Store.open(path).close()
    fill()
    with Store.open(path) as store, pytest.raises(LayerrunError, match="No space left"):  # noqa: PT012  (any may fail)
        for number in range(100):
            store.create_app(f"app-{number}", AppConfig(), ids=IdMode.NONE)
    assert kept(path) > reserve.FILES // 2
    with Store.open(path) as store:
        store.reset_app("one")


def test_after_a_crash_on_a_full_disk(disk):
    path, fill = disk
    Store.open(path).close()
    os.makedirs(f"{path}/staging/0123456789abcdef/data/upper")
    os.makedirs(f"{path}/apps/0123456789abcdef/data/upper")
    fill()
    with Store.open(path) as store:
        store.reset_app("one")
        assert os.listdir(f"{store.app_dir(store.app('one'))}/data/upper") == []


def test_a_snapshot_that_has_begun_is_made_on_a_full_disk(disk, monkeypatch):
    path, fill = disk
    Store.open(path).close()
    record, filled = freezing._record, []

    def late(*words):
        if not filled:
            fill()
            filled.append(full(path))
        return record(*words)

    monkeypatch.setattr(freezing, "_record", late)
    with Store.open(path) as store:
        snapshots.snapshot(store, store.app("one"))
        assert filled == [True]
        app = store.app("one")
        assert len(store.catalog.snapshots(app.id)) == len(app.frozen) == 1
        assert not os.path.exists(f"{store.app_dir(app)}/{freezing.CHANGE}")


def test_a_small_disk_is_not_taken_up(folder):
    os.mkdir(f"{folder}/m")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", f"{folder}/m"], check=True)
    try:
        Store.open(f"{folder}/m/store").close()
        assert not os.path.exists(f"{folder}/m/store/{reserve.FOLDER}")
    finally:
        subprocess.run(["umount", f"{folder}/m"], check=True)
