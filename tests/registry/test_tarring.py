"""The tar writer: what GNU tar and Python's tarfile read is what was written, and the same bytes each time."""

import io
import os
import subprocess
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerrun.errors import SystemError as LayerrunSystemError
from layerrun.images.stream import Record
from layerrun.images.tarring import TarWriter

NAMES = st.binary(min_size=1, max_size=255).filter(
    lambda n: b"/" not in n and b"\0" not in n and n not in (b".", b"..")
)
PATHS = st.lists(NAMES, min_size=1, max_size=6).map(b"/".join)
XATTRS = st.dictionaries(
    st.binary(min_size=1, max_size=40)
    .map(lambda k: b"user." + k)
    .filter(lambda k: b"=" not in k and b"\0" not in k),
    st.binary(max_size=100),
    max_size=3,
)


@st.composite
def records(draw):
    kind = draw(st.sampled_from("fdlpcb"))
    return Record(
        kind,
        draw(PATHS),
        mode=draw(st.integers(0, 0o7777)),
        uid=draw(st.sampled_from([0, 33, 65535, 8**7 - 1, 8**7, 2**31])),
        gid=draw(st.sampled_from([0, 8**7, 1000])),
        mtime_ns=draw(st.integers(-(10**19), 10**20)),
        link=draw(PATHS) if kind == "l" else b"",
        xattrs=draw(XATTRS),
        size=draw(st.integers(0, 1200)) if kind == "f" else 0,
        major=draw(st.integers(0, 4095)),
        minor=draw(st.integers(0, 2**20 - 1)),
    )


def archive(entries):
    out = io.BytesIO()
    writer = TarWriter(out)
    for record in entries:
        writer.add(record, io.BytesIO(b"c" * record.size))
    writer.close()
    return out.getvalue()


@settings(max_examples=60, deadline=None)
@given(st.lists(records(), max_size=5))
def test_python_reads_what_was_written(entries):
    data = archive(entries)
    assert data == archive(entries)
    assert len(data) % 10240 == 0
    kinds = {"f": b"0", "d": b"5", "l": b"2", "p": b"6", "c": b"3", "b": b"4"}
    with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8", errors="surrogateescape") as file:
        found = list(file)
        assert len(found) == len(entries)
        for member, record in zip(found, entries, strict=True):
            assert os.fsencode(member.name) == record.path
            assert member.type == kinds[record.kind]
            assert (member.mode, member.uid, member.gid) == (record.mode, record.uid, record.gid)
            assert (member.size, os.fsencode(member.linkname)) == (record.size, record.link)
            assert member.mtime == pytest.approx(record.mtime_ns / 10**9, abs=1)
            if record.kind in "cb":
                assert (member.devmajor, member.devminor) == (record.major, record.minor)


def test_gnu_tar_makes_the_same_tree_of_it(folder):
    out = [
        Record("d", b"", mode=0o755),
        Record(
            "f",
            b"\xff" * 200,
            mode=0o4755,
            uid=33,
            size=3,
            mtime_ns=10**18 + 7,
            xattrs={b"user.a": b"\0\n=x"},
        ),
        Record("h", b"hard", mode=0o4755, uid=33, link=b"\xff" * 200, mtime_ns=10**18 + 7),
        Record("l", b"link", mode=0o777, link=b"/t" * 90),
    ]
    with open(f"{folder}/a.tar", "wb") as file:
        file.write(archive(out))
    os.mkdir(f"{folder}/tree")
    subprocess.run(["tar", "-C", f"{folder}/tree", "--xattrs", "-xpf", f"{folder}/a.tar"], check=True)
    status = os.stat(os.fsencode(f"{folder}/tree/") + b"\xff" * 200)
    assert (status.st_mode, status.st_uid, status.st_nlink) == (0o104755, 33, 2)
    assert status.st_mtime_ns == 10**18 + 7
    assert os.getxattr(f"{folder}/tree/hard", "user.a") == b"\0\n=x"
    assert os.readlink(f"{folder}/tree/link") == "/t" * 90


def test_whiteouts_are_files_as_images_have_them():
    data = archive([Record("w", b"a/b"), Record("o", b"a"), Record("w", b"c"), Record("o", b"")])
    with tarfile.open(fileobj=io.BytesIO(data)) as file:
        names = file.getnames()
    assert names == ["a/.wh.b", "a/.wh..wh..opq", ".wh.c", ".wh..wh..opq"]


def test_a_file_that_becomes_shorter_is_an_error():
    with pytest.raises(LayerrunSystemError, match="shorter"):
        TarWriter(io.BytesIO()).add(Record("f", b"x", size=10), io.BytesIO(b"123"))
