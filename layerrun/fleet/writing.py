"""Trees and layers of the store as layers of images: a tar archive, compressed, with both of its digests."""

from __future__ import annotations

import hashlib
import io
import os
import zlib
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, Any, Protocol, cast

import attrs

from layerrun.bases.manifest import unescape
from layerrun.model import IdMode
from layerrun.native import trees
from layerrun.native.worker import run_in_userns
from layerrun.store.fs import DIR_FLAGS

if TYPE_CHECKING:
    from layerrun.images.stream import Record
    from layerrun.images.tarring import TarWriter
    from layerrun.store.store import Store

__all__ = ["GZIP", "MEDIA_TYPES", "ZSTD", "Written", "write_layer"]

GZIP, ZSTD = "gzip", "zstd"
MEDIA_TYPES = {
    GZIP: "application/vnd.oci.image.layer.v1.tar+gzip",
    ZSTD: "application/vnd.oci.image.layer.v1.tar+zstd",
}
_LEVELS = {GZIP: 6, ZSTD: 3}
_BUFFER = 1 << 20


@attrs.frozen
class Written:
    """A compressed archive: the digest of its bytes and of the archive within, and its size in bytes."""

    digest: str
    diff_id: str
    size: int


class _Compressor(Protocol):
    def compress(self, data: bytes) -> bytes: ...
    def flush(self) -> bytes: ...


def write_layer(
    store: Store, ids: IdMode | None, folder: int, out: int, *, layer: bool, compression: str = ZSTD
) -> Written:
    """Write the tree in a base's or a layer's ``folder`` as an archive to the empty file ``out``; both descriptors.

    A base that is an image of a file system is mounted for this process alone, by root, and read as a tree is.
    ``layer``: it is a layer, with overlayfs's marks. What belongs to subordinate ids is read by a process that is root
    of a namespace with them, and so has the owners that it has inside.
    """
    if not store.rootless:
        return _write(folder, out, layer=layer, compression=compression, single=False)
    own, single = ids is not IdMode.SUBIDS, ids is IdMode.SINGLE
    values = run_in_userns(
        f"{__name__}:write_here", folder, out, layer, compression, single, own=own, pass_fds=(folder, out)
    )
    return Written(*values)


def write_here(folder: int, out: int, layer: bool, compression: str, single: bool) -> list[str | int]:
    """`write_layer`, as the worker calls it."""
    return list(attrs.astuple(_write(folder, out, layer=layer, compression=compression, single=single)))


def _lines(folder: int, name: str) -> Iterator[bytes] | None:
    """Yield the lines of a file in a base's or a layer's folder, or return ``None`` if it has none."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return None
    with os.fdopen(fd, "rb") as file:
        return iter(file.read().splitlines())


def _groups(folder: int) -> dict[bytes, bytes] | None:
    """Return which path is a hard link to which; ``None`` where inodes say it (docs/store.md, objects)."""
    lines = _lines(folder, "links")
    if lines is None:
        return None
    fields = (line.split(b" ") for line in lines if line.startswith(b"h "))
    found = {unescape(path): unescape(first) for _, path, first in fields}
    for path, first in found.items():
        while first in found and found[first] != first:
            first = found[first]
        found[path] = first
    return found


def _owners(folder: int) -> dict[bytes, tuple[int, int]] | None:
    """Return whose the entries are where all on disk is the caller's: the manifest has it."""
    lines = _lines(folder, "manifest")
    if lines is None:
        return None
    next(lines)
    fields = (line.split(b" ", 6) for line in lines)
    return {unescape(parts[5]): (int(parts[2]), int(parts[3])) for parts in fields}


def _write(folder: int, out: int, *, layer: bool, compression: str, single: bool) -> Written:
    from layerrun.bases.exporting import add_base
    from layerrun.images.records import kept, records_of

    tree = _tree(folder)
    try:
        if not layer:  # by its manifest, which has what is never made on disk: device nodes, and owners
            return _archive(out, compression, lambda writer: add_base(writer, folder, tree, kept))
        records = records_of(
            tree, layer=True, groups=_groups(folder), owners=_owners(folder) if single else None
        )
        return _archive(out, compression, lambda writer: _add(writer, tree, records))
    finally:
        os.close(tree)


def _tree(folder: int) -> int:
    try:
        return os.open("tree", DIR_FLAGS, dir_fd=folder)
    except FileNotFoundError:
        from layerrun.native.volumes import open_lower_image

        return open_lower_image(folder, "image")


def _archive(out: int, compression: str, fill: Callable[[TarWriter], None]) -> Written:
    from layerrun.images.tarring import TarWriter

    with os.fdopen(os.dup(out), "wb", buffering=0) as file:
        sink = _Sink(file, _compressor(compression))
        with io.BufferedWriter(cast("io.RawIOBase", sink), _BUFFER) as buffered:
            writer = TarWriter(buffered)
            fill(writer)
            writer.close()
        return sink.written()


def _add(writer: TarWriter, tree: int, records: Iterator[Record]) -> None:
    for record in records:
        if record.kind == "f" and record.size:
            fd = trees.open_beneath(tree, record.path, os.O_RDONLY)
            with os.fdopen(fd, "rb", buffering=0) as content:
                writer.add(record, cast("IO[bytes]", content))
        else:
            writer.add(record)


class _Sink(io.RawIOBase):
    """Takes an archive in, hashes and compresses it, and hashes what comes of that."""

    def __init__(self, out: IO[bytes], compressor: _Compressor) -> None:
        self._out, self._compressor = out, compressor
        self._within, self._around = hashlib.sha256(), hashlib.sha256()
        self._size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._within.update(data)
        self._put(self._compressor.compress(bytes(data)))
        return len(data)

    def _put(self, data: bytes) -> None:
        self._around.update(data)
        self._size += len(data)
        view = memoryview(data)
        while view:
            view = view[self._out.write(view) :]

    def close(self) -> None:
        if not self.closed:
            self._put(self._compressor.flush())
        super().close()

    def written(self) -> Written:
        return Written(f"sha256:{self._around.hexdigest()}", f"sha256:{self._within.hexdigest()}", self._size)


def _compressor(compression: str) -> _Compressor:
    """Return one whose output depends on nothing but what goes in and the library's version."""
    level = _LEVELS[compression]
    if compression == GZIP:
        return cast(
            "_Compressor", zlib.compressobj(level, zlib.DEFLATED, 31)
        )  # 31: gzip, without name or time
    from layerrun.images.zstandard import compressor

    return cast("_Compressor", compressor(level))
