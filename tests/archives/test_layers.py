"""Archives that are layers of images: whiteouts, and names that try to be one (check 44)."""

from __future__ import annotations

import hashlib
import os

import pytest
from support.archives import END, header, padded, parse_bytes, pax, read, read_bytes

from layerrun.errors import ArchiveError
from layerrun.images.tar import Limits

pytestmark = [pytest.mark.root, pytest.mark.idmap]


def kinds(data, **options):
    return [(got.record.kind, got.record.path) for got in parse_bytes(data, layer=True, **options)[1]]


def test_whiteouts():
    data = b"".join(
        [
            header(b"usr/", b"5"),
            header(b"usr/.wh.gone"),
            header(b"./usr/.wh..wh..opq"),
            header(b".wh..wh..opq"),
            header(b".wh..wh.aufs", size=3) + padded(b"abc"),
            header(b".wh..wh.plnk/", b"5"),
            header(b".wh..wh.plnk/1.2", size=3) + padded(b"abc"),
            header(b"usr/gone"),
            header(b"usr/.whatever"),
            header(b"/usr/absolute"),
            header(b"usr/hard", b"1", link=b"/usr/absolute"),
            END,
        ]
    )
    assert kinds(data) == [
        ("d", b"usr"),
        ("w", b"usr/gone"),
        ("o", b"usr"),
        ("o", b""),
        ("f", b"usr/gone"),
        ("f", b"usr/.whatever"),
        ("f", b"usr/absolute"),
        ("h", b"usr/hard"),
    ]
    assert parse_bytes(data, layer=True)[1][-1].record.link == b"usr/absolute"


REFUSED = {
    "of-nothing": (header(b"usr/.wh."), "no name"),
    "of-dot": (header(b".wh.."), "no name"),
    "of-dots": (header(b"usr/.wh..."), "no name"),
    "in-a-whiteout": (header(b".wh.a/b"), "whiteout's"),
    "with-content": (header(b".wh.a", size=4) + padded(b"abcd"), "with content"),
    "with-pax-content": (pax((b"size", b"4")) + header(b".wh.a") + padded(b"abcd"), "with content"),
    "overlayfs": (header(b"a", b"3"), "device node"),
    "dots": (header(b"/../x"), "leads elsewhere"),
    "hard-dots": (header(b"x", b"1", link=b"/../etc/passwd"), "leads elsewhere"),
    "of-dots-by-pax": (pax((b"path", b"usr/.wh...")) + header(b"x"), "no name"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case):
    data, said = REFUSED[case]
    with pytest.raises(ArchiveError, match=said):
        parse_bytes(data + END, layer=True)


@pytest.mark.parametrize(
    "data", [b"", END, END + bytes(9216), header(b"x")], ids=["none", "end", "padded", "no-end"]
)
def test_layers_that_end_at_once(data):
    """Docker writes empty layers so, and some builders leave the end out; a digest says whether they are whole."""
    found, got = read_bytes(data, layer=True, hashed=True)
    assert len(got) == (1 if len(data) == 512 else 0)
    assert found.digests == ("sha256:" + hashlib.sha256(data).hexdigest(),)


def test_digests_cover_what_lies_behind_the_end(folder):
    data = header(b"x") + END + os.urandom(3 << 20)
    with open(f"{folder}/a", "wb") as file:
        file.write(data)
    fd = os.open(f"{folder}/a", os.O_RDONLY)
    try:
        assert read(fd, layer=True, hashed=True)[0].digests == ("sha256:" + hashlib.sha256(data).hexdigest(),)
    finally:
        os.close(fd)


def test_a_name_comes_before_the_records():
    got = read_bytes(header(b"x") + END, layer=True, name="sha256:abc")[1]
    assert [(one.record.kind, one.record.link) for one in got] == [("n", b"sha256:abc"), ("f", b"")]


def test_limits_hold_for_skipped_content_too():
    data = header(b".wh..wh.aufs", size=2 << 20) + bytes(2 << 20) + END
    with pytest.raises(ArchiveError, match="larger"):
        parse_bytes(data, layer=True, limits=Limits(size=1 << 20))
