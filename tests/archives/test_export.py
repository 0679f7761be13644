"""A base that came from an archive goes out as it was: owners, devices, times, hard links, whoever imported it."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import attrs
import pytest
from support.archives import read_bytes, tar
from support.sandbox import wait_for
from support.users import PLAIN, SINGLE, ensure

pytestmark = [pytest.mark.root, pytest.mark.idmap, pytest.mark.rootless]


@pytest.fixture
def packed(tree):
    """An archive with owners that a plain user has not, and devices."""
    os.mkdir(f"{tree}/dev")
    os.mknod(f"{tree}/dev/null", 0o020666, os.makedev(1, 3))
    os.mknod(f"{tree}/dev/sda", 0o060640, os.makedev(8, 0))
    for name, owner in (
        ("usr/1", (33, 42)),
        ("usr/2", (65534, 65534)),
        ("usr/link", (7, 8)),
        ("dev/null", (0, 5)),
    ):
        os.chown(f"{tree}/{name}", *owner, follow_symlinks=False)
    for name in ("usr/bin", "usr/longlink", "dev/sda", "fifo"):
        os.utime(f"{tree}/{name}", ns=(0, 1_500_000_000_000_000_789), follow_symlinks=False)
    subprocess.run(["setcap", "cap_net_raw+ep", f"{tree}/usr/3"], check=True)
    return tar("-c", "--format=posix", "--xattrs", "--xattrs-include=*", ".", cwd=tree)


def entries(data):
    """What an archive holds, in no order; of a hard link group the names, and what the file is."""
    _, got = read_bytes(data)
    groups, found = {}, {}
    for one in got:
        record = one.record
        if record.kind == "h":
            groups.setdefault(record.link, {record.link}).add(record.path)
        else:
            found[record.path] = (record, one.content if record.kind == "f" else b"")
    for first, names in groups.items():
        record, content = found.pop(first)
        found[b"\0".join(sorted(names))] = (attrs.evolve(record, path=b""), content)
    return found


def test_holes_stay_holes(layerrun, folder):
    """By what files hold, and not by how they lie: GNU tar, others and our own reader make the same of it."""
    for name in ("sparse", "full"):
        os.makedirs(f"{folder}/{name}/usr/{'d' * 90}")
    parts = {
        "all": (3 << 20, []),
        "border": (1 << 20, [(1 << 18, b"x")]),
        "end": ((1 << 20) + 5, [(1 << 20, b"tail.")]),
        "d" * 90 + "/\xe9" + "n" * 60: (1 << 19, [(100_000, b"x" * 70_000)]),
        "one": (65536, []),
        "short": (65535, []),
    }
    for path, (size, data) in parts.items():
        with (
            open(f"{folder}/sparse/usr/{path}", "wb") as sparse,
            open(f"{folder}/full/usr/{path}", "wb") as full,
        ):
            sparse.truncate(size)
            full.write(bytes(size))
            for offset, what in data:
                for file in (sparse, full):
                    file.seek(offset)
                    file.write(what)
    for top, folders, names in os.walk(folder):
        for name in folders + names:
            os.utime(f"{top}/{name}", (7, 7))
    for name in ("sparse", "full"):
        layerrun("base", "import", name, f"{folder}/{name}", check=0)
        layerrun("base", "export", name, f"{folder}/{name}.tar", check=0)
    with open(f"{folder}/sparse.tar", "rb") as sparse, open(f"{folder}/full.tar", "rb") as full:
        data = sparse.read()
        assert full.read() == data
    assert len(data) < 400_000
    layerrun("base", "import", "again", f"{folder}/sparse.tar", check=0)
    layerrun("base", "export", "again", f"{folder}/again.tar", check=0)
    with open(f"{folder}/again.tar", "rb") as again:
        assert again.read() == data
    for number, argv in enumerate(
        (["tar", "-xf"], ["bsdtar", "-xf"], ["python3", "-m", "tarfile", "-e"]),
    ):
        out = f"{folder}/out{number}"
        os.mkdir(out)
        subprocess.run([*argv, f"{folder}/sparse.tar"], cwd=out, check=True, capture_output=True)
        subprocess.run(["diff", "-r", f"{folder}/full", out], check=True)
    assert os.stat(f"{folder}/out0/usr/all").st_blocks * 512 < 1 << 20


def test_more_holes_than_a_map_may_have(folder, monkeypatch):
    """The largest stay, and of equal ones the first."""
    from layerrun.images import sparse

    monkeypatch.setattr(sparse, "_MOST", 4)
    starts = [0, 2, 4, 9, 11, 15, 17]  # in pieces; behind them holes of 1, 1, 4, 1, 3, 1 and 0 pieces
    with open(f"{folder}/x", "w+b") as file:
        for start in starts:
            os.pwrite(file.fileno(), b"x" * sparse.LEAST, start * sparse.LEAST)
        parts = sparse.parts_of(file.fileno(), 18 * sparse.LEAST)
        assert [(a // sparse.LEAST, b // sparse.LEAST) for a, b in parts] == [(0, 1), (2, 3), (9, 3), (15, 3)]
        file.truncate(5 * sparse.LEAST)
        parts = sparse.parts_of(file.fileno(), 5 * sparse.LEAST)
        assert parts == [(start * sparse.LEAST, sparse.LEAST) for start in starts[:3]]


@pytest.mark.parametrize("whose", ["root", PLAIN, SINGLE])
def test_out_again_as_it_was(layerrun, packed, folder, user_folder, whose):
    user = None if whose == "root" else ensure(whose)
    top = folder if user is None else user_folder(user)
    with open(f"{top}/in.tar", "wb") as file:
        file.write(packed)
    os.chmod(f"{top}/in.tar", 0o644)
    layerrun("base", "import", "b", f"{top}/in.tar", user=user, check=0)
    layerrun("base", "export", "b", f"{top}/out.tar", user=user, check=0)
    out = pathlib.Path(f"{top}/out.tar").read_bytes()
    assert entries(out) == entries(packed)
    # The same bytes again, and from what is imported of them; GNU tar takes them.
    layerrun("base", "import", "c", f"{top}/out.tar", user=user, check=0)
    for name in ("b", "c"):
        assert layerrun("base", "export", name, "-", user=user, check=0, text=False).out == out
    digests = {
        base["digest"] for base in json.loads(layerrun("base", "list", "--json", user=user).out)["bases"]
    }
    assert len(digests - {None}) == 1
    os.mkdir(f"{folder}/again")
    words = ["tar", "-x", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-p", "-f", f"{top}/out.tar"]
    subprocess.run(words, cwd=f"{folder}/again", check=True)
    again = tar("-c", "--format=posix", "--xattrs", "--xattrs-include=*", ".", cwd=f"{folder}/again")
    assert entries(again) == entries(packed)


@pytest.mark.parametrize("ending", ["gz", "xz", "bz2", "zst"])
def test_compressed_as_its_name_says(layerrun, packed, folder, ending):
    layerrun("base", "import", "b", "-", input=packed, text=False, check=0)
    layerrun("base", "export", "b", f"{folder}/o.tar.{ending}", check=0)
    plain = layerrun("base", "export", "b", "-", check=0, text=False).out
    tool = {"gz": "gzip", "xz": "xz", "bz2": "bzip2", "zst": "zstd"}[ending]
    got = subprocess.run([tool, "-dc", f"{folder}/o.tar.{ending}"], check=True, capture_output=True).stdout
    assert got == plain
    assert os.listdir(folder).count(f"o.tar.{ending}") == 1


def test_what_is_refused(layerrun, packed, folder):
    layerrun("base", "import", "b", "-", input=packed, text=False, check=0)
    path = f"{folder}/o.tar"
    assert "no kind of archive" in layerrun("base", "export", "b", f"{folder}/o.zip", check=2).err
    assert "host" in layerrun("base", "export", "host", path, check=2).err
    layerrun("base", "export", "nobody", path, check=6)
    with open(path, "w") as file:
        file.write("mine")
    assert "there already" in layerrun("base", "export", "b", path, check=2).err
    assert pathlib.Path(path).read_text() == "mine"
    made = json.loads(layerrun("base", "export", "-f", "--json", "b", path, check=0).out)
    assert made["bytes"] == os.path.getsize(path)
    # What was altered does not leave the store.
    os.unlink(path)
    (found,) = os.listdir(f"{layerrun.store()}/bases")
    altered = f"{layerrun.store()}/bases/{found}/tree/usr/7"
    with open(altered, "r+b") as file:  # whose content nobody knows beforehand
        first = file.read(1)
        file.seek(0)
        file.write(bytes([first[0] ^ 1]))
    assert "usr/7" in layerrun("base", "export", "b", path, check=1).err
    os.unlink(altered)
    assert "usr/7" in layerrun("base", "export", "b", path, check=1).err
    assert [name for name in os.listdir(folder) if name.startswith("o.tar")] == []


def test_killed_it_leaves_nothing(layerrun, packed, folder):
    layerrun("base", "import", "b", "-", input=packed, text=False, check=0)
    os.mkdir(f"{folder}/out")
    argv = layerrun.argv("base", "export", "b", f"{folder}/out/o.tar.xz")
    with subprocess.Popen(
        argv, env=layerrun.env(), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        wait_for(lambda: any("(deleted)" in name and "/out/" in name for name in open_files(process.pid)))
        process.kill()
        process.wait()
    assert os.listdir(f"{folder}/out") == []


def open_files(pid):
    """Where the descriptors of a process lead."""
    found = []
    with contextlib.suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return found


def test_a_bar_on_a_terminal(layerrun, packed, folder):
    """With the share that was read, entries, bytes and rate; nothing of it where there is no terminal."""
    with open(f"{folder}/in.tar.xz", "wb") as file:
        file.write(subprocess.run(["xz", "-0"], input=packed, check=True, capture_output=True).stdout)
    code = (
        "import sys\n"
        "from layerrun.cli import progress\n"
        "progress.PATIENCE = 0.0\n"
        "from layerrun.cli.main import main\n"
        "sys.exit(main(['base', 'import', 'b', sys.argv[1]]))"
    )
    words = shlex.join([sys.executable, "-c", code, f"{folder}/in.tar.xz"])
    env = layerrun.env() | {"TERM": "xterm", "COLUMNS": "120"}
    shown = subprocess.run(
        ["script", "-qec", words, "/dev/null"], env=env, capture_output=True, check=True
    ).stdout
    assert b"importing b" in shown
    assert re.search(rb"100%, .* entries, .* MiB, .*iB/s", shown), shown
    assert layerrun("base", "import", "c", f"{folder}/in.tar.xz", check=0).err.count("\n") == 1
