"""What a delta makes of the old base is the new one: content, metadata, times, hard links; and it is small."""

import os
import random

import pytest
from support.deltas import feed, scan
from support.stores import check_whole, die_at_line

from layerrun.bases import sources, versions
from layerrun.errors import ExistsError, NotFoundError, UsageError
from layerrun.store.store import Store
from layerrun.updates.delta import check, make_delta
from layerrun.updates.deltafile import BLOCK
from layerrun.updates.patching import delta_source
from layerrun.updates.sources import is_delta_file

SEED = random.Random(6)
WHEN = 1_600_000_000 * 10**9 + 7


@pytest.fixture
def store(store_path):
    with Store.open(store_path) as opened:
        yield opened


def write(root, files):
    for path, content in files.items():
        path = os.path.join(os.fsencode(root), os.fsencode(path))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)
        os.utime(path, ns=(WHEN, WHEN))


def noise(size):
    return SEED.randbytes(size)


def changed(data, times=5):
    """Return data with something put in, taken out and overwritten here and there."""
    work = bytearray(data)
    for _ in range(times):
        at = SEED.randrange(len(work))
        work[at : at + SEED.randrange(9)] = noise(SEED.randrange(9))
    return bytes(work)


@pytest.fixture
def roots(folder):
    """Two versions of a root file system: all kinds of changes."""
    old, new = f"{folder}/old", f"{folder}/new"
    big, middle, lib, twice = noise(BLOCK + (1 << 20)), noise(300_000), noise(200_000), noise(50_000)
    same = {f"usr/share/same{n}": noise(n * 10) for n in range(20)}
    before = {
        "usr/bin/tool": middle,
        "usr/lib/libfoo.so.1.2": lib,
        "usr/big": big,
        "usr/gone": b"gone",
        "usr/was-file": b"f",
        "usr/was-dir/file": b"f",
        "usr/mode": b"mode",
        "usr/tiny": b"1",
        "etc/moved.conf": b"moved %d" * 100,
        "usr/touched": b"touched",
    }
    after = {
        "usr/bin/tool": changed(middle),
        "usr/lib/libfoo.so.1.3": changed(lib),
        "usr/big": changed(noise(100) + big + noise(100)),
        "usr/was-file/file": b"now a folder",
        "usr/was-dir": b"now a file",
        "usr/mode": b"mode",
        "usr/tiny": b"2",
        "usr/empty": b"",
        "opt/moved.conf": b"moved %d" * 100,
        "usr/touched": b"touched",
        "usr/fresh": noise(70_000),
        "usr/twice": twice,
        "usr/thrice": twice,
        b"usr/odd \xff\n\\=name": b"odd",
    }
    write(old, same | before)
    write(new, same | after)
    os.symlink("/etc/passwd", f"{old}/usr/link")
    dress(new)
    return old, new


def dress(new):
    """Give a tree what is more than names and content."""
    os.chmod(f"{new}/usr/mode", 0o4711)
    os.utime(f"{new}/usr/touched", ns=(5, 5_000_000_007))
    os.link(f"{new}/usr/fresh", f"{new}/usr/hard")
    os.link(f"{new}/usr/mode", f"{new}/usr/a-hard")
    os.symlink(b"\xff\n odd", f"{new}/usr/link")
    os.mkfifo(f"{new}/usr/fifo")
    os.setxattr(f"{new}/usr/tiny", "user.mark", b"a\0=b ")
    with open(f"{new}/usr/sparse", "wb") as file:
        file.truncate(9 << 20)
        file.seek(5 << 20)
        file.write(b"not a hole")
    if os.geteuid() == 0:
        os.chown(f"{new}/usr/tiny", 33, 44)
        os.mkdir(f"{new}/dev")
        os.mknod(f"{new}/dev/null", 0o20666, os.makedev(1, 3))
        capability = bytes.fromhex("0100000200040000000000000000000000000000")
        os.setxattr(f"{new}/usr/bin/tool", "security.capability", capability)


def imported(store, roots):
    return [sources.bring(store, name, root) for name, root in zip(("old", "new"), roots, strict=True)]


def test_the_new_base_comes_out(store, roots, folder):
    old, new = imported(store, roots)
    path = f"{folder}/delta"
    made = make_delta(store, old, new, path, level=9)
    assert made.size == os.path.getsize(path)
    assert made.size < 140_000  # what is new, and little more
    assert made.patched == 3
    assert is_delta_file(path)
    assert check(path) == made.head
    source = delta_source(store, path)
    assert source.expected == new.digest
    assert feed(store, source) == scan(roots[1])
    source.close()


def test_the_same_bases_make_the_same_file(store, roots, folder):
    old, new = imported(store, roots)
    for name in "ab":
        make_delta(store, old, new, f"{folder}/{name}", level=3)
    with open(f"{folder}/a", "rb") as a, open(f"{folder}/b", "rb") as b:
        assert a.read() == b.read()


def test_it_goes_back_by_xz_as_well(store, roots, folder):
    old, new = imported(store, roots)
    made = make_delta(store, new, old, f"{folder}/back", level=16)
    assert made.fresh
    source = delta_source(store, f"{folder}/back")
    assert feed(store, source) == scan(roots[0])
    source.close()


def test_a_file_that_is_there_stays(store, roots, folder):
    old = sources.bring(store, "old", roots[0])
    write(folder, {"mine": b"mine"})
    with pytest.raises(ExistsError):
        make_delta(store, old, old, f"{folder}/mine")
    with pytest.raises(UsageError):
        make_delta(store, old, store.base("host"), f"{folder}/other")
    make_delta(store, old, old, f"{folder}/mine", force=True)
    assert check(f"{folder}/mine").new == old.digest
    assert sorted(os.listdir(folder)) == ["mine", "new", "old", "store"]


def test_it_fits_one_base_alone(store, roots, folder):
    old, new = imported(store, roots)
    make_delta(store, old, new, f"{folder}/delta", level=3)
    versions.remove(store, "old")
    with pytest.raises(NotFoundError, match="is for a base that is not here") as caught:
        delta_source(store, f"{folder}/delta", "new")
    assert new.digest in str(caught.value)
    assert old.digest in str(caught.value)


def test_killed_it_leaves_a_whole_file_or_none(store, folder):
    for name in ("old", "new"):
        write(f"{folder}/{name}", {"usr/one": name.encode() * 3000, "usr/two": b"two"})
    old, new = imported(store, (f"{folder}/old", f"{folder}/new"))
    path, line, died = f"{folder}/delta", 1, True
    while died:
        died = die_at_line(line, lambda: make_delta(store, old, new, path, level=1, force=True))
        assert {"delta"} >= set(os.listdir(folder)) - {"old", "new", "store"}
        if os.path.exists(path):
            assert check(path).new == new.digest
            os.unlink(path)
        line += 103
    assert line > 500
    check_whole(store.path)
