"""I4: killed at any line, every change is made or not made, and the next command works."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
from support.stores import check_whole, die_at_line, strides

from layerrun.model import AppConfig, AppKind, Home, IdMode
from layerrun.runtime.spares import find, recover
from layerrun.store import making, spares
from layerrun.store.plans import upper_state, write_plan
from layerrun.store.store import Store


# Neighbouring lines mostly stand for the same state on disk.
@pytest.fixture(params=strides(29, 6))
def stride(request):
    return request.param


@pytest.fixture
def template(folder):
    path = f"{folder}/template"
    with Store.open(path) as store:
        for name in ("one", "two"):
            app = store.create_app(name, AppConfig(), ids=IdMode.RANGE)
            with open(f"{store.app_dir(app)}/data/upper/precious", "w") as file:
                file.write(name)
    return path


def precious(store, name):
    try:
        with open(f"{store.app_dir(store.app(name))}/data/upper/precious") as file:
            return file.read()
    except FileNotFoundError:
        return None


def at_every_line(template, store_path, stride, action, check):
    def act():
        with Store.open(store_path) as store:
            action(store)

    number, killed = 1, True
    while killed:
        shutil.copytree(template, store_path)
        killed = die_at_line(number, act)
        check_whole(store_path)
        with Store.open(store_path) as store:
            check(store, done=not killed)
            assert precious(store, "two") == "two"
        check_whole(store_path)
        shutil.rmtree(store_path)
        number += stride
    assert number > 100


def test_create(template, store_path, stride):
    def check(store, *, done):
        names = [app.name for app in store.apps()]
        assert names in ([["new", "one", "two"]] if done else [["one", "two"], ["new", "one", "two"]])
        if "new" not in names:
            store.create_app("new", AppConfig(), ids=IdMode.RANGE)
        assert len({app.uid_start for app in store.apps()}) == 3
        store.reset_app("new")

    at_every_line(
        template,
        store_path,
        stride,
        lambda s: s.create_app("new", AppConfig(home=Home.FRESH), ids=IdMode.RANGE),
        check,
    )


def test_reset(template, store_path, stride):
    def check(store, *, done):
        # The catalog and the files always say the same.
        before = (1, "one"), (2, None)
        assert (store.app("one").generation, precious(store, "one")) in (before[1:] if done else before)
        store.reset_app("one")
        assert precious(store, "one") is None

    at_every_line(template, store_path, stride, lambda s: s.reset_app("one"), check)


def test_remove(template, store_path, stride):
    def check(store, *, done):
        names = [app.name for app in store.apps()]
        if "one" in names:
            assert not done
            assert precious(store, "one") == "one"
            store.remove_app("one")
        store.create_app("one", AppConfig(), ids=IdMode.RANGE)

    at_every_line(template, store_path, stride, lambda s: s.remove_app("one"), check)


def test_remove_and_keep(template, store_path, stride):
    def check(store, *, done):
        if "one" in [app.name for app in store.apps()]:
            assert not done
            assert precious(store, "one") == "one"
            assert store.kept("one") == []
            store.remove_app("one", keep_data=True)
        (kept,) = store.kept("one")
        with open(f"{kept}/upper/precious") as file:
            assert file.read() == "one"

    at_every_line(template, store_path, stride, lambda s: s.remove_app("one", keep_data=True), check)


def test_update_and_rename(template, store_path, stride):
    def action(store):
        store.update_app("one", AppConfig(home=Home.FRESH))
        store.rename_app("one", "uno")

    def check(store, *, done):
        (app,) = [app for app in store.apps() if app.name in ("one", "uno")]
        assert precious(store, app.name) == "one"
        assert not done or (app.name == "uno" and app.config.home is Home.FRESH)
        if app.config.home is Home.FRESH:
            os.close(store.open_app_dir(app, "data/home"))

    at_every_line(template, store_path, stride, action, check)


@pytest.fixture
def spare(template):
    """A spare in the template, as it was made: its stored plan says what its upper is like."""
    with Store.open(template) as store:
        app, lock = making.make_spare(store, ".try@host.0", AppConfig(), IdMode.RANGE)
        with lock:
            upper = f"{store.app_dir(app)}/data/upper"
            words = ["layerrun-stored", *"123456", "upper", upper, upper_state(upper), "plan", "end", ""]
            write_plan(store, app, "\0".join(words).encode())
            assert not spares.is_touched(store, app)
    return app


def test_drop_a_spare(template, spare, store_path, stride):
    # In a copy it has other inode numbers, and may be anybody's data.
    def action(store):
        (app,) = store.catalog.spares()
        with spares.take(store, app):
            spares.drop(store, app)

    def check(store, *, done):
        left = store.catalog.spares()
        assert len(left) <= (0 if done else 1)
        assert [app.name for app in store.apps()] == ["one", "two"]
        for app in left:
            with spares.take(store, app):
                spares.drop(store, app)

    at_every_line(template, store_path, stride, action, check)


@pytest.mark.root
@pytest.mark.parametrize("wrote", [True, pytest.param(False, marks=pytest.mark.long)])
def test_adopt_a_spare(template, spare, store_path, stride, wrote):
    """Whatever happens while it is saved, what was written into a spare is there, and under one name."""
    if wrote:
        with open(f"{template}/apps/{spare.id}/data/upper/written", "w") as file:
            file.write("precious")

    def check(store, *, done):
        if done:
            assert store.catalog.spares() == []
        recover(store)
        assert store.catalog.spares() == []
        found = store.apps(AppKind.THROWAWAY)
        assert len(found) == wrote
        for app in found:
            with open(f"{store.app_dir(app)}/data/upper/written") as file:
                assert file.read() == "precious"

    at_every_line(template, store_path, stride, recover, check)


@pytest.mark.root
@pytest.mark.idmap
@pytest.mark.long
def test_make_a_spare(template, store_path):
    def action(store):
        find(store, "host")[1].release()

    def check(store, *, done):
        recover(store)
        assert store.apps(AppKind.THROWAWAY) == []
        assert len(store.catalog.spares()) <= 1
        app, lock = find(store, "host")
        with lock:
            assert not spares.is_touched(store, app)
        assert len(store.catalog.spares()) == 1

    # Most lines are those of the compiler, which changes nothing.
    at_every_line(template, store_path, 150, action, check)


def test_new_store(folder, stride):
    number, killed = 1, True
    while killed:
        path = f"{folder}/{number}"
        killed = die_at_line(number, lambda path=path: Store.open(path).close())
        with Store.open(path) as store:
            store.create_app("one", AppConfig(), ids=IdMode.NONE)
        check_whole(path)
        number += stride
    assert number > 50


def test_recovery_itself(template, store_path, folder):
    """A crash while the leftovers of a crash are dealt with."""
    broken = f"{folder}/broken"
    found = 0
    for first in range(150, 1500, 110):
        shutil.copytree(template, broken)
        if not die_at_line(first, lambda: [s.reset_app("one") for s in [Store.open(broken)]]):
            shutil.rmtree(broken)
            break
        if os.listdir(f"{broken}/staging"):
            found += 1
            for second in range(60, 400, 35):
                shutil.copytree(broken, store_path)
                killed = die_at_line(second, lambda: Store.open(store_path).close())
                check_whole(store_path)
                shutil.rmtree(store_path)
                if not killed:
                    break
        shutil.rmtree(broken)
    assert found


LOOP = """
import sys
from layerrun.model import *
from layerrun.store.store import Store
with Store.open(sys.argv[1]) as store:
    print("go", flush=True)
    for n in range(10**6):
        app = store.create_app(f"a{n % 7}-{n}", AppConfig(), ids=IdMode.RANGE)
        open(store.app_dir(app) + "/data/upper/f", "w").close()
        store.reset_app(app.name)
        store.remove_app(app.name, keep_data=n % 5 == 0)
