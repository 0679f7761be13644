"""What the tests of deltas share: the stream that a source makes, as a tree, and trees to compare it with."""

from __future__ import annotations

import hashlib
import os
import stat
import struct
import threading

import attrs

from layerrun.bases.manifest import HEADER
from layerrun.images.prefixed import patch
from layerrun.images.stream import Feed
from layerrun.model import IdMode
from layerrun.native.subids import id_maps, subids
from layerrun.store.uids import COUNT, for_helpers, taken_elsewhere
from layerrun.updates.deltafile import Frame, Head, Packed, pack_head

_HEAD = struct.Struct("<B3x5IqIIIIQ8x")
_CHUNK = struct.Struct("<QI")


def read_stream(file, objects):
    """Return the entries of a stream by path, as `scan` does; hard links share a list of their names.

    ``objects`` is the store's folder of that name.
    """
    found = {}
    while True:
        head = file.read(_HEAD.size)
        assert len(head) == _HEAD.size, "the stream was cut short"
        kind, mode, uid, gid, major, minor, seconds, ns, path, link, xattrs, size = _HEAD.unpack(head)
        kind = chr(kind)
        if kind == "e":
            assert file.read() == b""
            return found
        path, link, more = file.read(path), file.read(link), file.read(xattrs)
        assert path not in found
        assert not path or found[path.rpartition(b"/")[0]]["kind"] == "d"
        if kind == "h":
            assert found[link]["kind"] == "f"
            found[path] = found[link]
            found[path]["names"].append(path)
            continue
        entry = {
            "kind": kind,
            "mode": mode,
            "uid": uid,
            "gid": gid,
            "mtime": seconds * 10**9 + ns,
            "names": [path],
        }
        entry["xattrs"] = _xattrs(more)
        if kind == "l":
            entry["link"] = link
        if kind in "cb":
            entry["device"] = (major, minor)
        if kind == "f":
            entry["content"] = _content(file, size)
        if kind == "k":
            entry["kind"] = "f"
            entry["content"] = _object(objects, link.decode(), entry)
            assert size == len(entry["content"])
        found[path] = entry


def _object(objects, name, entry):
    """Return the content of an object, which must be as the record says."""
    path = f"{objects}/{name[:2]}/{name[2:]}"
    status = os.lstat(path)
    assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (entry["mode"], entry["mtime"])
    with open(path, "rb") as file:
        return file.read()


def _content(file, size):
    data = bytearray()
    while True:
        offset, length = _CHUNK.unpack(file.read(_CHUNK.size))
        if not length:
            assert offset == size
            return bytes(data.ljust(size, b"\0"))
        assert offset >= len(data)
        data.extend(bytes(offset - len(data)) + file.read(length))


def _xattrs(data):
    found, at = {}, 0
    while at < len(data):
        key, value = struct.unpack_from("<HI", data, at)
        at += 6
        found[data[at : at + key]] = data[at + key : at + key + value]
        at += key + value
    return found


def scan(root):
    """Return what is in a folder, as `read_stream` does."""
    root = os.fsencode(root)
    found, linked = {}, {}
    todo = [b""]
    while todo:
        path = todo.pop()
        full = os.path.join(root, path) if path else root
        status = os.lstat(full)
        kind = _kind(status.st_mode)
        if kind == "f" and (status.st_dev, status.st_ino) in linked:
            found[path] = linked[status.st_dev, status.st_ino]
            found[path]["names"].append(path)
            found[path]["names"].sort()
            continue
        entry = {
            "kind": kind,
            "mode": stat.S_IMODE(status.st_mode) if kind != "l" else 0o777,
            "uid": status.st_uid,
            "gid": status.st_gid,
            "mtime": status.st_mtime_ns,
            "names": [path],
            "xattrs": {
                os.fsencode(key): os.getxattr(full, key, follow_symlinks=False)
                for key in os.listxattr(full, follow_symlinks=False)
            },
        }
        if kind == "l":
            entry["link"] = os.readlink(full)
        if kind in "cb":
            entry["device"] = (os.major(status.st_rdev), os.minor(status.st_rdev))
        if kind == "f":
            with open(full, "rb") as file:
                entry["content"] = file.read()
            linked[status.st_dev, status.st_ino] = entry
        if kind == "d":
            todo.extend(os.path.join(path, name) for name in os.listdir(full))
        found[path] = entry
    return found


def _kind(mode):
    kinds = {stat.S_IFREG: "f", stat.S_IFDIR: "d", stat.S_IFLNK: "l", stat.S_IFIFO: "p", stat.S_IFCHR: "c"}
    return kinds.get(stat.S_IFMT(mode), "b")


def feed(store, source, **limits):
    """Let a source make its stream; return it as `read_stream` does."""
    reader, writer = os.pipe()
    ids = source.ids(rootless=store.rootless)
    found = []

    def read():
        with os.fdopen(reader, "rb") as file:
            try:
                found.append(read_stream(file, f"{store.path}/objects"))
            except AssertionError as error:
                found.append(error)
            while file.read(1 << 16):
                pass

    thread = threading.Thread(target=read)
    thread.start()
    try:
        source.feed(attrs.evolve(_feed(store, ids, writer), **limits))
    finally:
        os.close(writer)
        thread.join()
    if isinstance(found[0], AssertionError):
        raise found[0]
    return found[0]


def _feed(store, ids, out):
    if ids is IdMode.RANGE:
        lines = ((0, for_helpers(store.catalog.uid_starts(), taken_elsewhere()), COUNT),)
        return Feed(out, ids, lines, lines, mapped=True)
    have = subids() if ids is IdMode.SUBIDS else None
    uids, gids = id_maps(have) if have else ([(0, os.geteuid(), 1)], [(0, os.getegid(), 1)])
    return Feed(out, ids, tuple(map(tuple, uids)), tuple(map(tuple, gids)), mapped=False)


def manifest(*lines):
    """Return a manifest with these lines below its root."""
    return HEADER + b"".join(line + b"\n" for line in (b"d 0755 0 0 - .", *lines))


def manifest_of(store, base):
    with open(f"{store.path}/bases/{base.id}/manifest", "rb") as file:
        return file.read()


def build(path, before, after, *, extras=None, index=b"", patches=b"", fresh=b"", **changes):
    """Write a delta of manifests as bytes, from the parts that are given.

    ``changes`` are of the head; the sum is right.
    """
    extras = b"=\n" * (after.count(b"\n") - 1) if extras is None else extras
    frame = patch(after, before[:1000], 1)
    given = changes.pop("listing_frame", frame)
    raw = changes.pop("fresh_packed", None)
    packed = {"extras": patch(extras, b"", 1), "index": patch(index, b"", 1)}
    packed["fresh"] = patch(fresh, b"", 1) if raw is None else raw
    head = Head(
        **{
            "old": "sha256:" + hashlib.sha256(before).hexdigest(),
            "new": "sha256:" + hashlib.sha256(after).hexdigest(),
            "entries": 1,
            "size": 1,
            "listing": (Frame(len(given), len(after), 0, min(len(before), 1000)),),
            "extras": Packed("zstd", len(packed["extras"]), len(extras)),
            "index": Packed("zstd", len(packed["index"]), len(index)),
            "patches": len(patches),
            "fresh": Packed("zstd", len(packed["fresh"]), len(fresh)),
            "origin": {},
        }
        | changes
    )
    parts = [pack_head(head), given, packed["extras"], packed["index"], patches, packed["fresh"]]
    seal(path, b"".join(parts))


def seal(path, data):
    """Write a delta with its sum behind it."""
    with open(path, "wb") as file:
        file.write(data + hashlib.sha256(data).digest())
