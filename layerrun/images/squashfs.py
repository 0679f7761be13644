"""Reading squashfs 4.0; see the kernel's Documentation/filesystems/squashfs.rst and fs/squashfs/squashfs_fs.h.

It runs in the jail: what is read is hostile. Compression by all that mksquashfs knows.
"""

from __future__ import annotations

import lzma
import os
import struct
import zlib
from collections.abc import Callable, Iterator

from layerrun.errors import ArchiveError
from layerrun.images.expand import unlz4, unlzo
from layerrun.images.nodes import Node, refuse
from layerrun.images.zstandard import library

__all__ = ["Squashfs"]

# Now: in the jail there are no files to import it from.
zstd = library()

_SUPER = struct.Struct("<IIIIIHHHHHHQQQQQQQQ")
_NONE = 0xFFFFFFFF
_META = 8192
_MEMORY = 256 << 20
_KINDS = "?dflbcps"
_PREFIXES = (b"user.", b"trusted.", b"security.")
# How much is kept of what was decompressed: blocks of tables, and bytes of blocks of ends.
_CACHED, _TAILS = 512, 64 << 20


def _unzip(data: bytes, most: int) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, most)
    except zlib.error as error:
        refuse(f"is damaged: {error}")


def _unxz(data: bytes, most: int) -> bytes:
    try:
        return lzma.LZMADecompressor(memlimit=_MEMORY).decompress(data, most)
    except lzma.LZMAError as error:
        refuse(f"is damaged: {error}")


def _unzstd(data: bytes, most: int) -> bytes:
    options = {zstd.DecompressionParameter.window_log_max: 27}
    try:
        made: bytes = zstd.ZstdDecompressor(options=options).decompress(data, most)
    except zstd.ZstdError as error:
        refuse(f"is damaged: {error}")
    return made


# In the order of the kernel's list: gzip, lzma, lzo, xz, lz4, zstd.
_METHODS: dict[int, Callable[[bytes, int], bytes]] = {
    1: _unzip,
    2: _unxz,
    3: unlzo,
    4: _unxz,
    5: unlz4,
    6: _unzstd,
}


