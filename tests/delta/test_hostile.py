"""What a delta says is not believed: it is refused as a whole, and nothing of it is kept."""

import hashlib
import json
import lzma
import os
import random

import pytest
from support.deltas import build, manifest, manifest_of, seal
from support.stores import check_whole

from layerrun.bases import sources, versions
from layerrun.bases.intake import import_base
from layerrun.errors import ArchiveError, DamagedError
from layerrun.images.prefixed import patch
from layerrun.store.store import Store
from layerrun.updates import listing
from layerrun.updates.delta import check, make_delta
from layerrun.updates.deltafile import BLOCK, MAGIC, WINDOW
from layerrun.updates.patching import delta_source

CONTENT = random.Random(6).randbytes(200)
HELLO = hashlib.sha256(b"hello").hexdigest().encode()
EMPTY = hashlib.sha256(b"").hexdigest().encode()
OLD = hashlib.sha256(CONTENT).hexdigest().encode()
USR = b"d 0755 0 0 - usr"


@pytest.fixture
def store(store_path):
    with Store.open(store_path) as opened:
        yield opened


@pytest.fixture
def old(store, folder):
    """A base with the folder usr, with the file usr/old in it."""
    os.makedirs(f"{folder}/root/usr")
    with open(f"{folder}/root/usr/old", "wb") as file:
        file.write(CONTENT)
    return sources.bring(store, "old", f"{folder}/root")


def apply(store, path, name="new", **limits):
    source = delta_source(store, path)
    try:
        return import_base(store, name, source, **limits)
    finally:
        source.close()


def refused(store, path, what, error=ArchiveError, **limits):
    with pytest.raises(error, match=what):
        apply(store, path, **limits)
    assert [base.name for base in store.catalog.bases()] == ["old"]
    assert os.listdir(f"{store.path}/staging") == []


LISTINGS = {
    "a name that leads out": (b"f 0644 0 0 %b ../x" % EMPTY, "at a place where it cannot be"),
    "dots in the middle": (USR + b"\nd 0755 0 0 - usr/..\nf 0644 0 0 %b usr/../x" % EMPTY, "leads elsewhere"),
    "an absolute name": (b"f 0644 0 0 %b /x" % EMPTY, "leads elsewhere"),
    "an empty part": (USR + b"\nf 0644 0 0 %b usr//x" % EMPTY, "at a place where it cannot be"),
    "a long name": (b"d 0755 0 0 - " + b"x" * 256, "leads elsewhere"),
    "a NUL": (rb"d 0755 0 0 - a\x00b", "is out of bounds"),
    "behind a link": (b"l 0777 0 0 /etc usr\nf 0644 0 0 %b usr/x" % EMPTY, "at a place where it cannot be"),
    "behind a file": (b"f 0644 0 0 %b usr\nf 0644 0 0 %b usr/x" % (EMPTY, EMPTY), "where it cannot be"),
    "twice": (USR + b"\n" + USR, "at a place where it cannot be"),
    "the root twice": (b"d 0755 0 0 - .", "at a place where it cannot be"),
    "not in order": (USR + b"\nd 0755 0 0 - bin", "at a place where it cannot be"),
    "an unknown kind": (b"w 0755 0 0 - usr", "malformed line"),
    "no value": (b"d 0755 0 0 usr", "malformed line"),
    "a strange mode": (b"d 77777 0 0 - usr", "is out of bounds"),
    "a strange owner": (b"d 0755 65536 0 - usr", "is out of bounds"),
    "a device": (USR + b"\nc 0600 0 0 1:3 usr/null", "is a device node"),
    "a whiteout": (b"d 0755 0 0 - dev\nc 0600 0 0 0:0 dev/x", "is a device node"),
    "no digest": (b"f 0644 0 0 abc x", "a value that makes no sense"),
    "a folder with a value": (b"d 0755 0 0 x usr", "a value that makes no sense"),
    "overlayfs's attributes": (USR + b" user.overlay.opaque=y", "an attribute that deltas do not bring"),
    "the kernel's": (USR + b" trusted.overlay.redirect=/etc", "an attribute that deltas do not bring"),
    "rights in a namespace": (
        b"f 0755 0 0 %b x security.capability=%b" % (EMPTY, rb"\x01\x00\x00\x03" + b"x" * 20),
        "an attribute that deltas do not bring",
    ),
}


