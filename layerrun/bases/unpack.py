"""Unpacking a tar archive that nobody vouches for: what runs in the jail, `layerrun.native.jail`.

`tarfile` only reads headers. Everything is made beneath one descriptor, name by name, through no link (openat2(2)). An
archive with anything in it that is never right is refused as a whole, however much of it is unpacked by then: names
that lead out, links through links, device nodes outside /dev, ids that no range has, more than the limits allow.
"""

from __future__ import annotations

import bz2
import errno
import lzma
import math
import os
import stat
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import attrs

from layerrun.errors import ArchiveError
from layerrun.native import trees

__all__ = ["Limits", "is_kept", "unpack_here"]

_CHUNK = 1 << 18
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY
_XATTR = "SCHILY.xattr."
_DECODER_MEMORY = 256 << 20
_MAGIC = ((b"\x1f\x8b", "gzip"), (b"\xfd7zXZ\0", "xz"), (b"BZh", "bzip2"), (b"\x28\xb5\x2f\xfd", "zstd"))


@attrs.frozen
class Limits:
    """What an archive may come to.

    ``size`` bytes of content, holes counted; ``ratio`` times what came in, beyond ``free`` bytes; ``entries``;
    ``depth`` of folders; ``header`` bytes of headers for one entry; owners below ``ids``.
    """

    size: int = 64 << 30
    ratio: int = 200
    free: int = 1 << 30
    entries: int = 2_000_000
    depth: int = 128
    header: int = 1 << 20
    ids: int = 65536


def is_kept(key: bytes) -> bool:
    """Say whether an extended attribute is taken over: users' own, without overlayfs's, and file capabilities."""
    if key == b"security.capability":
        return True
    return key.startswith(b"user.") and not key.startswith(b"user.overlay.")


def unpack_here(tree: int, archive: int, limits: dict[str, int], owners: bool) -> dict[str, int]:
    """Unpack the archive that can be read from ``archive`` into the empty folder ``tree``; return what was left out.

    ``owners``: set owners as the archive has them. Raises `ArchiveError`.
    """
    work = _Unpack(tree, _Stream(archive, Limits(**limits)), owners=owners)
    with _explained():
        work.run()
    return work.left_out


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError) as error:
        if isinstance(error, ArchiveError):
            raise
        raise ArchiveError(f"the archive is damaged, or no tar archive: {error}") from None
    except (zlib.error, lzma.LZMAError) as error:
        raise ArchiveError(f"the archive is damaged: {error}") from None


def _refuse(why: str, path: str | None = None) -> NoReturn:
    about = "the archive" if path is None else f"the archive's entry {path!r}"
    raise ArchiveError(f"{about} {why}", hint="nothing of it was kept")


class _Gzip:
    """zlib's decompressor with the face of those of lzma and bz2."""

    def __init__(self) -> None:
        self._work = zlib.decompressobj(wbits=31)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._work.eof

    @property
    def unused_data(self) -> bytes:
        return self._work.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        made = self._work.decompress(self._work.unconsumed_tail + data, max_length)
        self.needs_input = not self._work.unconsumed_tail and len(made) < max_length
        return made


class _Stream:
    """The decompressed archive, read forwards only; what `tarfile` takes for a file. It knows when it is enough."""

    def __init__(self, fd: int, limits: Limits) -> None:
        self._fd = fd
        self.limits = limits
        self.taken = self._position = 0
        self._ready = b""
        self._head = self._read_raw(512)
        self.budget: int | None = None
        self._kind = next((kind for magic, kind in _MAGIC if self._head.startswith(magic)), "")
        if self._kind == "zstd":
            raise ArchiveError(
                "zstd archives cannot be read directly", hint="zstd -dc FILE | layerrun base import NAME -"
            )
        self._work = self._new()

    def _new(self) -> Any:
        if self._kind == "gzip":
            return _Gzip()
        if self._kind == "xz":
            return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_DECODER_MEMORY)
        return bz2.BZ2Decompressor() if self._kind == "bzip2" else None

    def _read_raw(self, size: int) -> bytes:
        data = os.read(self._fd, size)
        self.taken += len(data)
        return data

    def _input(self) -> bytes:
        head, self._head = self._head, b""
        return head or self._read_raw(_CHUNK)

    def _more(self) -> bytes:
        """Return some more of the archive; nothing at its end."""
        if self._work is None:
            return self._input()
        while True:
            if self._work.eof:
                # Another stream may follow, or zeros that only fill up a block.
                rest = (self._work.unused_data or self._input()).lstrip(b"\0")
                while not rest and (rest := self._input()):
                    rest = rest.lstrip(b"\0")
                if not rest:
                    return b""
                self._head, self._work = rest, self._new()
            data = self._input() if self._work.needs_input else b""
            if not data and self._work.needs_input:
                raise EOFError("it ends too soon")
            try:
                made: bytes = self._work.decompress(data, _CHUNK)
            except OSError as error:  # bz2's way to say it
                raise ValueError(str(error)) from None
            if made:
                return made

    def read(self, size: int) -> bytes:
        """Return the next bytes, fewer only at the end."""
        if self.budget is not None:
            self.budget -= size
            if size < 0 or self.budget < 0:
                _refuse(f"has a header of more than {self.limits.header:,} bytes")
        parts, left = [], size
        while left:
            self._ready = self._ready or self._more()
            if not self._ready:
                break
            part, self._ready = self._ready[:left], self._ready[left:]
            parts.append(part)
            left -= len(part)
        self._position += size - left
        if self._position > self.limits.free and self._position > self.taken * self.limits.ratio:
            _refuse(f"grows to more than {self.limits.ratio} times its size")
        if self._position > 2 * self.limits.size:
            _refuse(f"is larger than {self.limits.size:,} bytes")
        return b"".join(parts)

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> None:
        """Go forwards."""
        budget, self.budget = self.budget, None
        while self._position < position:
            if not self.read(min(_CHUNK, position - self._position)):
                raise EOFError("it ends too soon")
        self.budget = budget
        if self._position > position:
            raise EOFError("its headers lead back")

    def copy(self, out: int, size: int) -> None:
        """Write the next ``size`` bytes to a file, at its position; blocks of zeros become holes."""
        while size:
            data = self.read(min(_CHUNK, size))
            if not data:
                raise EOFError("it ends within a file")
            size -= len(data)
            if len(data) == _CHUNK and not data.strip(b"\0"):
                os.lseek(out, len(data), os.SEEK_CUR)
                continue
            view = memoryview(data)
            while view:
                view = view[os.write(out, view) :]