class Squashfs:
    """An image in a file; see `layerrun.images.nodes.Reader`."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        values = _SUPER.unpack(self._read(0, _SUPER.size))
        self._block, method, self._ids = values[3], values[5], values[8]
        if values[9] != 4:
            refuse(f"is squashfs {values[9]}.{values[10]}, and 4.0 is known")
        if method not in _METHODS:
            raise ArchiveError(
                f"the image is compressed in a way of the number {method}, which is not known here",
                hint="unpack it by unsquashfs, and import the folder",
            )
        if not 4096 <= self._block <= 1 << 20:
            refuse("has blocks of a strange size")
        self._expand = _METHODS[method]
        self._root, self._id_table, self._xattr_table = values[11], values[13], values[14]
        self._inodes, self._folders, self._fragments = values[15], values[16], values[17]
        self._known: dict[int, tuple[bytes, int]] = {}
        self._tails: dict[int, bytes] = {}

    def root(self) -> Node:
        """Return the root folder."""
        return self._node(self._root)

    def entries(self, folder: Node) -> Iterator[tuple[bytes, Node]]:
        """Yield what is in a folder."""
        block, offset, size = folder.inner
        data = self._meta(self._folders + block, offset, size - 3)[0] if size > 3 else b""
        at = 0
        while at < len(data):
            count, start, _ = struct.unpack_from("<III", data, at)
            at += 12
            if count >= 256:
                refuse("has a damaged folder")
            for _ in range(count + 1):
                place, _, _, length = struct.unpack_from("<HhHH", data, at)
                name = data[at + 8 : at + 9 + length]
                at += 9 + length
                if at > len(data):
                    refuse("has a damaged folder")
                yield name, self._node(start << 16 | place)

    def content(self, file: Node) -> Iterator[tuple[int, bytes]]:
        """Yield (offset, bytes) of a file, holes left out."""
        place, sizes, fragment, inside = file.inner
        at = 0
        for word in sizes:
            length, want = word & 0xFFFFFF, min(self._block, file.size - at)
            if length:
                data = self._read(place, length)
                if not word & 1 << 24:
                    data = self._expand(data, self._block)
                if len(data) < want:
                    refuse("has a block that is too short")
                yield at, data[:want]
                place += length
            at += want
        if fragment != _NONE and at < file.size:
            data = self._tail(fragment)[inside : inside + file.size - at]
            if len(data) < file.size - at:
                refuse("has a fragment that is too short")
            yield at, data

    def _tail(self, number: int) -> bytes:
        """Return a block that holds the ends of several files."""
        found = self._tails.pop(number, None)
        if found is None:
            (table,) = struct.unpack("<Q", self._read(self._fragments + number // 512 * 8, 8))
            start, word, _ = struct.unpack("<QII", self._meta(table, number % 512 * 16, 16)[0])
            data = self._read(start, word & 0xFFFFFF)
            found = data if word & 1 << 24 else self._expand(data, self._block)
            if len(self._tails) * self._block >= _TAILS:
                self._tails.pop(next(iter(self._tails)))
        self._tails[number] = found  # the last one that was asked for comes last
        return found

    def _read(self, at: int, size: int) -> bytes:
        if at >= 1 << 62:
            refuse("leads beyond its end")
        data = os.pread(self._fd, size, at)
        if len(data) < size:
            refuse("is cut short")
        return data

    def _meta(self, block: int, offset: int, size: int) -> tuple[bytes, int, int]:
        """Return bytes of a table whose blocks are compressed, and the block and offset behind them."""
        if size > 64 << 20:
            refuse("has a table that is too large")
        data = bytearray()
        while True:
            whole, following = self._meta_block(block)
            part = whole[offset : offset + size - len(data)]
            data += part
            offset += len(part)
            if len(data) == size:
                return bytes(data), block, offset
            if len(whole) < _META:
                refuse("has a table that ends too soon")
            block, offset = following, 0

    def _meta_block(self, at: int) -> tuple[bytes, int]:
        found = self._known.get(at)
        if found is None:
            (word,) = struct.unpack("<H", self._read(at, 2))
            data = self._read(at + 2, word & 0x7FFF)
            found = data if word & 0x8000 else self._expand(data, _META), at + 2 + (word & 0x7FFF)
            if len(self._known) >= _CACHED:
                self._known.pop(next(iter(self._known)))
            self._known[at] = found
        return found

    def _id(self, number: int) -> int:
        if number >= self._ids:
            refuse("names an owner that it does not list")
        (table,) = struct.unpack("<Q", self._read(self._id_table + number // 2048 * 8, 8))
        (value,) = struct.unpack("<I", self._meta(table, number % 2048 * 4, 4)[0])
        return int(value)

    def _node(self, reference: int) -> Node:
        block, offset = self._inodes + (reference >> 16), reference & 0xFFFF

        def take(layout: str) -> tuple[int, ...]:
            nonlocal block, offset
            data, block, offset = self._meta(block, offset, struct.calcsize(layout))
            return struct.unpack(layout, data)

        kind, mode, uid, gid, mtime, number = take("<HHHHII")
        if not 1 <= kind <= 14:
            refuse(f"has an entry of the unknown type {kind}")
        letter, long = _KINDS[(kind - 1) % 7 + 1], kind > 7
        more: dict[str, object] = {}
        xattr = _NONE
        if letter == "d":
            more, xattr = _folder(take, long=long)
        elif letter == "f":
            more, xattr = self._file(take, long=long)
        elif letter == "l":
            links, length = take("<II")
            if length > 4096:
                refuse("has a link that is too long")
            more = {"links": links, "target": bytes(take(f"<{length}B"))}
            xattr = take("<I")[0] if long else _NONE
        else:
            links, device = take("<II") if letter in "bc" else (*take("<I"), 0)
            more = {
                "links": links,
                "major": device >> 8 & 0xFFF,
                "minor": device & 0xFF | device >> 12 & 0xFFF00,
            }
            xattr = take("<I")[0] if long else _NONE
        return Node(
            kind=letter,
            number=number,
            mode=mode,
            uid=self._id(uid),
            gid=self._id(gid),
            mtime=mtime,
            xattrs={} if xattr == _NONE else self._xattrs(xattr),
            **more,  # type: ignore[arg-type]
        )

    def _file(self, take: Callable[[str], tuple[int, ...]], *, long: bool) -> tuple[dict[str, object], int]:
        if long:
            start, size, _, links, fragment, inside, xattr = take("<QQQIIII")
        else:
            start, fragment, inside, size = take("<IIII")
            links, xattr = 1, _NONE
        count = size // self._block + (fragment == _NONE and size % self._block > 0)
        if count > 1 << 24:
            refuse("has a file that is too large")
        sizes = take(f"<{count}I") if count else ()
        return {"size": size, "links": links, "inner": (start, sizes, fragment, inside)}, xattr

    def _xattrs(self, number: int) -> dict[bytes, bytes]:
        values, count, _ = struct.unpack("<QII", self._read(self._xattr_table, 16))
        if number >= count:
            refuse("names attributes that it does not list")
        (table,) = struct.unpack("<Q", self._read(self._xattr_table + 16 + number // 512 * 8, 8))
        reference, pairs, _ = struct.unpack("<QII", self._meta(table, number % 512 * 16, 16)[0])
        if pairs > 1024:
            refuse("has an entry with more than 1,024 attributes")
        block, offset = values + (reference >> 16), reference & 0xFFFF
        found = {}
        for _ in range(pairs):
            data, block, offset = self._meta(block, offset, 4)
            kind, length = struct.unpack("<HH", data)
            name, block, offset = self._meta(block, offset, length)
            data, block, offset = self._meta(block, offset, 4)
            value, block, offset = self._meta(block, offset, min(struct.unpack("<I", data)[0], 1 << 17))
            if kind & 0x100:  # it lies elsewhere, for others have the same
                (elsewhere,) = struct.unpack("<Q", value)
                data, at, inside = self._meta(values + (elsewhere >> 16), elsewhere & 0xFFFF, 4)
                value = self._meta(at, inside, min(struct.unpack("<I", data)[0], 1 << 17))[0]
            if kind & 0xFF < len(_PREFIXES):
                found[_PREFIXES[kind & 0xFF] + name] = value
        return found


def _folder(take: Callable[[str], tuple[int, ...]], *, long: bool) -> tuple[dict[str, object], int]:
    if long:
        links, size, block, _, _, offset, xattr = take("<IIIIHHI")
    else:
        block, links, size, offset, _ = take("<IIHHI")
        xattr = _NONE
    return {"links": links, "inner": (block, offset, size)}, xattr
