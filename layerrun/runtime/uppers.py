"""Folders of the upper that become the root of an overlay of their own, and what is noted of them.

What an app left in its upper is hostile: every step goes beneath a descriptor and follows no link.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterable
from contextlib import suppress

import attrs

from layerrun.store.fs import present

__all__ = ["Uppers", "effective_mode", "read_roots", "write_roots"]

_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def read_roots(data_fd: int) -> list[bytes]:
    """Return the paths (relative, bytes) of the folders that layerrun itself made in this upper."""
    try:
        fd = os.open("roots", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=data_fd)
    except FileNotFoundError:
        return []
    with os.fdopen(fd, "rb") as file:
        lines = file.read().split(b"\n")
    return [re.sub(rb"\\(.)", _unescaped, line) for line in lines if line]


def write_roots(data_fd: int, roots: Iterable[bytes]) -> None:
    """Note the folders that layerrun itself made in this upper, durably; nobody else may be at it."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open("roots", flags, 0o600, dir_fd=data_fd), "wb") as file:
        file.write(b"".join(_escape(root) + b"\n" for root in roots))
        file.flush()
        os.fsync(file.fileno())


def _unescaped(found: re.Match[bytes]) -> bytes:
    return b"\n" if found[1] == b"n" else found[1]


def _escape(path: bytes) -> bytes:
    return path.replace(b"\\", b"\\\\").replace(b"\n", b"\\n")


def effective_mode(path: str, info: os.stat_result) -> int:
    """Return a mode for a folder that will be ours, granting us what the real one grants us now.

    Without root a folder cannot be given to root, so the upper's copy of /etc belongs to the caller,
    who could then write there what a direct run could not.
    """
    mode = stat.S_IMODE(info.st_mode)
    if info.st_uid == os.geteuid():
        return mode
    ours = 0
    for bit, access in ((4, os.R_OK), (2, os.W_OK), (1, os.X_OK)):
        ours |= bit if os.access(path, access) else 0
    # Reading and entering stay: we have to read our own upper, and what lies beneath guards itself.
    return (mode & 0o1077) | (ours | 5) << 6


def _open_own(dir_fd: int, name: str) -> int:
    """Open a folder of the upper; where the app took our own permissions to it away, give them back."""
    try:
        return os.open(name, _DIR, dir_fd=dir_fd)
    except PermissionError:
        closed = os.open(name, _DIR | os.O_PATH, dir_fd=dir_fd)
        try:
            os.chmod(f"/proc/self/fd/{closed}", stat.S_IMODE(os.fstat(closed).st_mode) | 0o700)
        finally:
            os.close(closed)
        return os.open(name, _DIR, dir_fd=dir_fd)


def _make_folder(fd: int, name: str) -> bool:
    """Make a folder in one of our own, even in one whose mode forbids it (see `effective_mode`)."""
    try:
        os.mkdir(name, 0o700, dir_fd=fd)
    except FileExistsError:
        return False
    except PermissionError:
        mode = stat.S_IMODE(os.fstat(fd).st_mode)
        os.fchmod(fd, mode | 0o700)
        try:
            os.mkdir(name, 0o700, dir_fd=fd)
        finally:
            os.fchmod(fd, mode)
    return True


def _give(fd: int, uid: int, gid: int) -> None:
    try:
        os.fchown(fd, uid, gid)
    except OSError as error:
        # EINVAL: we are in a user namespace that has no id for that owner.
        if error.errno not in (errno.EPERM, errno.EINVAL):
            raise


@attrs.define
class Uppers:
    """Makes and notes the roots of overlays within an app's data folder."""

    data_fd: int
    unprivileged: bool
    make: bool
    noted: list[bytes] = attrs.field(factory=list)
    count: int = 0

    def __attrs_post_init__(self) -> None:
        self.noted = read_roots(self.data_fd)

    def prepare(self, path: str) -> tuple[str, str] | None:
        """Return the upper and the work folder, below the data folder, of an overlay at ``path``.

        They are made only if ``make`` is set: the plan of a running app can be looked at, but nobody may
        write into an upper that is mounted.

        ``None`` where the app has put something else than a folder there. ``path`` is a folder of the
        host, whose owner and mode a new folder of the upper gets.
        """
        work = f"work/{self.count}"
        upper = "upper" + (path if path != "/" else "")
        self.count += 1
        if not self.make:
            return upper, work
        if not self._make_upper(path):
            return None
        with suppress(FileExistsError):
            os.mkdir(work, 0o700, dir_fd=self.data_fd)
        return upper, work

    def prepare_home(self) -> tuple[str, str]:
        """Return the upper and the work folder of an overlay at a home of the app's own, as `prepare`."""
        if self.make:
            with suppress(FileExistsError):
                os.mkdir("work/home", 0o700, dir_fd=self.data_fd)
        return "home", "work/home"

    def own_folder(self, path: str) -> None:
        """Put a folder of our own over the host's ``path``, which lies in some overlay."""
        if self.make:
            self._make_upper(path)

    def _make_upper(self, path: str) -> bool:
        if path == "/" and not self.unprivileged:
            return True  # over a base of its own an app may do with its root as it likes
        fd = _open_own(self.data_fd, "upper")
        try:
            if path == "/":
                os.fchmod(fd, effective_mode("/", os.stat("/")))
                return True
            done = ""
            for part in path.strip("/").split("/"):
                done += "/" + part
                next_fd = self._enter(fd, part, done)
                os.close(fd)
                fd = next_fd
            return True
        except (NotADirectoryError, OSError) as error:
            if isinstance(error, NotADirectoryError) or error.errno == 40:  # ELOOP: a link
                return False
            raise
        finally:
            os.close(fd)

    def _enter(self, fd: int, part: str, path: str) -> int:
        if not present(fd, part):
            # First: who is killed in between has made nothing that would count as a change.
            self._note(path)
        made = _make_folder(fd, part)
        entered = _open_own(fd, part)
        if made:
            info = os.stat(path)
            # Without root it stays the caller's; the mode then says what the caller may do there.
            _give(entered, info.st_uid, info.st_gid)
            mode = effective_mode(path, info) if self.unprivileged else stat.S_IMODE(info.st_mode)
            os.fchmod(entered, mode)
        return entered

    def _note(self, path: str) -> None:
        relative = os.fsencode(path.strip("/"))
        if relative in self.noted:
            return
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open("roots", flags, 0o600, dir_fd=self.data_fd)
        try:
            os.write(fd, _escape(relative) + b"\n")
        finally:
            os.close(fd)
        self.noted.append(relative)