class _Unpack:
    def __init__(self, tree: int, stream: _Stream, *, owners: bool) -> None:
        self._tree = tree
        self._stream = stream
        self._limits = stream.limits
        self._owners = owners
        self._size = self._entries = 0
        self._open: tuple[bytes, int] = (b"", os.dup(tree))
        self._times: dict[bytes, int] = {}
        self.left_out = {"devices": 0, "xattrs": 0}

    def run(self) -> None:
        for member in self._members():
            self._entries += 1
            if self._entries > self._limits.entries:
                _refuse(f"holds more than {self._limits.entries:,} entries")
            self._one(member)
        for path, when in reversed(self._times.items()):
            fd = trees.open_beneath(self._tree, path, _FOLDER)
            os.utime(fd, ns=(when, when))
            os.close(fd)

    def _members(self) -> Iterator[tarfile.TarInfo]:
        """Yield each header, and see to it that the archive ends where it says so."""
        stream = self._stream
        stream.budget = self._limits.header
        tar = tarfile.TarFile(fileobj=stream, mode="r", encoding="utf-8", errors="surrogateescape")  # type: ignore[arg-type]
        member = tar.next()
        while member is not None:
            stream.budget = None
            yield member
            stream.seek(tar.offset)
            stream.budget = self._limits.header
            try:
                member = tarfile.TarInfo.fromtarfile(tar)
            except tarfile.HeaderError as error:
                # A block of zeros is the proper end; tarfile itself would take any bad header for one.
                if type(error).__name__ != "EOFHeaderError":
                    raise
                member = None
        stream.budget = None

    def _one(self, member: tarfile.TarInfo) -> None:
        path = self._path(member.name, member.name)
        if not (0 <= member.uid < self._limits.ids and 0 <= member.gid < self._limits.ids):
            _refuse(
                f"belongs to {member.uid}:{member.gid}, and ids go up to {self._limits.ids - 1}", member.name
            )
        if member.isdev() and not member.isfifo():
            if not path.startswith(b"dev/") or (member.devmajor, member.devminor) == (0, 0):
                _refuse("is a device node", member.name)
            self.left_out["devices"] += 1
            return
        if member.isdir():
            self._folder(member, path)
            return
        if not path:
            _refuse("stands for the root, and is no folder", member.name)
        folder, _, name = path.rpartition(b"/")
        at = self._enter(folder, member.name)
        self._clear(at, name, member.name)
        if member.islnk():
            self._hard_link(member, at, name)
        elif member.issym():
            self._link(member, at, name)
        elif member.isfifo():
            os.mkfifo(name, member.mode & 0o777, dir_fd=at)
            self._own(member, at, name)
        elif member.isreg() or member.issparse():
            self._file(member, at, name)
        else:
            _refuse(f"is of an unknown type {member.type!r}", member.name)

    def _path(self, text: str, shown: str) -> bytes:
        """Return the path of an entry beneath the root, empty for the root itself."""
        parts = [part for part in os.fsencode(text).split(b"/") if part not in (b"", b".")]
        if text.startswith("/") or b".." in parts or "\0" in text:
            _refuse(f"leads elsewhere: {text!r}", shown)
        if len(parts) > self._limits.depth:
            _refuse(f"lies deeper than {self._limits.depth} folders", shown)
        if any(len(part) > 255 for part in parts):
            _refuse("has a name of more than 255 bytes", shown)
        return b"/".join(parts)

    def _enter(self, folder: bytes, shown: str) -> int:
        """Return a descriptor of a folder, made if it is not there."""
        if self._open[0] == folder:
            return self._open[1]
        try:
            fd = trees.open_beneath(self._tree, folder, os.O_PATH | os.O_DIRECTORY)
        except OSError as error:
            if error.errno != errno.ENOENT:
                _refuse("lies behind a link, or behind what is no folder", shown)
            fd = self._make(folder, shown)
        os.close(self._open[1])
        self._open = folder, fd
        return fd

    def _make(self, folder: bytes, shown: str) -> int:
        fd = os.dup(self._tree)
        for part in folder.split(b"/"):
            with suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=fd)
            try:
                following = trees.open_beneath(fd, part, os.O_PATH | os.O_DIRECTORY)
            except OSError:
                _refuse("lies behind a link, or behind what is no folder", shown)
            finally:
                os.close(fd)
            fd = following
        return fd

    def _clear(self, at: int, name: bytes, shown: str) -> None:
        """An entry that comes again takes the place of the first, unless that is a folder."""
        try:
            os.unlink(name, dir_fd=at)
        except FileNotFoundError:
            pass
        except IsADirectoryError:
            _refuse("would take the place of a folder", shown)

    def _folder(self, member: tarfile.TarInfo, path: bytes) -> None:
        at, _, name = path.rpartition(b"/")
        if path:
            with suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=self._enter(at, member.name))
        try:
            fd = trees.open_beneath(self._tree, path, _FOLDER)
        except OSError:
            _refuse("would take the place of what is no folder", member.name)
        try:
            self._finish(member, fd)
        finally:
            os.close(fd)
        self._times[path] = _mtime(member)

    def _file(self, member: tarfile.TarInfo, at: int, name: bytes) -> None:
        self._size += max(member.size, 0)
        if member.size < 0 or self._size > self._limits.size:
            _refuse(f"holds more than {self._limits.size:,} bytes of files")
        fd = os.open(name, _NEW, 0o600, dir_fd=at)
        try:
            if member.issparse():
                parts: Any = member.sparse  # pairs of where it lies and how long it is
                for offset, size in parts:
                    if offset < 0 or size < 0 or offset + size > member.size:
                        _refuse("has a wrong map of its holes", member.name)
                    os.lseek(fd, offset, os.SEEK_SET)
                    self._stream.copy(fd, size)
            else:
                self._stream.copy(fd, member.size)
            os.ftruncate(fd, member.size)
            self._finish(member, fd)
            os.utime(fd, ns=(_mtime(member),) * 2)
        finally:
            os.close(fd)

    def _link(self, member: tarfile.TarInfo, at: int, name: bytes) -> None:
        target = os.fsencode(member.linkname)
        if not target or len(target) > 4095:
            _refuse("is a link to nowhere", member.name)
        os.symlink(target, name, dir_fd=at)
        self._own(member, at, name)
        os.utime(name, ns=(_mtime(member),) * 2, dir_fd=at, follow_symlinks=False)

    def _hard_link(self, member: tarfile.TarInfo, at: int, name: bytes) -> None:
        target = self._path(member.linkname, member.name)
        folder, _, last = target.rpartition(b"/")
        try:
            source = trees.open_beneath(self._tree, folder, os.O_PATH | os.O_DIRECTORY)
        except OSError:
            _refuse("is a hard link to what is not there, or behind a link", member.name)
        try:
            found = os.stat(last, dir_fd=source, follow_symlinks=False) if last else None
            if found is None or not stat.S_ISREG(found.st_mode):
                _refuse("is a hard link to what is no file", member.name)
            os.link(last, name, src_dir_fd=source, dst_dir_fd=at, follow_symlinks=False)
        except FileNotFoundError:
            _refuse("is a hard link to what is not there", member.name)
        finally:
            os.close(source)

    def _own(self, member: tarfile.TarInfo, at: int, name: bytes) -> None:
        if self._owners:
            os.chown(name, member.uid, member.gid, dir_fd=at, follow_symlinks=False)

    def _finish(self, member: tarfile.TarInfo, fd: int) -> None:
        """Set owner, mode and attributes, in this order: chown(2) takes setuid bits and capabilities away."""
        if self._owners:
            os.fchown(fd, member.uid, member.gid)
        os.fchmod(fd, member.mode & 0o7777)
        for key, text in member.pax_headers.items():
            if not key.startswith(_XATTR):
                continue
            name = os.fsencode(key[len(_XATTR) :])
            value = text.encode("utf-8", "surrogateescape")
            if not is_kept(name) or (name == b"security.capability" and not _is_plain_capability(value)):
                self.left_out["xattrs"] += 1
                continue
            try:
                os.setxattr(fd, name, value)
            except OSError as error:
                _refuse(f"has an attribute {name!r} that cannot be set: {error.strerror}", member.name)


def _is_plain_capability(value: bytes) -> bool:
    """Say whether file capabilities name no user namespace: VFS_CAP_REVISION_2, capabilities(7)."""
    return len(value) == 20 and value[3] == 2


def _mtime(member: tarfile.TarInfo) -> int:
    """Return a time of modification in ns that every file system can keep."""
    when = member.mtime if math.isfinite(member.mtime) else 0
    return int(min(max(when, 0), 1 << 34)) * 10**9
