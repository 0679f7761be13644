"""Small durable steps on the store's own folders: all beneath a descriptor, no link followed."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from layerrun.errors import LayerrunError, SystemError

__all__ = ["explain", "fsync_dir", "make_dir", "open_dir", "present", "read_text", "write_file"]

DIR_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_HINTS = {
    errno.ENOSPC: "free some space, or put the store elsewhere with LAYERRUN_STORE",
    errno.EDQUOT: "your quota is used up: free some space, or put the store elsewhere with LAYERRUN_STORE",
    errno.EROFS: "the store needs a writable file system; put it elsewhere with LAYERRUN_STORE",
    errno.EACCES: "check the owner and the mode of the path",
    errno.EIO: "the disk reports an error: see the kernel log",
}


@contextmanager
def explain(step: str, path: str | None = None) -> Iterator[None]:
    """Turn an `OSError` from within into a `SystemError` that says which step failed, and on what."""
    try:
        yield
    except LayerrunError:
        raise
    except OSError as error:
        number = error.errno or 0
        about = path if path is not None else error.filename
        name = f" {os.fsdecode(about)!r}" if isinstance(about, str | bytes) else ""
        raise SystemError(
            f"cannot {step}{name}: {os.strerror(number)}",
            errno=number,
            path=os.fsdecode(about) if isinstance(about, str | bytes) else None,
            hint=_HINTS.get(number),
        ) from error


def open_dir(dir_fd: int | None, path: str, *, closed: bool = False) -> int:
    """Open the directory ``path`` beneath ``dir_fd``, each of its names without following a link.

    With ``closed`` one that may not be read gives an ``O_PATH`` descriptor.
    """
    if dir_fd is None or path in ("", "."):
        return os.open(path or ".", DIR_FLAGS, dir_fd=dir_fd)
    fd = -1
    *above, last = path.split("/")
    try:
        for name in above:
            deeper = os.open(name, DIR_FLAGS, dir_fd=dir_fd if fd < 0 else fd)
            if fd >= 0:
                os.close(fd)
            fd = deeper
        top = dir_fd if fd < 0 else fd
        try:
            deeper = os.open(last, DIR_FLAGS, dir_fd=top)
        except PermissionError:
            if not closed:
                raise
            deeper = os.open(last, DIR_FLAGS | os.O_PATH, dir_fd=top)
        if fd >= 0:
            os.close(fd)
        fd = deeper
    except OSError:
        if fd >= 0:
            os.close(fd)
        raise
    return fd


def make_dir(dir_fd: int, name: str, mode: int = 0o700, *, owner: tuple[int, int] | None = None) -> None:
    """Make a directory with exactly ``mode`` (whatever the umask is) and, if given, ``owner``."""
    os.mkdir(name, 0o700, dir_fd=dir_fd)
    if owner is not None:
        os.chown(name, *owner, dir_fd=dir_fd, follow_symlinks=False)
    os.chmod(name, mode, dir_fd=dir_fd)


def fsync_dir(dir_fd: int, name: str | None = None) -> None:
    """Make the names in a directory durable: ``dir_fd`` itself, or ``name`` beneath it."""
    if name is None:
        os.fsync(dir_fd)
        return
    fd = os.open(name, DIR_FLAGS, dir_fd=dir_fd)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_file(dir_fd: int, name: str, text: str) -> None:
    """Make ``name`` hold ``text`` durably and at once: a new file, synced, renamed into its place."""
    temporary = f".{name}.{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(temporary, flags, 0o600, dir_fd=dir_fd)
    try:
        with os.fdopen(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=dir_fd)
        raise


def read_text(dir_fd: int, name: str, limit: int = 65536) -> str | None:
    """Return what a small file of the store holds, or ``None`` if it is not there."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, dir_fd=dir_fd)
    except FileNotFoundError:
        return None
    try:
        return os.read(fd, limit).decode("utf-8", "surrogateescape")
    finally:
        os.close(fd)


def present(dir_fd: int, name: str) -> bool:
    """Say whether ``name`` is there, without following a link."""
    try:
        os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
