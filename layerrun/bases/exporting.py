"""Bases as tar archives: what the manifest says, with the content and the times that the tree has.

Owners and device nodes are those of the source, also where the store could not keep them. Holes stay holes. Every file
is hashed while it is read, so that what is not as it was imported is never exported. The same base gives the same
bytes.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from typing import IO, TYPE_CHECKING, cast

import attrs

from layerrun.bases.manifest import HEADER, unescape
from layerrun.errors import DamagedError, UsageError
from layerrun.images.sparse import parts_of
from layerrun.images.stream import Record
from layerrun.images.tarring import TarWriter
from layerrun.model import HOST_BASE, BaseKind, IdMode
from layerrun.native import trees
from layerrun.store.fs import DIR_FLAGS, explain

if TYPE_CHECKING:
    from layerrun.bases.manifest import Progress
    from layerrun.model import Base
    from layerrun.store.store import Store

__all__ = ["add_base", "export_base", "export_to_file", "records_of_base", "write_here"]

Xattrs = Mapping[bytes, bytes]

_PIPE = 1 << 20
_ZEROS = bytes(_PIPE)


def export_base(store: Store, base: Base, put: Callable[[bytes], object]) -> None:
    """Give ``put`` a tar archive of a base, piece by piece.

    Raises `DamagedError` at the first entry that is not as it was imported; what was given by then is no whole archive.
    """
    if base.name == HOST_BASE:
        raise UsageError("the base 'host' is the machine's own / and cannot be exported")
    if base.kind is not BaseKind.TREE:
        raise UsageError(f"the base {base.name!r} is an image of a file system", hint="copy the image itself")
    os.close(store.open_base(base))
    with ExitStack() as stack:
        fd = os.open(f"bases/{base.id}", DIR_FLAGS, dir_fd=store.fd)
        stack.callback(os.close, fd)
        reader, writer = os.pipe()
        stack.callback(os.close, reader)
        failed: list[BaseException] = []
        thread = threading.Thread(
            target=_write, args=(store.rootless, base.ids, fd, writer, failed), daemon=True
        )
        thread.start()
        while data := os.read(reader, _PIPE):
            put(data)
        thread.join()
    if failed:
        raise failed[0]


def export_to_file(
    store: Store, base: Base, path: str, *, force: bool = False, progress: Progress | None = None
) -> int:
    """Write a base to a new file, compressed as its name says; return its size in bytes.

    ``progress`` is called with 0 and the bytes of the archive so far. The file has its name only once it is whole and
    on the disk. Raises `UsageError` if there is one of that name, unless ``force``; else as `export_base`.
    """
    from layerrun.images.compress import compressor_for

    compressor = compressor_for(path)
    with explain("write", path), _Output(path, force=force) as output:
        done = 0

        def put(data: bytes) -> None:
            nonlocal done
            _put_all(output.file, compressor.compress(data))
            done += len(data)
            if progress is not None:
                progress(0, done)

        export_base(store, base, put)
        _put_all(output.file, compressor.flush())
        size = os.fstat(output.file.fileno()).st_size
        output.keep()
        return size


def _put_all(file: IO[bytes], data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _write(rootless: bool, ids: IdMode | None, fd: int, out: int, failed: list[BaseException]) -> None:
    """Write the archive to a pipe; as a plain user by a helper, for only a root of sorts can read all that is there."""
    from layerrun.native.worker import run_in_userns

    try:
        if not rootless:
            write_here(fd, out)
            return
        own = ids is not IdMode.SUBIDS
        run_in_userns(f"{__name__}:write_here", fd, out, own=own, pass_fds=(fd, out))
    except BaseException as error:  # noqa: BLE001  (it is raised in the caller's thread)
        failed.append(error)
    finally:
        os.close(out)


def write_here(base: int, out: int) -> None:
    """Write the archive of the base in the folder ``base`` to a descriptor."""
    tree = os.open("tree", DIR_FLAGS, dir_fd=base)
    try:
        with os.fdopen(os.dup(out), "wb", buffering=_PIPE) as file:
            writer = TarWriter(file, holes=True)
            add_base(writer, base, tree)
            writer.close()
    finally:
        os.close(tree)


def add_base(writer: TarWriter, base: int, tree: int, kept: Callable[[Xattrs], Xattrs] | None = None) -> None:
    """Add all of the base in the folder ``base``, whose root folder is ``tree``; ``kept`` chooses of attributes.

    Raises `DamagedError` at the first entry that is not as it was imported.
    """
    for record, digest in records_of_base(base, tree):
        if kept is not None:
            record = attrs.evolve(record, xattrs=kept(record.xattrs))
        if record.kind != "f":
            writer.add(record)
            continue
        content = os.fdopen(trees.open_beneath(tree, record.path, os.O_RDONLY), "rb", buffering=0)
        with content:
            hashing = _Hashing(content)
            parts = parts_of(content.fileno(), record.size) if writer.holes else None
            content.seek(0)
            writer.add(record, cast("IO[bytes]", hashing), parts)
            if hashing.digest() != digest or content.read(1):
                raise _damaged(record.path)


class _Hashing:
    """A file that knows the digest of what was read of it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._sum = file, hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._sum.update(data)
        return data

    def seek(self, size: int, whence: int) -> None:
        """Pass over a hole: that it is one is as good as read, for what is hashed is what the archive says."""
        self._file.seek(size, whence)
        for at in range(0, size, _PIPE):
            self._sum.update(memoryview(_ZEROS)[: min(_PIPE, size - at)])

    def digest(self) -> bytes:
        return self._sum.hexdigest().encode("ascii")