"""


def test_killed_at_random(store_path):
    rng = random.Random(1)
    for _ in range(6):
        argv = [sys.executable, "-c", LOOP, store_path]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "go\n"
        time.sleep(rng.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        check_whole(store_path)
        with Store.open(store_path) as store:
            assert len(store.apps()) <= 12


@pytest.mark.parametrize(
    "note", ["", "{", "[]", "{}", '{"what": "reset"}', '{"what": "keep", "app": 1}', "\xff"]
)
def test_odd_leftovers(template, note):
    os.mkdir(f"{template}/staging/0123456789abcdef")
    with open(f"{template}/staging/0123456789abcdef/note", "w") as file:
        file.write(note)
    with open(f"{template}/staging/file", "w"):
        pass
    os.symlink("/etc", f"{template}/staging/link")
    os.symlink("/etc", f"{template}/trash/link")
    os.makedirs(f"{template}/apps/orphan/data/upper")
    os.makedirs(f"{template}/bases/orphan/tree", mode=0)
    check_whole(template)
    assert os.path.exists("/etc/passwd")


def test_others_staging_is_left_alone(template):
    with Store.open(template) as store, store.ticket() as ticket:
        os.mkdir("work", dir_fd=ticket.fd)
        with Store.open(template):
            assert os.listdir(f"{template}/staging/{ticket.id}") == ["work"]
    assert os.listdir(f"{template}/staging") == os.listdir(f"{template}/trash") == []