@pytest.mark.parametrize("what", LISTINGS)
def test_listings_are_not_believed(what):
    lines, why = LISTINGS[what]
    with pytest.raises(ArchiveError, match=why):
        list(listing.entries(manifest(lines), 100))


def test_nothing_comes_of_a_listing_that_leads_out(store, old, folder):
    lines, why = LISTINGS["dots in the middle"]
    build(f"{folder}/delta", manifest_of(store, old), manifest(lines))
    refused(store, f"{folder}/delta", why)


def test_listings_of_another_kind(store, old, folder):
    for new in (b"layerrun-manifest 2\nd 0755 0 0 - .\n", b"", b"layerrun-manifest 1\n", manifest(USR)[:-1]):
        build(f"{folder}/delta", manifest_of(store, old), new)
        refused(store, f"{folder}/delta", "brings no listing|malformed line|damaged")
    build(f"{folder}/delta", manifest_of(store, old), manifest(USR), new="sha256:" + "0" * 64)
    refused(store, f"{folder}/delta", "its listing has another digest")


FILE = manifest(USR, b"f 0644 0 0 %b usr/x" % HELLO)
NEXT = CONTENT + b"!"
PATCHED = manifest(USR, b"f 0644 0 0 %b usr/x" % hashlib.sha256(NEXT).hexdigest().encode())
PATCH = patch(NEXT, CONTENT, 3)
P = b"p 201 2 200\nf %d 201 0 200\n" % len(PATCH)

CONTENTS = {
    "none": ({}, "it lacks contents"),
    "too many": ({"index": b"n 5\nn 1\n", "fresh": b"hello!"}, "contents that no file has"),
    "other content": ({"index": b"n 5\n", "fresh": b"hallo"}, "another file than it promises"),
    "of another size": ({"index": b"n 4\n", "fresh": b"hell"}, "another file than it promises"),
    "a stream that is too short": ({"index": b"n 5\n", "fresh": b"hell", "fresh_size": 5}, "ends too soon"),
    "sizes that do not add up": ({"index": b"n 6\n", "fresh": b"hello"}, "the sizes of its parts"),
    "a patch without frames": ({"index": b"p 5 2 200\n"}, "the sizes of its parts"),
    "a source that is a folder": (
        {"index": P.replace(b" 2 200", b" 1 200"), "patches": PATCH},
        "the source of a",
    ),
    "a source that is not there": (
        {"index": P.replace(b" 2 200", b" 9 200"), "patches": PATCH},
        "the source of a",
    ),
    "a source of another size": (
        {"index": P.replace(b"2 200", b"2 201"), "patches": PATCH},
        "the source of a",
    ),
    "beyond the source": ({"index": P.replace(b" 0 200", b" 1 200"), "patches": PATCH}, "beyond its source"),
    "another prefix": ({"index": P.replace(b" 0 200", b" 1 199"), "patches": PATCH}, "damaged|another file"),
    "a large frame": (
        {"index": b"p %d 2 200\nf 1 %d 0 0\n" % ((BLOCK + 1,) * 2), "patches": b"x"},
        "too large",
    ),
    "a large window": (
        {"index": b"p 5 2 200\nf %d 5 0 %d\n" % (len(PATCH), WINDOW + 1), "patches": PATCH},
        "too large",
    ),
    "a frame that makes more": (
        {
            "index": b"p 5 2 200\nf %d 5 0 0\n" % len(patch(bytes(BLOCK), b"", 3)),
            "patches": patch(bytes(BLOCK), b"", 3),
        },
        "another number of bytes",
    ),
    "no frame": ({"index": b"p 5 2 200\nf 5 5 0 0\n", "patches": b"hello"}, "damaged"),
    "words": ({"index": b"n five\n"}, "its index has a line"),
    "negative": ({"index": b"n -5\n"}, "its index has a line"),
    "no end of line": ({"index": b"n 5", "fresh": b"hello"}, "its index has no end"),
    "extras of fewer": ({"extras": b"=\n=\n"}, "does not say as much"),
    "a time that is none": ({"extras": b"=\n=\nnow\n", "index": b"n 5\n", "fresh": b"hello"}, "it says"),
    "a link to itself": (
        {"extras": b"=\n=\n@2\n", "index": b"n 5\n", "fresh": b"hello"},
        "a hard link to what",
    ),
    "a link to a later one": (
        {"extras": b"=\n=\n@9\n", "index": b"n 5\n", "fresh": b"hello"},
        "a hard link to what",
    ),
    "a link to a folder": (
        {"extras": b"=\n=\n@1\n", "index": b"n 5\n", "fresh": b"hello"},
        "a hard link to what",
    ),
    "a linked folder": (
        {"extras": b"=\n@0\n=\n", "index": b"n 5\n", "fresh": b"hello"},
        "a hard link to what",
    ),
}


