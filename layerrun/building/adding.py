"""Adding files to an empty upper, as a step of a build: where they go by what lies beneath, alike on every machine.

Owner, mode and time are made the same whoever has the files and however they came there (a umask, a checkout): only
whether a file may be executed is taken over. A link stays a link. What is read is hostile as any tree.
"""

from __future__ import annotations

import errno
import fnmatch
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

from layerrun.errors import UsageError
from layerrun.layers import overlay
from layerrun.layers.putback import Stack
from layerrun.native import trees
from layerrun.native.trees import open_beneath

__all__ = ["Place", "add", "digest_of"]

_FOLDER = os.O_RDONLY | os.O_DIRECTORY
_MAKE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 20
_MOST_LINKS = 40


class _Item(NamedTuple):
    """Something to add: its path in the source, ``b""`` for the source itself; ``kind`` is f, d or l."""

    path: bytes
    kind: bytes
    mode: int
    link: bytes


def _items(source: int, exclude: Sequence[str], mode: int | None) -> Iterator[_Item]:
    """Yield what a source, an open folder or file, holds, a folder before what is in it."""
    info = os.fstat(source)
    if stat.S_ISREG(info.st_mode):
        yield _Item(b"", b"f", _mode(info.st_mode, mode), b"")
        return
    yield _Item(b"", b"d", 0o755, b"")
    left_out: bytes | None = None
    for entry in trees.list_tree(source, xattrs=False):
        if left_out is not None and entry.path.startswith(left_out):
            continue
        left_out = None
        if _is_excluded(entry.path, exclude):
            left_out = entry.path + b"/"
            continue
        kind = stat.S_IFMT(entry.mode)
        if kind == stat.S_IFDIR:
            yield _Item(entry.path, b"d", 0o755, b"")
        elif kind == stat.S_IFREG:
            yield _Item(entry.path, b"f", _mode(entry.mode, mode), b"")
        elif kind == stat.S_IFLNK:
            yield _Item(entry.path, b"l", 0o777, entry.link_target)
        else:
            raise UsageError(
                f"{os.fsdecode(entry.path)!r} is neither a file, a folder nor a link, and cannot be added",
                hint="leave it out: exclude = [...]",
            )


def _mode(mode: int, wanted: int | None) -> int:
    return wanted if wanted is not None else 0o755 if mode & 0o111 else 0o644


def _is_excluded(path: bytes, patterns: Sequence[str]) -> bool:
    text = os.fsdecode(path)
    return any(
        fnmatch.fnmatchcase(text if "/" in p else text.rpartition("/")[2], p.strip("/")) for p in patterns
    )


def _line(item: _Item, content: str) -> bytes:
    return b"%s %o %s\0%s\0%s\0" % (item.kind, item.mode, item.path, item.link, content.encode())


def digest_of(source: int, exclude: Sequence[str], mode: int | None) -> str:
    """Return a digest of all that `add` would take from an open folder or file, and of nothing else."""
    total = hashlib.sha256()
    for item in _items(source, exclude, mode):
        content = ""
        if item.kind == b"f":
            with _opened(source, item.path) as fd, os.fdopen(os.dup(fd), "rb", buffering=0) as file:
                file.seek(0)
                content = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(_line(item, content))
    return total.hexdigest()


@contextmanager
def _opened(source: int, path: bytes) -> Iterator[int]:
    fd = open_beneath(source, path, os.O_RDONLY) if path else os.dup(source)
    try:
        yield fd
    finally:
        os.close(fd)


def add(
    source: int,
    upper: int,
    beneath: Stack,
    *,
    target: str,
    name: str,
    owner: tuple[int, int],
    mode: int | None,
    exclude: Sequence[str],
    epoch: int,
) -> tuple[bytes, str]:
    """Put what a source, an open folder or file, holds at ``target`` in an upper over ``beneath``.

    ``name`` is what a single file is called in a folder. Returns where it was put, relative to the root, and the
    digest of what was put there. Raises `UsageError` where something of another type is in the way.
    """
    place = Place(upper, beneath, tuple(owner), epoch)
    single = stat.S_ISREG(os.fstat(source).st_mode)
    path, is_folder = place.resolve(target)
    if single and (is_folder or target.endswith("/")):
        path, _ = place.resolve("/" + os.fsdecode(path) + "/" + name)
    total = hashlib.sha256()
    for item in _items(source, exclude, mode):
        where = path + b"/" + item.path if item.path and path else path or item.path
        content = ""
        if item.kind == b"d":
            place.folder(where)
        elif item.kind == b"l":
            place.link(where, item.link)
        else:
            with _opened(source, item.path) as fd:
                content = place.file(where, fd, item.mode)
        total.update(_line(item, content))
    return path, total.hexdigest()


