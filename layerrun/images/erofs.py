"""Reading erofs, plain or compressed by LZ4; see the kernel's erofs.rst and fs/erofs/erofs_fs.h.

It runs in the jail: what is read is hostile.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator

import attrs

from layerrun.errors import ArchiveError
from layerrun.images.clusters import FULL, PACKED, runs_of
from layerrun.images.expand import unlz4
from layerrun.images.nodes import Node, refuse

__all__ = ["Erofs"]

_AT, _MAGIC = 1024, 0xE0F5E1E2
_PLAIN, _INLINE, _CHUNKS = 0, 2, 4
_KINDS = {
    stat.S_IFDIR: "d",
    stat.S_IFREG: "f",
    stat.S_IFLNK: "l",
    stat.S_IFBLK: "b",
    stat.S_IFCHR: "c",
    stat.S_IFIFO: "p",
    stat.S_IFSOCK: "s",
}
_PREFIXES = {1: b"user.", 4: b"trusted.", 6: b"security."}
_CHUNK = 1 << 20
_HOLE, _MOST_CHUNKS, _MOST_BITS = 0xFFFFFFFF, 1 << 22, 43


class Erofs:
    """An image in a file; see `layerrun.images.nodes.Reader`."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        magic, _, _, bits, _, self._root = struct.unpack("<IIIBBH", self._read(_AT, 16))
        if magic != _MAGIC or not 9 <= bits <= 16:
            refuse("is no erofs")
        self._block = 1 << bits
        self._bits = bits
        self._meta, self._shared = struct.unpack("<II", self._read(_AT + 40, 8))
        # Whether zeros stand before compressed data, so that it ends with its block.
        self._ends = bool(struct.unpack("<I", self._read(_AT + 80, 4))[0] & 1)

    def root(self) -> Node:
        """Return the root folder."""
        return self._node(self._root)

    def entries(self, folder: Node) -> Iterator[tuple[bytes, Node]]:
        """Yield what is in a folder."""
        if folder.size > 256 << 20:
            refuse("has a folder that is too large")
        data = b"".join(part for _, part in self.content(folder))
        for start in range(0, len(data), self._block):
            block = data[start : start + self._block]
            (first,) = struct.unpack_from("<H", block, 8)
            heads = [struct.unpack_from("<QHBB", block, 12 * i) for i in range(first // 12)]
            ends = [head[1] for head in heads[1:]] + [len(block)]
            for (number, offset, _, _), end in zip(heads, ends, strict=True):
                name = block[offset:end].partition(b"\0")[0]
                if name not in (b".", b".."):
                    yield name, self._node(number)

    def content(self, file: Node) -> Iterator[tuple[int, bytes]]:
        """Yield (offset, bytes) of a file."""
        start, tail, layout = file.inner
        if layout in (FULL, PACKED):
            yield from self._compressed(file, tail, layout)
            return
        if layout == _CHUNKS:
            yield from self._chunks(file, start, tail)
            return
        whole = file.size if tail is None else file.size // self._block * self._block
        for at in range(0, whole, _CHUNK):
            yield at, self._read(start * self._block + at, min(_CHUNK, whole - at))
        if whole < file.size:
            yield whole, self._read(tail, file.size - whole)

    def _compressed(self, file: Node, behind: int, layout: int) -> Iterator[tuple[int, bytes]]:
        for run in runs_of(self._read, behind, layout, file.size, self._bits):
            data, size = self._read(run.place, run.length), run.end - run.start
            if run.plain:
                inside = run.start % self._block if run.turned else 0
                data = (data[inside:] + data[:inside])[:size]
            else:
                data = unlz4(data.lstrip(b"\0") if self._ends else data, size, part=True)
            if len(data) < size:
                refuse("has a run that is too short")
            yield run.start, data

    def _chunks(self, file: Node, form: int, behind: int) -> Iterator[tuple[int, bytes]]:
        """Yield the content of a file that is made of chunks of one size, each somewhere or a hole."""
        bits, wide = self._bits + (form & 31), form >> 5 & 1
        count = (file.size + (1 << bits) - 1) >> bits
        if form >> 6 or count > _MOST_CHUNKS or bits > _MOST_BITS:
            refuse("has chunks of an unknown form")
        width = 8 if wide else 4
        table = self._read((behind + width - 1) & -width, count * width)
        for number, words in enumerate(struct.iter_unpack("<HHI" if wide else "<I", table)):
            if words[-1] == _HOLE:
                continue
            if wide and words[1]:
                refuse("has its data in another file")
            first, end = number << bits, min(number + 1 << bits, file.size)
            for at in range(first, end, _CHUNK):
                yield at, self._read((words[-1] << self._bits) + at - first, min(_CHUNK, end - at))

    def _read(self, at: int, size: int) -> bytes:
        if not 0 <= at < 1 << 62:
            refuse("leads beyond its end")
        data = os.pread(self._fd, size, at)
        if len(data) < size:
            refuse("is cut short")
        return data

    def _node(self, number: int) -> Node:
        at = self._meta * self._block + number * 32
        form, icount, mode = struct.unpack("<HHH", self._read(at, 6))
        if form & 1:
            size, where, _, uid, gid, mtime, _, links = struct.unpack("<QIIIIQII", self._read(at + 8, 40))
            behind = at + 64
        else:
            links, size, _, where, _, uid, gid = struct.unpack("<HIIIIHH", self._read(at + 6, 22))
            mtime, behind = 0, at + 32
        kind = _KINDS.get(stat.S_IFMT(mode))
        if kind is None:
            refuse("has an entry of an unknown type")
        xattrs, behind = self._xattrs(behind, icount)
        layout = form >> 1 & 7
        known = (_PLAIN, _INLINE, _CHUNKS, FULL, PACKED) if kind == "f" else (_PLAIN, _INLINE)
        if kind in "dfl" and layout not in known:
            raise ArchiveError(
                "the image has its data in a way that only the kernel can read",
                hint="unpack it by fsck.erofs --extract, and import the folder",
            )
        node = Node(
            kind=kind,
            number=number,
            mode=mode,
            uid=uid,
            gid=gid,
            mtime=mtime,
            size=size if kind in "dfl" else 0,
            links=links,
            major=where >> 8 & 0xFFF if kind in "bc" else 0,
            minor=where & 0xFF | where >> 12 & 0xFFF00 if kind in "bc" else 0,
            xattrs=xattrs,
            inner=(where, None if layout == _PLAIN else behind, layout),
        )
        return self._link(node) if kind == "l" else node

    def _link(self, node: Node) -> Node:
        if node.size > 4096:
            refuse("has a link that is too long")
        return attrs.evolve(node, target=b"".join(part for _, part in self.content(node)))

    def _xattrs(self, at: int, icount: int) -> tuple[dict[bytes, bytes], int]:
        """Return the attributes that begin at a place, and what lies behind them."""
        if not icount:
            return {}, at
        end = at + 12 + (icount - 1) * 4
        shared = self._read(at + 4, 1)[0]
        found: dict[bytes, bytes] = {}
        for number in struct.unpack(f"<{shared}I", self._read(at + 12, 4 * shared)):
            self._xattr(self._shared * self._block + number * 4, found)
        place = at + 12 + 4 * shared
        while place + 4 <= end:
            place = self._xattr(place, found)
        return found, end

    def _xattr(self, at: int, found: dict[bytes, bytes]) -> int:
        length, prefix, size = struct.unpack("<BBH", self._read(at, 4))
        data = self._read(at + 4, length + size)
        if prefix in _PREFIXES:
            found[_PREFIXES[prefix] + data[:length]] = data[length:]
        return at + (4 + int(length) + int(size) + 3) // 4 * 4