@pytest.mark.parametrize("what", CONTENTS)
def test_contents_are_not_believed(store, old, folder, what):
    parts, why = CONTENTS[what]
    parts = dict(parts)
    if "fresh_size" in parts:
        packed = patch(parts["fresh"], b"", 1)
        parts["fresh"] = parts["fresh"].ljust(parts.pop("fresh_size"))
        parts["fresh_packed"] = packed
        parts["index"] = b"n %d\n" % len(parts["fresh"])
    new = PATCHED if parts.get("patches") == PATCH else FILE
    build(f"{folder}/delta", manifest_of(store, old), new, **parts)
    refused(store, f"{folder}/delta", why)


def test_what_is_right_comes_in(store, old, folder):
    """The same makers of deltas as above can make good ones: it is not for another reason that those are refused."""
    build(f"{folder}/delta", manifest_of(store, old), FILE, index=b"n 5\n", fresh=b"hello")
    build(f"{folder}/patch", manifest_of(store, old), PATCHED, index=P, patches=PATCH)
    for name, content in (("delta", b"hello"), ("patch", NEXT)):
        made = apply(store, f"{folder}/{name}", name)
        with open(f"{store.path}/bases/{made.id}/tree/usr/x", "rb") as file:
            assert file.read() == content
    check_whole(store.path)


def test_bombs_end_at_the_limits(store, old, folder):
    zeros = hashlib.sha256(bytes(1 << 20)).hexdigest().encode()
    one = manifest(USR, b"f 0644 0 0 %b usr/x" % zeros)
    build(f"{folder}/delta", manifest_of(store, old), one, index=b"n 1048576\n", fresh=bytes(1 << 20))
    refused(store, f"{folder}/delta", "makes more than 1,000 bytes", size=1000)
    names = [b"f 0644 0 0 %b usr/x%d" % (OLD, n) for n in range(10)]
    build(f"{folder}/delta", manifest_of(store, old), manifest(USR, *names))
    refused(store, f"{folder}/delta", "makes more than 100 bytes", size=100)
    refused(store, f"{folder}/delta", "brings more than 5 entries", entries=5)
    # A stream that says it makes 5 bytes, and goes on for ever.
    bomb = lzma.compress(bytes(50 << 20))
    build(
        f"{folder}/delta",
        manifest_of(store, old),
        FILE,
        index=b"n 5\n",
        fresh_packed=bomb,
    )
    refused(store, f"{folder}/delta", "the sizes of its parts")


def test_a_decoder_that_wants_much_memory_gets_none(store, old, folder):
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 1 << 30}]
    work = lzma.LZMACompressor(lzma.FORMAT_XZ, filters=[filters[0] | {"dict_size": 1 << 20}])
    packed = bytearray(work.compress(b"hello") + work.flush())
    at = packed.index(
        b"\x21\x01"
    )  # the filter's id and the length of its properties: one byte, log2 of the dictionary
    packed[at + 2] = 40  # 4 GiB; the header's checksum follows
    header = packed[12 : 12 + (packed[12] + 1) * 4 - 4]
    packed[12 + len(header) : 16 + len(header)] = _crc32(header)
    build(
        f"{folder}/delta",
        manifest_of(store, old),
        FILE,
        index=b"n 5\n",
        fresh=b"hello",
        fresh_packed=bytes(packed),
    )
    _as_xz(f"{folder}/delta")
    refused(store, f"{folder}/delta", "damaged")


