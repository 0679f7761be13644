"""What a file or a pipe begins with; and what cannot be read where it lies, as a file without a name in the store."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import attrs

from layerrun.errors import ArchiveError, SystemError
from layerrun.images.kinds import kind_of
from layerrun.store.fs import explain
from layerrun.store.staging import new_id

if TYPE_CHECKING:
    from layerrun.bases.manifest import Progress
    from layerrun.images.limits import Limits
    from layerrun.images.whole import Ids
    from layerrun.store.store import Store

__all__ = ["BLOCK", "HEAD", "Input", "ids_of", "look", "spool"]

BLOCK = 512
# Bytes by which the kind is told. Of what is compressed more is read of a pipe: bzip2 needs a whole block.
HEAD, _PACKED = 4 * BLOCK, 1 << 20
_PIECE = 1 << 20


@attrs.frozen
class Input:
    """What is to be read: ``head`` are its first bytes, or all if it is shorter.

    ``ahead``: of a pipe, a file with what was read of it already; ``None`` of a file that is read from its beginning.
    """

    fd: int
    head: bytes
    ahead: int | None = None

    @property
    def packed(self) -> bool:
        """Whether it is compressed."""
        return bool(kind_of(self.head))


def look(stack: ExitStack, fd: int) -> Input:
    """Look at what a descriptor begins with. Of a pipe that is read: the first bytes are waited for."""
    if stat.S_ISREG(os.fstat(fd).st_mode) and os.lseek(fd, 0, os.SEEK_CUR) == 0:
        return Input(fd, os.pread(fd, HEAD, 0))
    head = _read(fd, b"", HEAD)
    if kind_of(head):
        head = _read(fd, head, _PACKED)
    ahead = os.memfd_create("ahead", os.MFD_CLOEXEC)
    stack.callback(os.close, ahead)
    _write(ahead, head)
    return Input(fd, head, ahead)


def _read(fd: int, head: bytes, size: int) -> bytes:
    with explain("read the archive"):
        while len(head) < size and (data := os.read(fd, size - len(head))):
            head += data
    return head


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def spool(
    store: Store, stack: ExitStack, given: Input, limits: Limits, progress: Progress | None = None
) -> int:
    """Write what was given, unpacked, to a file in the store; return a descriptor that the stack closes.

    The file has no name: whatever happens, nothing stays. Raises `ArchiveError` for what is damaged or comes to more
    than an archive may.
    """
    # Headers may take as much again, in archives of many small files.
    most = 2 * limits.size + (16 << 20)
    with explain("make a file in", store.path):
        out = _nameless(store.staging_fd)
    stack.callback(os.close, out)
    with explain("keep the archive for a while in", store.path), _told(progress, out):
        if given.packed:
            _unpack(store, given, out, limits, most)
        else:
            _copy(given, out, most)
    # Who reads it is not to be able to write to it: a jail might, for those that come after it.
    readable = os.open(f"/proc/self/fd/{out}", os.O_RDONLY | os.O_CLOEXEC)
    stack.callback(os.close, readable)
    return readable


def _nameless(folder: int) -> int:
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        return os.open(".", flags | os.O_TMPFILE, 0o600, dir_fd=folder)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            raise
        # A file system that cannot do that.
        name = f"spool-{new_id()}"
        fd = os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder)
        os.unlink(name, dir_fd=folder)
        return fd


def _copy(given: Input, out: int, most: int) -> None:
    _write(out, given.head)
    done = len(given.head)
    while data := os.read(given.fd, _PIECE):
        done += len(data)
        if done > most:
            raise ArchiveError(f"the archive is larger than {most:,} bytes", hint="nothing of it was kept")
        _write(out, data)


def _unpack(store: Store, given: Input, out: int, limits: Limits, most: int) -> None:
    from layerrun.images.whole import unpack_whole

    try:
        unpack_whole((given.fd, given.ahead), out, limits, most, ids_of(store))
    except SystemError as error:
        raise OSError(error.errno, str(error)) from None


def ids_of(store: Store) -> Ids:
    """Return by whose ids hostile input is worked on."""
    from layerrun.bases.intake import maps
    from layerrun.images.tar import ids_of_archives
    from layerrun.images.whole import Ids
    from layerrun.model import IdMode

    ids = ids_of_archives(rootless=store.rootless)
    return Ids(*maps(store, ids), mapped=ids is IdMode.RANGE)


@contextmanager
def _told(progress: Progress | None, fd: int) -> Iterator[None]:
    """Tell, now and then, how large a file has become."""
    if progress is None:
        yield
        return
    ended = threading.Event()

    def tell() -> None:
        while not ended.wait(0.2):
            progress(0, os.fstat(fd).st_size)

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
