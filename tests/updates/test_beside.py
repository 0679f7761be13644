"""Updates beside each other, beside starts, and cut short: one version or the other, whole."""

import os
import subprocess
import time

import pytest
from support.stores import check_whole, die_at_line

from layerrun.bases import versions
from layerrun.model import AppConfig
from layerrun.store.store import Store
from layerrun.updates import switching
from layerrun.updates.guard import updating

NEW = {"etc/shared": "2\n", "etc/new": "new\n", "etc/old": None}


def test_one_update_at_a_time(root):
    two = root.version("two", NEW)
    words = ("base", "update", "small", "--from", two, "-y", "--check", "sleep 3")
    first = subprocess.Popen(root.layerrun.argv(*words), env=root.layerrun.env(), stderr=subprocess.PIPE)
    assert b"checking" in first.stderr.readline()
    second = root("base", "update", "small", "--from", two, "-y", check=5)
    assert "another update" in second.err
    assert root("create", "web", "--base", "small").rc == 0  # all else goes on
    assert first.wait(30) == 0
    first.stderr.close()
    assert root.versions() == {1: False, 2: True}


def test_killed_in_a_check(root):
    two = root.version("two", NEW)
    words = ("base", "update", "small", "--from", two, "-y", "--check", "sleep 1000")
    update = subprocess.Popen(root.layerrun.argv(*words), env=root.layerrun.env(), stderr=subprocess.PIPE)
    assert b"checking" in update.stderr.readline()
    time.sleep(0.5)
    update.kill()
    update.wait()
    update.stderr.close()
    deadline = time.monotonic() + 20
    while root.json("list")["apps"] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert root.json("list")["apps"] == []
    assert root.versions() == {1: True}
    check_whole(root.store())


def test_a_version_is_pending_until_it_is_gone(root, monkeypatch):
    with Store.open(root.store()) as store:
        monkeypatch.setattr(versions, "_remove", _killed)
        two = root.version("two", NEW)
        root("base", "import", "other", two, check=0)
        other = store.base("other")
        with store.catalog.transaction():
            store.catalog.set_slot("other", pending=other.id)
        with pytest.raises(KeyboardInterrupt):
            versions.take_back(store, other)
        assert store.catalog.pending_versions() == [("other", other.id)]
        monkeypatch.undo()
        with updating(store):
            pass
        assert store.catalog.base("other") is None
        assert store.catalog.pending_versions() == []


def _killed(_store, _versions):
    raise KeyboardInterrupt


def test_starts_beside_switches(place):
    """A start sees one version or the other, whole, and never fails, whatever is switched meanwhile."""
    place("create", "web", "--base", "small", check=0)
    place.update(place.version("two", {"etc/shared": "2\n", "var/dir/a": "2\n"}))
    line = (
        'for i in 1 2 3 4 5 6; do "$0" app web -- sh -c "cat /etc/shared /var/dir/a" || exit 1; echo .; done'
    )
    argv = place.layerrun.argv("x", user=place.who)
    start = [*argv[: argv.index("x") - 1], "sh", "-c", line, argv[argv.index("x") - 1]]
    starts = subprocess.Popen(
        start,
        env=place.layerrun.env(place.who),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd="/",
    )
    for _ in range(6):
        place("base", "rollback", "small", "-y", check=0)
    said, _ = starts.communicate(timeout=60)
    assert starts.returncode == 0, said
    seen = said.replace("\n", "").split(".")[:-1]
    assert len(seen) == 6, said
    assert set(seen) <= {"1a", "22"}, said


def prepared(path, source, other):
    from layerrun.bases import sources

    with Store.open(path) as store:
        sources.bring(store, "b", source)
        store.create_app("web", AppConfig(base="b"), ids=store.base("b").ids)
        with updating(store):
            new = sources.bring(store, "b", other, version=True)
            with store.catalog.transaction():
                store.catalog.set_slot("b", pending=None)
    return new


@pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.long)])
def test_a_switch_cut_short_anywhere(store_path, folder, step):
    for name in ("one", "two"):
        os.makedirs(f"{folder}/{name}/usr")
        with open(f"{folder}/{name}/usr/f", "w") as file:
            file.write(name)
    prepared(store_path, f"{folder}/one", f"{folder}/two")

    def act(number):
        def work():
            with Store.open(store_path) as store, updating(store, wait=5):
                switching.switch(store, switching.find(store, "b", number), what="switch")

        return work

    current, line = 1, 1
    while True:
        target = 3 - current
        alive = die_at_line(line, act(target))
        check_whole(store_path)
        with Store.open(store_path) as store:
            base, app = store.base("b"), store.app("web")
            assert base.version in (1, 2)
            assert app.base_id == base.id  # both, or neither
            assert app.config.base == "b"
            current = base.version
        if not alive:
            assert current == target
            break
        line += step


def test_an_import_of_a_version_cut_short(store_path, folder):
    """Neither the version nor a trace of it is left once somebody looks after updates again."""
    from layerrun.bases import sources

    for name in ("one", "two"):
        os.makedirs(f"{folder}/{name}/usr")
        with open(f"{folder}/{name}/usr/f", "w") as file:
            file.write(name)
    with Store.open(store_path) as store:
        sources.bring(store, "b", f"{folder}/one")
        with updating(store):
            sources.bring(store, "b", f"{folder}/two", version=True)
        assert [base.version for base in store.catalog.versions("b")] == [1, 2]
        with updating(store):
            assert [base.version for base in store.catalog.versions("b")] == [1]
    check_whole(store_path)