def _crc32(data):
    import zlib

    return zlib.crc32(data).to_bytes(4, "little")


def _as_xz(path):
    """Say in the head that the last part is xz."""
    with open(path, "rb") as file:
        data = file.read()[:-32]
    line = data[len(MAGIC) : data.index(b"\n", len(MAGIC))]
    said = json.loads(line)
    said["fresh"][0] = "xz"
    seal(path, data.replace(line, json.dumps(said).encode(), 1))


HEADS = {
    "no numbers": {"patches": "1"},
    "fractions": {"patches": 1.5},
    "truth": {"patches": True},
    "negative": {"patches": -1},
    "endless": {"patches": 1 << 70},
    "a long listing": {"listing": [[1, BLOCK, 0, 0]] * 1000},
    "a large frame": {"listing": [[1, BLOCK + 1, 0, 0]]},
    "a codec": {"fresh": ["gzip", 0, 0]},
    "digests": {"old": "sha256:../x"},
    "an origin": {"origin": []},
    "a missing key": {"new": None},
}


@pytest.mark.parametrize("what", HEADS)
def test_heads_are_not_believed(store, old, folder, what):
    path = f"{folder}/delta"
    build(path, manifest_of(store, old), FILE)
    with open(path, "rb") as file:
        data = file.read()[:-32]
    line = data[len(MAGIC) : data.index(b"\n", len(MAGIC))]
    seal(path, data.replace(line, json.dumps(json.loads(line) | HEADS[what]).encode(), 1))
    refused(store, path, "its head makes no sense")


def test_files_that_are_none(store, old, folder):
    path = f"{folder}/delta"
    for data, why in (
        (b"", "is no delta"),
        (b"PK\3\4", "is no delta"),
        (b"layerrun-delta 2\n{}\n", "a version that this layerrun does not know"),
        (MAGIC, "its head has no end"),
        (MAGIC + b"[" * 100_000 + b"\n", "its head makes no sense"),
        (MAGIC + b"x" * (2 << 20), "its head has no end"),
    ):
        seal(path, data)
        with pytest.raises(ArchiveError, match=why):
            check(path)


def test_any_byte_that_is_another_shows(store, old, folder):
    with open(f"{folder}/root/usr/old", "ab") as file:
        file.write(b" and new")
    path = f"{folder}/delta"
    make_delta(store, old, sources.bring(store, "then", f"{folder}/root"), path, level=3)
    versions.remove(store, "then")
    with open(path, "rb") as file:
        data = bytearray(file.read())
    for at in range(0, len(data), 37):
        data[at] ^= 1
        with open(path, "wb") as file:
            file.write(data)
        with pytest.raises(ArchiveError):
            check(path)
        data[at] ^= 1
    for length in (0, 1, len(MAGIC), 100, len(data) - 1):
        with open(path, "wb") as file:
            file.write(data[:length])
        with pytest.raises(ArchiveError):
            check(path)
    with open(path, "wb") as file:
        file.write(data + b"x")
    with pytest.raises(ArchiveError, match="should be"):
        check(path)


def test_an_old_base_that_was_altered_is_told(store, old, folder):
    with open(f"{folder}/root/usr/old", "ab") as file:
        file.write(b" and new")
    os.link(f"{folder}/root/usr/old", f"{folder}/root/usr/other")
    new = sources.bring(store, "then", f"{folder}/root")
    path = f"{folder}/delta"
    make_delta(store, old, new, path, level=3)
    with open(f"{store.path}/bases/{old.id}/tree/usr/old", "r+") as file:
        file.write("OLD")
    with pytest.raises(ArchiveError, match="another file than it promises: it is damaged, or the base"):
        apply(store, path)
    with pytest.raises(DamagedError, match="is not as it was imported"):
        make_delta(store, new, old, f"{folder}/back", level=3)
    with pytest.raises(DamagedError, match="is not as it was imported"):
        make_delta(store, old, new, f"{folder}/forth", level=3)
    assert sorted(os.listdir(folder)) == ["delta", "root", "store"]