def _damaged(path: bytes) -> DamagedError:
    return DamagedError(
        f"{os.fsdecode(path)!r} is not as it was imported",
        hint="`layerrun base verify` names all that is not",
    )


def records_of_base(base: int, tree: int) -> Iterator[tuple[Record, bytes]]:
    """Yield the entries of a base's manifest in their order, each with the SHA-256 of a file in hexadecimal."""
    entries = trees.list_tree(tree, xattrs=False)
    links, times = _beside(base)
    firsts: dict[object, bytes] = {}
    with _opened(base, "manifest") as file:
        if file.readline() != HEADER:
            raise DamagedError("the manifest of the base was altered")
        root = os.fstat(tree)
        for line in file:
            record, value = _parse(line)
            if record.kind in "cb" and record.path in times:
                yield attrs.evolve(record, mtime_ns=times[record.path]), b""
                continue
            entry = next(entries, None) if record.path else None
            if record.path and (entry is None or entry.path != record.path):
                raise _damaged(record.path)
            if entry is None:
                yield attrs.evolve(record, mtime_ns=root.st_mtime_ns), b""
                continue
            record = attrs.evolve(
                record, mtime_ns=entry.mtime_ns, size=entry.size if record.kind == "f" else 0
            )
            # Without the list of links it is a base of before: what has one inode was one file.
            group: object = (entry.dev, entry.ino) if links is None else links.get(record.path)
            first = record.path if group is None else firsts.setdefault(group, record.path)
            if record.kind == "f" and first != record.path:
                record = attrs.evolve(record, kind="h", link=first, xattrs={}, size=0)
            yield record, value if record.kind == "f" else b""


def _opened(base: int, name: str) -> IO[bytes]:
    return os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=base), "rb")


def _beside(base: int) -> tuple[dict[bytes, bytes] | None, dict[bytes, int]]:
    """Read ``links``: what group of hard links a path is of, and the times of what is in the manifest alone."""
    links: dict[bytes, bytes] = {}
    times: dict[bytes, int] = {}
    try:
        file = _opened(base, "links")
    except FileNotFoundError:
        return None, times
    with file:
        for line in file:
            kind, first, second = line.rstrip(b"\n").split(b" ")
            if kind == b"h":
                target = unescape(second)
                links[unescape(first)] = links[target] = target
            elif kind == b"a":
                seconds, _, fraction = first.partition(b".")
                times[unescape(second)] = int(seconds) * 10**9 + int(fraction)
    return links, times


def _parse(line: bytes) -> tuple[Record, bytes]:
    """Return a line of a manifest as a record without time and size, and its value."""
    kind, mode, uid, gid, value, path, *xattrs = line.rstrip(b"\n").split(b" ")
    name = b"" if path == b"." else unescape(path)
    letter = kind.decode("ascii")
    major, minor = map(int, value.split(b":")) if letter in "cb" else (0, 0)
    pairs = (text.partition(b"=") for text in xattrs)
    record = Record(
        letter,
        name,
        mode=int(mode, 8),
        uid=int(uid),
        gid=int(gid),
        link=unescape(value) if letter == "l" else b"",
        xattrs={unescape(key): unescape(text) for key, _, text in pairs},
        major=major,
        minor=minor,
    )
    return record, value if letter == "f" else b""


class _Output:
    """A new file that has its name only once it is whole; as a context, `keep` is its last word.

    Until then it has none, where the file system can do that (O_TMPFILE, open(2)): then a kill leaves nothing. Raises
    `UsageError` if there is a file of that name, unless ``force``.
    """

    def __init__(self, path: str, *, force: bool) -> None:
        self._path, self._part = path, f"{path}.part-{os.getpid()}"
        self._replace = force
        self._check()
        try:
            fd = os.open(os.path.dirname(path) or ".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666)
            self._named = False
        except OSError:
            fd = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            self._named = True
        self.file = os.fdopen(fd, "wb", buffering=0)

    def _check(self) -> None:
        if not self._replace and os.path.lexists(self._path):
            raise UsageError(f"{self._path!r} is there already", hint="choose another name, or say --force")

    def keep(self) -> None:
        """Make it durable, and give it its name."""
        os.fsync(self.file.fileno())
        if not self._named:
            # With a folder's descriptor Python calls linkat(2), which follows the link.
            at = os.open("/proc/self/fd", DIR_FLAGS)
            try:
                os.link(str(self.file.fileno()), self._part, src_dir_fd=at)
            finally:
                os.close(at)
            self._named = True
        if self._replace:
            os.rename(self._part, self._path)
            return
        try:
            os.link(self._part, self._path)
        except FileExistsError:
            self._check()
            raise
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP):
                raise
            os.rename(self._part, self._path)  # a file system without hard links

    def __enter__(self) -> _Output:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        if self._named:
            with suppress(OSError):
                os.unlink(self._part)
