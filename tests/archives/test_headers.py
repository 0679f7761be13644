"""Headers by hand: what each says, and all the ways in which they can lie (checks 41 to 45)."""

from __future__ import annotations

import base64
import struct

import pytest
from support.archives import END, header, padded, parse_bytes, pax, read_bytes

from layerrun.errors import ArchiveError
from layerrun.images.tar import Limits

pytestmark = [pytest.mark.root, pytest.mark.idmap]

BIG = b"\x80" + bytes(3)


def only(data, **options):
    (got,) = parse_bytes(data + END, **options)[1]
    return got


def test_names():
    longest = b"/".join([b"n" * 250] * 4)
    assert only(header(b"name", rest=b"prefix")).record.path == b"prefix/name"
    assert only(header(b"n" * 100, magic=b"ustar  \0", rest=b"1234")).record.path == b"n" * 100
    assert only(header(b"x", b"\0", magic=bytes(8), rest=b"junk")).record.path == b"x"
    assert only(header(b"x/", b"\0", magic=bytes(8))).record.kind == "d"
    # star keeps times behind a shorter prefix.
    assert (
        only(header(b"x", rest=b"p" * 131 + b"00000000000 ", at508=b"tar\0")).record.path
        == b"p" * 131 + b"/x"
    )
    for kind, field in ((b"L", "path"), (b"K", "link")):
        data = header(b"././@LongLink", kind, size=len(longest) + 1) + padded(longest + b"\0")
        assert getattr(only(data + header(b"y", b"2", link=b"z")).record, field) == longest
    assert (
        only(pax((b"path", b"./a//b/"), (b"linkpath", b"c")) + header(b"x", b"2", link=b"y")).record.path
        == b"a/b"
    )
    # For all, for one, and taken back.
    data = pax((b"mtime", b"5"), (b"uid", b"7"), kind=b"g")
    record = only(data + pax((b"uid", b""), (b"gid", b"9")) + header(uid=b"0000003")).record
    assert (record.uid, record.gid, record.mtime_ns) == (3, 9, 5 * 10**9)


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        (b"1.5", 1_500_000_000),
        (b"1.123456789123", 1_123_456_789),
        (b"-1.5", 0),
        (b"-0.5", 0),
        (b"nan", 0),
        (b"1e9", 0),
        (b"9" * 30, (1 << 34) * 10**9),
    ],
)
def test_times(text, ns):
    assert only(pax((b"mtime", text)) + header()).record.mtime_ns == ns


def test_attributes():
    capable = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)
    rooted = struct.pack("<6I", 0x03000001, 1 << 13, 0, 0, 0, 1000)
    found, got = parse_bytes(
        pax(
            (b"LIBARCHIVE.xattr.user.a%20b", base64.b64encode(b"\0\xff").rstrip(b"=")),
            (b"SCHILY.xattr.user.both", b"star"),
            (b"LIBARCHIVE.xattr.user.both", base64.b64encode(b"other")),
            (b"SCHILY.xattr.user.twice", b"1"),
            (b"SCHILY.xattr.user.twice", b"2"),
            (b"SCHILY.xattr.user.", b"no name"),
            (b"SCHILY.xattr.user.overlay.opaque", b"y"),
            (b"LIBARCHIVE.xattr.user%2eoverlay.whiteout", b"eQ=="),
            (b"SCHILY.xattr.trusted.overlay.metacopy", b""),
            (b"SCHILY.xattr.security.capability", capable),
        )
        + header()
        + pax((b"SCHILY.xattr.security.capability", rooted))
        + header(b"y")
        + pax((b"SCHILY.xattr.user.x", b"y"))
        + header(b"z", b"2", link=b"w")
        + END
    )
    kept = {
        b"user.a b": b"\0\xff",
        b"user.both": b"star",
        b"user.twice": b"2",
        b"security.capability": capable,
    }
    assert [one.record.xattrs for one in got] == [kept, {}, {}]
    assert found.xattrs == 6


def old_sparse(*pairs, real, size, more=b""):
    parts = b"".join(b"%011o\0%011o\0" % pair for pair in pairs)
    return header(b"s", b"S", size=size, magic=b"ustar  \0", at386=parts, at483=b"%011o\0" % real, at482=more)


def sparse(*pairs):
    return pax((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), *pairs)


def test_sparse():
    got = only(old_sparse((512, 3), (1024, 2), real=2000, size=5) + padded(b"abcde"))
    assert got.content == bytes(512) + b"abc" + bytes(509) + b"de" + bytes(974)
    more = padded(b"%011o\0%011o\0" % (4096, 1))[:512]
    got = only(
        old_sparse((0, 1), (2, 1), (4, 1), (6, 1), real=5000, size=5, more=b"\1") + more + padded(b"abcde")
    )
    assert got.content == b"a\0b\0c\0d" + bytes(4089) + b"e" + bytes(903)
    data = padded(b"2\n0\n1\n1048576\n3\n") + b"abcd"
    got = only(
        sparse(
            (b"GNU.sparse.name", b"real/name"),
            (b"GNU.sparse.realsize", b"2000000"),
            (b"path", b"GNUSparse/x"),
        )
        + header(size=len(data))
        + padded(data)
    )
    assert (got.record.path, got.record.size) == (b"real/name", 2000000)
    assert got.chunks == ((0, b"a"), (1 << 20, b"bcd"))


