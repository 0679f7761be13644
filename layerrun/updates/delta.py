"""Deltas: what turns one base into another, in a file as small as it can be (docs/delta.md has the format)."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
import threading
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

import attrs

from layerrun.errors import ExistsError, UsageError
from layerrun.model import BaseKind
from layerrun.store.fs import DIR_FLAGS, explain
from layerrun.updates.deltafile import Head, check_sum, read_head
from layerrun.updates.owners import as_owner

if TYPE_CHECKING:
    from layerrun.bases.manifest import Progress
    from layerrun.model import Base
    from layerrun.store.store import Store

__all__ = ["LEVEL", "Made", "check", "make_delta"]

LEVEL = 19
_SCRATCH = 4


@attrs.frozen
class Made:
    """What a delta came to: its size, and how many contents it brings as patches and as they are."""

    size: int
    patched: int
    fresh: int
    head: Head


def make_delta(
    store: Store,
    old: Base,
    new: Base,
    path: str,
    *,
    level: int = LEVEL,
    force: bool = False,
    progress: Progress | None = None,
) -> Made:
    """Write to the file ``path`` what makes the base ``new`` of the base ``old``.

    The same two bases make the same file. It appears when it is whole; ``force`` lets it take an old one's place.
    ``progress`` is called now and then with 0 and the bytes of the new base that are done.
    Raises `UsageError` where a base has no tree in the store, `ExistsError`, and `DamagedError` where a tree is not as
    recorded.
    """
    for base in (old, new):
        if base.kind is not BaseKind.TREE or base.digest is None:
            raise UsageError(f"the base {base.full_name!r} is no tree in the store: deltas are between those")
    if not force and os.path.lexists(path):
        raise ExistsError(f"there is a file {path!r} already", hint="remove it first, or say --force")
    with explain("write", path), _new_file(path, force=force) as out:
        folder = os.path.dirname(os.path.abspath(path))
        with contextlib.ExitStack() as stack:
            scratch = [stack.enter_context(tempfile.TemporaryFile(dir=folder)) for _ in range(_SCRATCH)]
            with _telling(progress) as ahead:
                patched, fresh = _make(
                    store, old, new, [ahead, *(one.fileno() for one in (out, *scratch))], level
                )
        return Made(os.fstat(out.fileno()).st_size, patched, fresh, read_head(out.fileno()))


def check(path: str) -> Head:
    """Return the head of the delta in the file ``path``, once all of it is as its checksum says."""
    with explain("open", path):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        head = read_head(fd)
        check_sum(fd, head)
        return head
    finally:
        os.close(fd)


@contextlib.contextmanager
def _new_file(path: str, *, force: bool) -> Iterator[IO[bytes]]:
    """Give a new file; it gets its name, durably, if all goes well, and is gone if not."""
    folder, name = os.path.split(os.path.abspath(path))
    staged = f".{name[:200]}.{os.urandom(4).hex()}"
    at = os.open(folder, DIR_FLAGS)
    try:
        with _nameless(folder, os.path.join(folder, staged)) as file:
            yield file
            os.fsync(file.fileno())
            # With a descriptor of the folder, Python follows the link: link(2) alone would not.
            named = os.path.lexists(os.path.join(folder, staged))
            source = os.path.join(folder, staged) if named else f"/proc/self/fd/{file.fileno()}"
            if not force:
                os.link(source, name, dst_dir_fd=at)
                return
            if not named:
                os.link(source, staged, dst_dir_fd=at)
            os.rename(staged, name, src_dir_fd=at, dst_dir_fd=at)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(staged, dir_fd=at)
        os.fsync(at)
        os.close(at)


def _nameless(folder: str, staged: str) -> IO[bytes]:
    """Return a new file in ``folder`` without a name, or called ``staged`` where the file system must have one."""
    try:
        return os.fdopen(os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666), "w+b")
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            raise
        return open(staged, "x+b")


@contextlib.contextmanager
def _telling(progress: Progress | None) -> Iterator[int]:
    """Give a pipe that a maker of deltas tells how far it is."""
    from layerrun.updates.making import AHEAD

    reader, writer = os.pipe()

    def tell() -> None:
        with os.fdopen(reader, "rb") as file:
            while data := file.read(AHEAD.size):
                if progress is not None:
                    progress(0, *AHEAD.unpack(data))

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield writer
    finally:
        os.close(writer)
        thread.join()


def _make(store: Store, old: Base, new: Base, files: list[int], level: int) -> tuple[int, int]:
    folders = []
    try:
        for base in (old, new):
            os.close(store.open_base(base))
            folders.append(os.open(f"bases/{base.id}", DIR_FLAGS, dir_fd=store.fd))
        handed = [*folders, *files]
        said = {
            "old": old.digest,
            "new": new.digest,
            "entries": new.entries,
            "size": new.size,
            "origin": dict(new.origin),
        }
        patched, fresh = as_owner(
            store, (old, new), "layerrun.updates.making:make_here", handed, said, level, fds=handed
        )
        return patched, fresh
    finally:
        for fd in folders:
            os.close(fd)