class Place:
    """An upper that entries are put into, so that the stack beneath and it show them."""

    def __init__(self, upper: int, beneath: Stack, owner: Sequence[int], epoch: int) -> None:
        self._upper, self._beneath, self._epoch = upper, beneath, epoch
        self._owner = (owner[0], owner[1])

    def resolve(self, path: str) -> tuple[bytes, bool]:
        """Return where a path leads, relative to the root and free of links, and whether a folder is there."""
        todo, done, links = os.fsencode(path).split(b"/")[::-1], b"", 0
        at = self._beneath.top()
        stack = [(done, at)]
        while todo:
            part = todo.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                stack = stack[:-1] or stack[:1]
                done, at = stack[-1]
                continue
            found = self._beneath.find(done, at, part)
            if found.layers and not found.folder:
                target = self._link_at(found.layers[0], done, part)
                if target is None and todo:
                    raise UsageError(f"{path!r} leads through {_shown(done, part)!r}, which is a file")
                if target is not None:
                    links += 1
                    if links > _MOST_LINKS:
                        raise UsageError(f"{path!r} leads through too many links")
                    todo += target.split(b"/")[::-1]
                    stack = stack[:1] if target.startswith(b"/") else stack
                    done, at = stack[-1]
                    continue
            done, at = (done + b"/" + part if done else part), found
            stack.append((done, at))
        return done, bool(at.layers) and at.folder

    def _link_at(self, layer: int, folder: bytes, name: bytes) -> bytes | None:
        """Return the target of a link; ``None``: it is none."""
        fd = self._beneath.opened(layer, folder)
        try:
            return os.readlink(name, dir_fd=fd)
        except OSError as error:
            if error.errno == errno.EINVAL:
                return None
            raise
        finally:
            os.close(fd)

    def kind(self, path: bytes) -> str:
        """Return what the stack shows at a path without links: ``folder``, ``other`` or ``nothing``."""
        at, done = self._beneath.top(), b""
        for part in filter(None, path.split(b"/")):
            at = self._beneath.find(done, at, part)
            done = done + b"/" + part if done else part
        return "nothing" if not at.layers else "folder" if at.folder else "other"

    def folder(self, path: bytes) -> None:
        """Make a folder, and those that it lies in; one that is there already stays as it is."""
        done = b""
        for part in filter(None, path.split(b"/")):
            above, done = done, done + b"/" + part if done else part
            parent = open_beneath(self._upper, above, _FOLDER)
            try:
                os.mkdir(part, 0o700, dir_fd=parent)
            except FileExistsError:
                continue
            finally:
                os.close(parent)
            self._finish_folder(done)

    def _finish_folder(self, path: bytes) -> None:
        kind = self.kind(path)
        if kind == "other":
            raise UsageError(f"a folder is to be added at {_shown(path)!r}, where a file is")
        fd = open_beneath(self._upper, path, _FOLDER)
        try:
            if kind == "folder":
                self._like_beneath(path, fd)
            else:
                self._own(fd)
                os.fchmod(fd, 0o755)
        finally:
            os.close(fd)

    def _like_beneath(self, path: bytes, fd: int) -> None:
        for number in range(len(self._beneath.fds)):
            with suppress(OSError):
                source = self._beneath.opened(number, path)
                try:
                    overlay.copy_metadata(source, fd, userxattr=self._beneath.userxattr)
                finally:
                    os.close(source)
                return

    @contextmanager
    def _new(self, path: bytes, what: str) -> Iterator[tuple[int, bytes]]:
        """Give the folder, made if need be, and the name at which something new goes that is no folder."""
        above, _, name = path.rpartition(b"/")
        if not name or self.kind(path) == "folder":
            raise UsageError(f"a {what} is to be added at {_shown(path)!r}, where a folder is")
        self.folder(above)
        fd = open_beneath(self._upper, above, _FOLDER)
        try:
            yield fd, name
        finally:
            os.close(fd)

    def link(self, path: bytes, target: bytes) -> None:
        """Make a symbolic link."""
        with self._new(path, "link") as (parent, name):
            os.symlink(target, name, dir_fd=parent)
            if self._owner != (0, 0) or os.geteuid() == 0:
                with self._explained():
                    os.chown(name, *self._owner, dir_fd=parent, follow_symlinks=False)
            os.utime(name, (self._epoch, self._epoch), dir_fd=parent, follow_symlinks=False)

    def file(self, path: bytes, source: int, mode: int) -> str:
        """Copy a file; return the SHA-256 of what was copied."""
        digest = hashlib.sha256()
        with self._new(path, "file") as (parent, name):
            fd = os.open(name, _MAKE, 0o600, dir_fd=parent)
            try:
                os.lseek(source, 0, os.SEEK_SET)
                while data := os.read(source, _CHUNK):
                    digest.update(data)
                    left = memoryview(data)
                    while left:
                        left = left[os.write(fd, left) :]
                self._own(fd)
                os.fchmod(fd, mode)
                os.utime(fd, (self._epoch, self._epoch))
            finally:
                os.close(fd)
        return digest.hexdigest()

    def _own(self, fd: int) -> None:
        # A plain user's own are 0:0 inside as they are.
        if self._owner != (0, 0) or os.geteuid() == 0:
            with self._explained():
                os.fchown(fd, *self._owner)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EINVAL):
                raise
            uid, gid = self._owner
            raise UsageError(
                f"nothing can be given to {uid}:{gid} in this store",
                hint="a plain user needs subordinate ids for that: see newuidmap(1); or leave owner out",
            ) from None


def _shown(*parts: bytes) -> str:
    return "/" + os.fsdecode(b"/".join(filter(None, parts)))