MAP = "wrong map"
REFUSED = {
    "sum": (header()[:148] + b"000000\0 " + header()[156:], "sum is wrong"),
    "number": (header(size=b"junk"), "no size"),
    "owner": (header(uid=b"junk"), "no number"),
    "negative-size": (header(size=b"\xff" * 12), "negative"),
    "huge-size": (header(size=b"\x80" + b"\xff" * 11), "bytes of files"),
    "uid-base-256": (header(uid=BIG + b"\x80\0\0\0"), "belongs to 2147483648"),
    "uid-minus-one": (header(uid=b"\xff" * 8), "belongs to -1"),
    "uid-pax": (pax((b"uid", b"65536")) + header(), "belongs to 65536"),
    "uid-pax-all": (pax((b"gid", b"4294967296"), kind=b"g") + header(), "belongs to 0:4294967296"),
    "uid-pax-junk": (pax((b"uid", b"0x5")) + header(), "no number"),
    "pax-length": (header(kind=b"x", size=12) + padded(b"99 path=abc\n") + header(), "damaged"),
    "pax-length-0": (header(kind=b"x", size=12) + padded(b"0 path=abcd\n") + header(), "damaged"),
    "pax-no-end": (header(kind=b"x", size=11) + padded(b"11 path=abc") + header(), "damaged"),
    "pax-no-key": (header(kind=b"x", size=6) + padded(b"6 =ab\n") + header(), "damaged"),
    "pax-alone": (pax((b"path", b"x")), "too soon"),
    "name-alone": (header(kind=b"L", size=4) + padded(b"abc"), "too soon"),
    "zero-in-a-name": (pax((b"path", b"a\0b")) + header(), "leads elsewhere"),
    "dots-by-pax": (pax((b"path", b"a/../../b")) + header(), "leads elsewhere"),
    "dots-by-prefix": (header(b"x", rest=b".."), "leads elsewhere"),
    "dots-by-all": (pax((b"path", b"../x"), kind=b"g") + header(), "leads elsewhere"),
    "dots-by-sparse-name": (
        sparse((b"GNU.sparse.name", b"../x"), (b"GNU.sparse.realsize", b"0")) + header(),
        "leads elsewhere",
    ),
    "long-attribute": (pax((b"SCHILY.xattr.user." + b"k" * 300, b"")) + header(), "longer"),
    "large-attribute": (pax((b"SCHILY.xattr.user.k", b"v" * 70000)) + header(), "longer"),
    "link-with-zero": (pax((b"linkpath", b"a\0b")) + header(kind=b"2"), "nowhere"),
    "multi-volume": (header(kind=b"M"), "unknown type"),
    "long-target": (header(kind=b"K", size=5000) + padded(b"t" * 5000) + header(kind=b"2"), "nowhere"),
    "device-number": (header(b"dev/x", b"3", at329=b"7777777\0"), "number"),
    "map-backwards": (old_sparse((5, 1), (3, 1), real=9, size=2) + padded(b"ab"), MAP),
    "map-overlaps": (old_sparse((0, 3), (2, 1), real=9, size=4) + padded(b"abcd"), MAP),
    "map-beyond": (old_sparse((8, 2), real=9, size=2) + padded(b"ab"), MAP),
    "map-short": (old_sparse((0, 1), real=9, size=2) + padded(b"ab"), MAP),
    "map-huge": (old_sparse((0, 1), real=0o77777777777, size=1) + padded(b"a"), "bytes of files"),
    "map-without-size": (pax((b"GNU.sparse.map", b"0,1")) + header(size=1) + padded(b"a"), "unknown form"),
    "map-of-later": (
        pax((b"GNU.sparse.major", b"2"), (b"GNU.sparse.realsize", b"1")) + header(),
        "unknown form",
    ),
    "map-junk": (pax((b"GNU.sparse.map", b"0,x"), (b"GNU.sparse.size", b"1")) + header(), MAP),
    "map-negative": (pax((b"GNU.sparse.map", b"-1,1"), (b"GNU.sparse.size", b"1")) + header(), MAP),
    "map-half": (pax((b"GNU.sparse.numbytes", b"1"), (b"GNU.sparse.size", b"1")) + header(), "no number"),
    "map-cut": (sparse((b"GNU.sparse.realsize", b"9")) + header(size=2) + padded(b"9\n"), MAP),
    "map-endless": (
        sparse((b"GNU.sparse.realsize", b"9")) + header(size=4 << 20) + b"9999999\n" + b"0\n" * (2 << 20),
        "header of more than",
    ),
    "map-blocks-endless": (
        old_sparse(real=9, size=0, more=b"\1") + (bytes(504) + b"\1" + bytes(7)) * 3000,
        "header of more than",
    ),
    "global-endless": (pax((b"comment", b"c" * 60000), kind=b"g") * 20 + header(), "header"),
    "name-endless": (
        header(kind=b"L", size=700000) + padded(b"n" * 700000) + header(kind=b"K", size=700000),
        "header",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case):
    data, said = REFUSED[case]
    with pytest.raises(ArchiveError, match=said):
        parse_bytes(data + END, limits=Limits(size=1 << 30))


# A window of 2 GiB, and one of 128 MiB behind which nothing comes.
WINDOWS = {
    "too-large": b"\x28\xb5\x2f\xfd\0" + bytes([21 << 3]),
    "nothing": b"\x28\xb5\x2f\xfd\0" + bytes([17 << 3]),
}


@pytest.mark.parametrize("case", WINDOWS)
def test_windows_of_zstd(case):
    with pytest.raises(ArchiveError, match="damaged"):
        read_bytes(WINDOWS[case] + b"\1\0\0" * (case == "too-large"))


def test_an_archive_of_the_old_kind_of_sums():
    """Of signed bytes."""
    head = bytearray(header(b"\xe4\xf6"))
    head[148:156] = b" " * 8
    signed = sum(byte - 256 if byte > 127 else byte for byte in head)
    head[148:156] = b"%06o\0 " % signed
    assert only(bytes(head)).record.path == b"\xe4\xf6"
