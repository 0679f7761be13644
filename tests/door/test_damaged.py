"""Whatever lies where a stored plan should, the start is right, and the next one is quick again."""

from __future__ import annotations

import fcntl
import glob
import os
import pathlib
import select
import signal
import subprocess

import pytest
from support.sandbox import wait_for

from layerrun.runtime.sums import fnv
from layerrun.store.locks import AppLock

pytestmark = [pytest.mark.root, pytest.mark.idmap]

ECHO = ("app", "a", "--", "echo", "right")


@pytest.fixture
def plan(door, store_path):
    """The stored plan of ``a``."""
    door.warm(*ECHO, check=0)
    return pathlib.Path(store_path, "plans", "a")


def is_not_run(door):
    done = door(*ECHO, check=0)
    assert (done.python, done.out, done.err) == (True, "right\n", "")
    assert door.warm(*ECHO, check=0).out == "right\n"


def summed(words):
    """Return the bytes of a stored plan with the right sum."""
    data = b"".join(word + b"\0" for word in words)
    return data + fnv(data).encode() + b"\0"


def test_cut_off(door, plan):
    whole = plan.read_bytes()
    for size in (0, 1, 16, 17, 18, 100, len(whole) // 2, len(whole) - 18, len(whole) - 1):
        plan.write_bytes(whole[:size])
        is_not_run(door)


def test_a_byte_that_was_changed(door, plan):
    whole = plan.read_bytes()
    for place in (*range(0, len(whole), len(whole) // 12), len(whole) - 1):
        plan.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        is_not_run(door)


@pytest.mark.parametrize("size", [1, 1 << 20, 64 << 20])
def test_too_large(door, plan, size):
    with open(plan, "ab") as file:
        file.truncate(os.path.getsize(plan) + size)
    is_not_run(door)


def test_zeros(door, plan):
    """What a file system may leave of a file that was never synced."""
    plan.write_bytes(bytes(len(plan.read_bytes())))
    is_not_run(door)


@pytest.mark.parametrize("mode", [0o644, 0o620, 0o604, 0o640, 0o777])
def test_open_to_others(door, plan, mode):
    plan.chmod(mode)
    is_not_run(door)
    assert plan.stat().st_mode & 0o777 == 0o600


def test_of_another_owner(door, plan, plain_user):
    os.chown(plan, plain_user.uid, plain_user.gid)
    is_not_run(door)
    assert plan.stat().st_uid == 0


def test_a_link_to_the_right_one(door, plan, folder):
    moved = plan.rename(os.path.join(folder, "moved"))
    plan.symlink_to(moved)
    is_not_run(door)
    assert not plan.is_symlink()


def test_a_dangling_link(door, plan, folder):
    plan.unlink()
    plan.symlink_to(os.path.join(folder, "nowhere"))
    is_not_run(door)
    assert os.listdir(folder).count("nowhere") == 0


def test_a_fifo_hangs_nobody(door, plan):
    plan.unlink()
    os.mkfifo(plan, 0o600)
    is_not_run(door)


def test_a_folder(door, layerrun, plan):
    plan.unlink()
    plan.mkdir()
    done = door(*ECHO, check=0)
    assert (done.python, done.out, done.err) == (True, "right\n", "")
    layerrun("reset", "-y", "a", check=0)
    assert door(*ECHO, check=0).out == "right\n"


def test_plans_is_a_link_elsewhere(door, plan, folder):
    elsewhere = plan.parent.rename(os.path.join(folder, "elsewhere"))
    plan.parent.symlink_to(elsewhere)
    assert door(*ECHO, check=0).python
    assert door(*ECHO, check=0).python


def test_no_plans_at_all(door, plan):
    plan.unlink()
    plan.parent.rmdir()
    is_not_run(door)


HEAD = {
    "another word": (0, b"layerrun-other"),
    "another version": (1, b"2"),
    "another caller": (2, b"1000:1000:1000:1000:"),
    "another group": (2, b"0:0:0:0:4242"),
    "another store": (3, b"1:2"),
    "another path of the store": (4, b"/nowhere"),
    "no lock": (5, b"apps/0000000000000000/lock"),
    "a lock outside": (5, b"../../../../etc/passwd"),
    "an absolute lock": (5, b"/etc/passwd"),
    "another app": (6, b"b"),
    "an unknown condition": (7, b"moon"),
    "other mounts": (9, b"0123456789abcdef"),
    "an unreadable file to sum": (8, b"/proc/self/mem"),
    "a folder to sum": (8, b"/"),
}


@pytest.mark.parametrize("case", HEAD)
def test_a_head_that_does_not_fit_though_its_sum_does(door, plan, case):
    place, word = HEAD[case]
    words = plan.read_bytes().split(b"\0")[:-2]
    words[place] = word
    plan.write_bytes(summed(words))
    is_not_run(door)


def test_the_sum_is_what_the_door_takes(door, plan):
    """Else the tests beside this one would show nothing."""
    words = plan.read_bytes().split(b"\0")[:-2]
    assert plan.read_bytes() == summed(words)
    words[-1:] = [b"env", b"MARK=1", b"end"]
    plan.write_bytes(summed(words))
    done = door("app", "a", "--", "sh", "-c", "echo $MARK", check=0)
    assert (done.python, done.out) == (False, "1\n")


PLANS = {
    "none": lambda words: [],
    "cut off": lambda words: words[:-1],
    "something follows": lambda words: [*words, b"x"],
    "an unknown operation": lambda words: [*words[:-1], b"fly", b"end"],
    "another version": lambda words: [words[0], b"99", *words[2:]],
    "a data folder that is gone": lambda words: [b"/nowhere" if b"/data" in w else w for w in words],
}


@pytest.mark.parametrize("case", PLANS)
def test_a_plan_that_cannot_be_run_though_its_sum_is_right(door, plan, case):
    words = plan.read_bytes().split(b"\0")[:-2]
    start = words.index(b"layerrun-plan")
    plan.write_bytes(summed(words[:start] + PLANS[case](words[start:])))
    is_not_run(door)


def test_a_plan_that_never_begins(door, plan):
    words = plan.read_bytes().split(b"\0")[:-2]
    plan.write_bytes(summed(words[: words.index(b"plan")]))
    is_not_run(door)


def test_a_full_disk_keeps_no_app_from_starting(door, mounts, folder):
    disk = os.path.join(folder, "disk")
    os.mkdir(disk)
    mounts.sh('mount -t tmpfs -o size=2m,mode=755 tmpfs "$1"', disk)
    options = {"prefix": mounts.prefix(), "env": {"LAYERRUN_STORE": f"{disk}/store"}}
    door.warm(*ECHO, check=0, **options)
    mounts.sh('dd if=/dev/zero of="$1/fill" bs=4k 2>/dev/null || true', disk)
    assert door.warm(*ECHO, check=0, **options).out == "right\n"


# The lock


def lock_of(store_path):
    (name,) = os.listdir(f"{store_path}/apps")
    return pathlib.Path(store_path, "apps", name, "lock")


def quiet_lock_of(store_path):
    """Wait until nothing is ending: its line in the lock is what keeps the next start from mounting too early."""
    lock = lock_of(store_path)
    try:
        end = os.pidfd_open(int(lock.read_text().split()[0]))
    except ProcessLookupError:
        return lock
    try:
        assert select.select([end], [], [], 30)[0], "the last start's pid 1 has not ended"
    finally:
        os.close(end)
    return lock


@pytest.mark.parametrize("first", ["hot", "cold"])
def test_an_app_that_runs_is_joined(door, plan, first):
    env = door.layerrun.env(LAYERRUN_FRONT_DOOR="0" if first == "cold" else None)
    running = subprocess.Popen(
        door.argv("app", "a", "--", "sh", "-c", "echo up; exec sleep 60"),
        env=env,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    try:
        assert running.stdout.readline() == b"up\n"
        done = door(*ECHO, check=0)
        assert not done.python
        assert done.out == "right\n"
    finally:
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=30)
    assert running.returncode == 128 + signal.SIGTERM
    assert door.warm(*ECHO, check=0).out == "right\n"


def test_an_app_that_is_being_changed_is_named_with_who_does_it(door, plan):
    (lock,) = glob.glob(f"{door.layerrun.store()}/apps/*/lock")
    with open(lock, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        AppLock(file.fileno(), "a").write_holder(os.getpid(), "reset")
        done = door(*ECHO, check=5)
    assert done.python
    assert done.out == ""
    assert f"in use by process {os.getpid()} (reset)" in done.err


def test_a_launcher_that_was_killed(door, plan):
    """Its pid 1 follows, and the next start waits for that, whoever makes it."""
    for _ in range(10):
        running = subprocess.Popen(
            door.argv("app", "a", "--", "sh", "-c", "echo up; exec sleep 60"),
            env=door.layerrun.env(),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        assert running.stdout.readline() == b"up\n"
        running.kill()
        running.communicate(timeout=30)
        done = wait_for(lambda: (found := door(*ECHO)).rc != 5 and found, what="it stays locked")
        assert (done.rc, done.out) == (0, "right\n"), done.err


def test_a_previous_holder_who_still_lives(door, plan, store_path):
    """Its mounts may outlive its lock: Python knows how to wait for that."""
    lock = quiet_lock_of(store_path)
    lock.write_text(f"{os.getpid()} 1 some-boot run\n")
    assert door(*ECHO, check=0).python
    door.warm(*ECHO, check=0)


@pytest.mark.parametrize(
    "text", ["", "\n", "x", "-1 x y z\n", "0 0 0 0\n", "99999999999999999999 1 x run\n", "x" * 5000]
)
def test_nonsense_in_the_lock(door, plan, store_path, text):
    quiet_lock_of(store_path).write_text(text)
    assert door(*ECHO, check=0).out == "right\n"
    assert door.warm(*ECHO, check=0).out == "right\n"


def test_a_lock_that_is_missing_or_a_link(door, plan, store_path, folder):
    lock = quiet_lock_of(store_path)
    lock.unlink()
    is_not_run(door)
    lock.unlink()
    lock.symlink_to(os.path.join(folder, "elsewhere"))
    done = door(*ECHO)
    assert done.python
    assert done.rc != 0
    assert not os.path.exists(os.path.join(folder, "elsewhere"))


def test_many_at_once(door, plan):
    """Hot starts of one app: whoever does not start it joins, or starts it after its end."""
    started = [
        subprocess.Popen(
            door.argv("app", "a", "--", "sh", "-c", "sleep 0.05; echo ran"),
            env=door.layerrun.env(),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(12)
    ]
    outs = [process.communicate(timeout=60) for process in started]
    assert [process.returncode for process in started] == [0] * 12, outs
    assert outs == [(b"ran\n", b"")] * 12
