"""Imports that are killed, or that a full disk ends: the old state is left, or the new one, and nothing else."""

import io
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from support.sandbox import wait_for
from support.stores import check_whole
from support.streams import Told

from layerrun.bases import intake
from layerrun.images.stream import Record, write_record
from layerrun.store.store import Store

LAYERRUN = os.path.join(os.path.dirname(sys.executable), "layerrun")


@pytest.fixture
def archive(folder):
    """Files of which many are equal, and one that is not held in memory."""
    root = f"{folder}/tree"
    for number in range(400):
        os.makedirs(f"{root}/usr/{number % 20}", exist_ok=True)
        with open(f"{root}/usr/{number % 20}/{number}", "wb") as file:
            file.write(b"%d" % (number % 300) * 2000)
        os.utime(f"{root}/usr/{number % 20}/{number}", (10**9, 10**9))
    with open(f"{root}/usr/large", "wb") as file:
        file.write(os.urandom(6 << 20))
    path = f"{folder}/tree.tar"
    subprocess.run(["tar", "-C", root, "-cf", path, "."], check=True)
    return path


def start(store, *words):
    env = {**os.environ, "LAYERRUN_STORE": store, "LAYERRUN_SWEEP": "foreground"}
    return subprocess.Popen(
        [LAYERRUN, *words],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run(store, *words):
    process = start(store, *words)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def swept(store):
    """Nothing is staged any more, and no object is without a tree, once somebody has looked."""
    assert run(store, "base", "list")[0] == 0
    check_whole(store)
    assert os.listdir(f"{store}/staging") == []
    assert run(store, "gc", "-y")[0] == 0
    for at, _, names in os.walk(f"{store}/objects"):
        for name in names:
            assert os.stat(f"{at}/{name}").st_nlink > 1


def kill_at(store, archive, moments):
    for number, moment in enumerate(moments):
        process = start(store, "base", "import", f"b{number}", archive)
        time.sleep(moment)
        with_children = process.pid
        try:
            os.killpg(with_children, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.communicate()
        swept(store)
    code, out, err = run(store, "base", "import", "whole", archive, "--json")
    assert code == 0, err
    for base in json.loads(run(store, "base", "list", "--json")[1])["bases"]:
        if base["kind"] == "tree":
            assert base["digest"] == json.loads(out)["digest"]
            assert run(store, "base", "verify", base["name"])[0] == 0


def test_killed_at_any_time(store_path, archive):
    with Store.open(store_path):
        pass
    began = time.monotonic()
    assert run(store_path, "base", "import", "first", archive)[0] == 0
    whole = time.monotonic() - began
    kill_at(store_path, archive, [whole * part for part in (0.3, 0.5, 0.6, 0.7, 0.8, 0.95)])


@pytest.mark.long
def test_killed_at_many_times(store_path, archive):
    with Store.open(store_path):
        pass
    chance = random.Random(6)
    kill_at(store_path, archive, [chance.uniform(0.05, 0.6) for _ in range(60)])


@pytest.fixture
def small(folder):
    """A file system with little room: give a function that mounts one of so many bytes and inodes."""
    where = f"{folder}/small"
    os.mkdir(where)

    def mount(size, inodes):
        options = f"size={size},nr_inodes={inodes},mode=700"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", where], check=True)
        return f"{where}/store"

    yield mount
    subprocess.run(["umount", "-l", where], check=False)


@pytest.mark.parametrize(
    ("size", "inodes"), [(3 << 20, 9000), (6 << 20, 9000), (64 << 20, 300), (64 << 20, 620)]
)
def test_a_full_disk(small, archive, size, inodes):
    store = small(size, inodes)
    with Store.open(store):
        pass
    code, _, err = run(store, "base", "import", "b", archive)
    assert code == 1
    assert "No space left" in err
    assert "LAYERRUN_STORE" in err
    swept(store)
    assert os.listdir(f"{store}/bases") == []
    subprocess.run(["mount", "-o", "remount,size=64m,nr_inodes=9000", os.path.dirname(store)], check=True)
    code, _, err = run(store, "base", "import", "b", archive)
    assert code == 0, err
    assert run(store, "base", "verify", "b")[0] == 0


def test_imports_and_gc_at_once(store_path, archive):
    """What one import is about to use another command may sweep; each makes it again."""
    with Store.open(store_path):
        pass
    both = [start(store_path, "base", "import", f"b{number}", archive) for number in range(3)]
    while any(process.poll() is None for process in both):
        assert run(store_path, "gc", "-y")[0] == 0
    assert [process.communicate()[1][-300:] and process.returncode for process in both] == [0, 0, 0]
    for number in range(3):
        assert run(store_path, "base", "verify", f"b{number}")[0] == 0
    swept(store_path)


@pytest.mark.parametrize("said", [0, 4 << 20], ids=["nothing", "a part"])
def test_an_interrupt_leaves_nothing(store_path, archive, said):
    """Ctrl-C while an archive comes from a pipe that says no more, or has not said anything yet."""
    with Store.open(store_path):
        pass
    env = {**os.environ, "LAYERRUN_STORE": store_path, "LAYERRUN_SWEEP": "foreground"}
    process = subprocess.Popen([LAYERRUN, "base", "import", "b", "-"], env=env, stdin=subprocess.PIPE)
    with open(archive, "rb") as file:
        process.stdin.write(file.read(said))
    process.stdin.flush()
    if said:
        wait_for(lambda: os.listdir(f"{store_path}/staging"))
    else:
        wait_for(lambda: _waits_for_input(process.pid))
    process.send_signal(signal.SIGINT)
    assert process.wait(20) != 0
    process.stdin.close()
    swept(store_path)


def _waits_for_input(pid):
    """Say whether it reads its standard input, or a copy of it: the number of read(2), a descriptor of that pipe."""
    with open(f"/proc/{pid}/syscall", encoding="ascii") as file:
        words = file.read().split()
    if words[0] not in ("0", "63"):  # x86-64, aarch64
        return False
    return os.path.samefile(f"/proc/{pid}/fd/0", f"/proc/{pid}/fd/{int(words[1], 16)}")


def test_a_hole_that_takes_minutes_can_be_interrupted(store_path, folder):
    """It is hashed as the zeros that it stands for."""
    os.makedirs(f"{folder}/tree/usr")
    with open(f"{folder}/tree/usr/hole", "wb") as hole:
        hole.truncate(1 << 40)
    with Store.open(store_path):
        pass
    process = start(store_path, "base", "import", "b", f"{folder}/tree")
    try:
        wait_for(lambda: os.listdir(f"{store_path}/staging"))
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
        # Python ends by the signal itself where that comes before it listens to it, or when it no longer does.
        assert process.returncode in (130, -signal.SIGINT), said
    finally:
        process.kill()
        process.communicate()
    swept(store_path)


class Endless(Told):
    """Tells of links for as long as anybody listens, faster than they can be made."""

    def write(self, out):
        told = io.BytesIO()
        for number in range(1000):
            write_record(told, Record("l", b"%d" % number, 0o777, link=b"x"))
        while True:
            out.write(told.getvalue())


def test_an_interrupt_is_heard_where_no_content_comes(store_path):
    interrupted = []

    def interrupt(_entries, _size):
        interrupted.append(time.monotonic())
        raise KeyboardInterrupt

    with Store.open(store_path) as store:
        with pytest.raises(KeyboardInterrupt):
            intake.import_base(store, "b", Endless([]), progress=interrupt)
        assert time.monotonic() - interrupted[0] < 5
        assert os.listdir(f"{store.path}/staging") == []
