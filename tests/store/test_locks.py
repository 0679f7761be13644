"""The lock of an app: who has it, how it dies, how it is handed on."""

import os
import signal
import subprocess
import sys

import pytest

from layerrun.errors import BusyError, NotFoundError
from layerrun.model import AppConfig, IdMode
from layerrun.store import locks
from layerrun.store.store import Store

HOLD = (
    "import sys, time; from layerrun.store.store import Store\n"
    "s = Store.open(sys.argv[1]); lock = s.app_lock(s.app('one'), 'run: sleep')\n"
    "print('held', flush=True); time.sleep(600)\n"
)


@pytest.fixture
def store(store_path):
    with Store.open(store_path) as opened:
        opened.create_app("one", AppConfig(), ids=IdMode.NONE)
        yield opened


@pytest.fixture
def holder(store):
    process = subprocess.Popen([sys.executable, "-c", HOLD, store.path], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_holder_is_named(store, holder):
    app = store.app("one")
    for change in (
        lambda: store.app_lock(app, "run"),
        lambda: store.reset_app("one"),
        lambda: store.remove_app("one", keep_data=False),
        lambda: store.app_lock(app, "run", wait=0.1),
    ):
        with pytest.raises(BusyError, match=rf"process {holder.pid} \(run: sleep\)"):
            change()
    assert os.listdir(f"{store.path}/staging") == []


def test_dies_with_its_holder(store, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with store.app_lock(store.app("one"), "run"):
        pass


def test_is_waited_for(store, holder):
    killer = subprocess.Popen(["sh", "-c", f"sleep 0.2; kill -9 {holder.pid}"])
    with store.app_lock(store.app("one"), "run", wait=30):
        pass
    killer.wait()


def test_is_handed_on(store):
    app = store.app("one")
    lock = store.app_lock(app, "run")
    child = subprocess.Popen(["sleep", "600"], pass_fds=[lock.fileno()])
    lock.write_holder(child.pid, "run: sleep 600")
    lock.release()
    with pytest.raises(BusyError, match=rf"process {child.pid} \(run: sleep 600\)"):
        store.app_lock(app, "run")
    child.kill()
    child.wait()
    with store.app_lock(app, "run"):
        pass


def test_stale_line_names_nobody(store):
    app = store.app("one")
    path = f"{store.app_dir(app)}/lock"
    lock = store.app_lock(app, "run")
    for line in (
        "",
        "1 2",
        f"{os.getpid()} 1 {locks.boot_id()} run",
        f"{os.getpid()} x other-boot run",
        "\xff",
    ):
        with open(path, "w") as file:
            file.write(line)
        with pytest.raises(BusyError, match="another process"):
            store.app_lock(app, "run")
    lock.release()


def test_what_may_hold_anything(store):
    app = store.app("one")
    with store.app_lock(app, "run: a\nb ) (" + os.fsdecode(b"\xff")) as lock:
        assert locks.holder(lock.fileno()) == (os.getpid(), "run: a b ) (" + os.fsdecode(b"\xff"))


def test_removed_while_waiting(store, holder, store_path):
    with Store.open(store_path) as other:
        app = store.app("one")
        fd = other.open_app_dir(app)
        holder.kill()
        holder.wait()
        store.remove_app("one")
        with pytest.raises(NotFoundError, match="removed meanwhile"):
            locks.AppLock.acquire(fd, "one", wait=1)
        os.close(fd)


def test_shared_and_exclusive(store):
    fd = store.open_app_dir(store.app("one"))
    with (
        locks.AppLock.acquire(fd, "one", exclusive=False),
        locks.AppLock.acquire(fd, "one", exclusive=False),
        pytest.raises(BusyError),
    ):
        locks.AppLock.acquire(fd, "one")
    with locks.AppLock.acquire(fd, "one"), pytest.raises(BusyError):
        locks.AppLock.acquire(fd, "one", exclusive=False)
    os.close(fd)


def test_start_time():
    assert locks.start_time(os.getpid()).isdigit()
    assert locks.start_time(2**22 + 1) is None
