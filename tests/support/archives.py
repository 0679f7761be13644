"""Reading archives in the jail, and taking the stream apart."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import struct
import subprocess
import threading
from types import SimpleNamespace

import attrs

from layerrun.errors import ArchiveError
from layerrun.images.plain import Parser
from layerrun.images.platform import machine
from layerrun.images.stream import Feed, Record
from layerrun.images.tar import Limits, Part, read_tars
from layerrun.model import IdMode

HEAD = struct.Struct("<B3x5IqIIIIQQ")
CHUNK = struct.Struct("<QI")
NOBODYS = ((0, 1878917120, 65536),)


@attrs.frozen
class Got:
    """A record with its content: (offset, bytes) of each chunk."""

    record: Record
    chunks: tuple[tuple[int, bytes], ...] = ()

    @property
    def content(self):
        """The whole content, holes filled with zeros."""
        data = bytearray(self.record.size)
        for offset, piece in self.chunks:
            data[offset : offset + len(piece)] = piece
        return bytes(data)


def records(data, archive=None):
    """Take a stream apart, and see to it that it is as csrc/stream.h says; ``archive``: where contents may lie."""
    file, found = io.BytesIO(data), []
    while head := file.read(HEAD.size):
        kind, mode, uid, gid, major, minor, seconds, ns, path, link, xattrs, size, at = HEAD.unpack(head)
        name, target, more = file.read(path), file.read(link), file.read(xattrs)
        attributes = {}
        while more:
            key, value = struct.unpack_from("<HI", more)
            attributes[more[6 : 6 + key]] = more[6 + key : 6 + key + value]
            more = more[6 + key + value :]
        record = Record(
            chr(kind), name, mode, uid, gid, seconds * 10**9 + ns, target, attributes, size, major, minor
        )
        chunks, end = [], 0
        if at:
            assert archive is not None
            assert (record.kind, size > 0) == ("f", True)
            assert at - 1 + size <= len(archive)
            chunks.append((0, archive[at - 1 : at - 1 + size]))
        while record.kind == "f" and not at:
            offset, length = CHUNK.unpack(file.read(CHUNK.size))
            assert offset >= end
            end = offset + length
            assert end <= size
            if not length:
                break
            chunks.append((offset, file.read(length)))
        assert len(name) == path
        assert not {b"", b".", b".."} & set(name.split(b"/")) or not name
        found.append(Got(record, tuple(chunks)))
    return found


def read(fd, *, limits=None, layer=False, hashed=False, name=None):
    """Read an archive as root does; return what was found and its records."""
    reader, writer = os.pipe()
    got = []

    def collect():
        with os.fdopen(reader, "rb") as file:
            got.append(file.read())

    thread = threading.Thread(target=collect)
    thread.start()
    try:
        feed = Feed(writer, IdMode.RANGE, NOBODYS, NOBODYS, mapped=True)
        found = read_tars([Part(fd, name)], feed, limits or Limits(), layer=layer, hashed=hashed)
    finally:
        os.close(writer)
        thread.join()
    return found, records(got[0])


def read_bytes(data, **options):
    """Read an archive that is in memory."""
    with open(os.memfd_create("archive"), "w+b") as file:
        file.write(data)
        file.seek(0)
        return read(file.fileno(), **options)


def parse_bytes(data, *, limits=None, layer=False):
    """As `read_bytes` of a plain archive, but in this process, where the jail need not start first.

    Contents come in chunks and, once more, are told by their places: the entries are the same, and so is an error.
    """
    direct = _parsed(data, limits, layer=layer, direct=True)
    chunks = _parsed(data, limits, layer=layer, direct=False)
    if isinstance(chunks, ArchiveError):
        assert str(direct) == str(chunks)
        raise chunks
    assert [(one.record, one.content) for one in direct[1]] == [
        (one.record, one.content) for one in chunks[1]
    ]
    assert direct[0] == chunks[0]
    return chunks


def _parsed(data, limits, *, layer, direct):
    parser = Parser(attrs.asdict(limits or Limits()), layer=layer, direct=direct)
    with open(os.memfd_create("archive"), "w+b") as file, open(os.memfd_create("records"), "w+b") as out:
        file.write(data)
        file.seek(0)
        try:
            parser.parse(file.fileno(), out.fileno())
        except ArchiveError as error:
            return error
        out.seek(0)
        return SimpleNamespace(**parser.found()), records(out.read(), data)


def tar(*words, cwd):
    """Make an archive with GNU tar; return its bytes."""
    return subprocess.run(["tar", *words], cwd=cwd, check=True, capture_output=True).stdout


def header(name=b"x", kind=b"0", *, size=0, uid=b"0000000", link=b"", magic=b"ustar\x0000", rest=b"", **raw):
    """Return a header as no tar writes it; ``raw`` are bytes at offsets (``at345=b"..."``)."""
    head = bytearray(512)

    def put(at, data):
        head[at : at + len(data)] = data

    put(0, name[:100])
    put(100, b"0000644")
    put(108, uid)
    put(116, b"0000000")
    put(124, size if isinstance(size, bytes) else b"%011o" % size)
    put(136, b"00000000000")
    put(156, kind)
    put(157, link[:100])
    put(257, magic)
    put(345, rest)
    for key, data in raw.items():
        put(int(key[2:]), data)
    put(148, b" " * 8)
    put(148, b"%06o\0 " % sum(head))
    return bytes(head)


def padded(data):
    """Fill the last block."""
    return data + bytes(-len(data) % 512)


def pax(*pairs, kind=b"x"):
    """Return a pax header with these pairs of key and value."""
    data = b""
    for key, value in pairs:
        rest = len(key) + len(value) + 3
        length = rest + len(str(rest))
        length = rest + len(str(length))
        data += b"%d %s=%s\n" % (length, key, value)
    return header(b"pax", kind, size=len(data)) + padded(data)


END = bytes(1024)


def write_layout(path, layers, *, diff_ids=None, named=None, count=1):
    """Write an OCI image layout of gzipped ``layers`` (tars), the last ``count`` times; return the digests.

    ``diff_ids`` are other ones than the right ones, ``named`` another digest for the first layer than its own.
    """
    os.makedirs(f"{path}/blobs/sha256")

    def blob(data, kind):
        digest = hashlib.sha256(data).hexdigest()
        with open(f"{path}/blobs/sha256/{digest}", "wb") as file:
            file.write(data)
        media = f"application/vnd.oci.image.{kind}"
        return {"digest": f"sha256:{digest}", "size": len(data), "mediaType": media}

    layers = [*layers, *[layers[-1]] * (count - 1)]
    sums = [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in layers]  # of each, unpacked
    settings = {"os": "linux", "architecture": machine().architecture}
    settings["rootfs"] = {"type": "layers", "diff_ids": diff_ids or sums}
    first = {data: blob(gzip.compress(data, 1, mtime=0), "layer.v1.tar+gzip") for data in set(layers)}
    found = [dict(first[data]) for data in layers]
    if named:
        found[0]["digest"] = named
    config = blob(json.dumps(settings).encode(), "config.v1+json")
    manifest = {"schemaVersion": 2, "config": config, "layers": found}
    top = blob(json.dumps(manifest).encode(), "manifest.v1+json")
    with open(f"{path}/index.json", "w") as file:
        json.dump({"schemaVersion": 2, "manifests": [top]}, file)
    with open(f"{path}/oci-layout", "w") as file:
        file.write('{"imageLayoutVersion": "1.0.0"}')
    return [one["digest"] for one in (*found, config, top)]
