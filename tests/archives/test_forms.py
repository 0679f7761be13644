"""Every form in which tars write, against the tree that the archive was made of."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess

import pytest
from support.archives import read, read_bytes, tar

pytestmark = [pytest.mark.root, pytest.mark.idmap]

KINDS = {
    stat.S_IFREG: "f",
    stat.S_IFDIR: "d",
    stat.S_IFLNK: "l",
    stat.S_IFIFO: "p",
}
FORMS = {
    "gnu": "--format=gnu",
    "gnu-sparse": "--format=gnu -S",
    "oldgnu": "--format=oldgnu",
    "pax": "--format=posix",
    "pax-0.0": "--format=posix -S --sparse-version=0.0",
    "pax-0.1": "--format=posix -S --sparse-version=0.1",
    "pax-1.0": "--format=posix -S --sparse-version=1.0",
    "pax-xattrs": "--format=posix --xattrs --xattrs-include=*",
    "pax-all": "--format=posix -S --xattrs --xattrs-include=* --pax-option=globexthdr.name=x,comment=y",
}
# What only pax can carry.
ATTRIBUTES = ("pax-xattrs", "pax-all")


def compare(tree, found, form):
    """See that the records are what is in the tree."""
    by_path = {got.record.path: got for got in found if got.record.kind != "e"}
    hard = {path: got.record.link for path, got in by_path.items() if got.record.kind == "h"}
    names = {b""}
    for folder, folders, files in os.walk(os.fsencode(tree)):
        names |= {os.path.relpath(os.path.join(folder, name), os.fsencode(tree)) for name in folders + files}
    assert set(by_path) == names
    assert len(hard) == 1
    for path in names - set(hard):
        info, record = os.lstat(os.path.join(os.fsencode(tree), path)), by_path[path].record
        assert record.kind == KINDS[stat.S_IFMT(info.st_mode)]
        assert (record.uid, record.gid) == (info.st_uid, info.st_gid)
        assert record.mode == stat.S_IMODE(info.st_mode)
        exact = form.startswith("pax")
        assert record.mtime_ns == (info.st_mtime_ns if exact else info.st_mtime_ns // 10**9 * 10**9), path
        if record.kind == "l":
            assert record.link == os.readlink(os.path.join(os.fsencode(tree), path))
        if record.kind == "f":
            with open(os.path.join(os.fsencode(tree), path), "rb") as file:
                assert by_path[path].content == file.read()
    for path in (b"usr", b"usr/bin/tool"):
        want = (
            {}
            if form not in ATTRIBUTES
            else {b"usr": {b"user.mark": b"a\0b\xff=\n"}}.get(path, {b"user.x": b""})
        )
        first = hard.get(path, path)
        assert by_path[first].record.xattrs == want


@pytest.mark.parametrize("form", FORMS)
def test_gnu_tar(tree, form):
    data = tar("-c", *FORMS[form].split(), ".", cwd=tree)
    found, got = read_bytes(data)
    compare(tree, got, form)
    assert found.entries == len(got)
    holes = next(one for one in got if one.record.path == b"holes")
    # Holes stay holes whatever the form.
    assert sum(len(piece) for _, piece in holes.chunks) < 1 << 20


@pytest.mark.parametrize("form", ["pax", "gnutar"])
def test_bsdtar(tree, form):
    words = ["bsdtar", "-c", "--format", form, "--xattrs", "-f", "-", "."]
    data = subprocess.run(words, cwd=tree, check=True, capture_output=True).stdout
    compare(tree, read_bytes(data)[1], "pax-xattrs" if form != "gnutar" else "gnu")


@pytest.mark.parametrize("form", ["pax"])
def test_how_it_is_compressed(tree, form):
    """The same records from a file and from a pipe, and the digest of what was in it."""
    plain = tar("-c", *FORMS[form].split(), ".", cwd=tree)
    want = read_bytes(plain)[1]
    digest = "sha256:" + hashlib.sha256(plain).hexdigest()
    for words in (
        ["cat"],
        ["gzip", "-1"],
        ["xz", "-0"],
        ["bzip2", "-1"],
        ["zstd", "-1"],
        ["zstd", "--long=27"],
    ):
        packed = subprocess.run(words, input=plain, capture_output=True, check=True).stdout
        found, got = read_bytes(packed, hashed=True)
        assert got == want
        assert found.digests == (digest,)
        # Several streams behind each other, with zeros at the end.
        if words != ["cat"]:
            half = len(plain) // 2
            packed = b"".join(
                subprocess.run(words, input=part, capture_output=True, check=True).stdout
                for part in (plain[:half], plain[half:])
            )
            packed += bytes(512)
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as cat:
            pid = os.fork()
            if pid == 0:
                try:
                    cat.stdin.write(packed)
                    cat.stdin.close()
                finally:
                    os._exit(0)
            cat.stdin.close()
            assert read(cat.stdout.fileno())[1] == want
            os.waitpid(pid, 0)
