"""Where a commit keeps things aside: a folder of slots on each mount that it changes.

rename(2) works within one mount only, even where two mounts are of one file system. On the store's own mount the
slots lie in the commit's folder; elsewhere in a hidden folder of mode 0700, made with a name that nobody can know
beforehand: at the mount's root, or in the first folder from there on where the caller may write.
"""

from __future__ import annotations

import contextlib
import os

from layerrun.commit.entries import Folders, set_mtime, split, stat_of
from layerrun.commit.journal import read_json, write_json
from layerrun.errors import DamagedError
from layerrun.native.trees import open_beneath, remove_tree
from layerrun.store.fs import DIR_FLAGS, explain, fsync_dir, make_dir, open_dir

__all__ = ["Places", "remove_places"]


class Places:
    """The places of one commit. ``paths``: absolute, the store's own first; ``fds``: open folders in the same order."""

    def __init__(self, folder_fd: int, id_: str, host: Folders) -> None:
        self._folder = folder_fd
        self._id = id_
        self._host = host
        self._mounts: dict[int, int] = {}
        self._by_folder: dict[bytes, tuple[int, int]] = {}
        self.paths: list[bytes] = []
        self.fds: list[int] = []

    def begin(self) -> None:
        """Make the place on the store's own mount."""
        make_dir(self._folder, "slots")
        fd = open_dir(self._folder, "slots")
        self._add(fd, b"")

    def _add(self, fd: int, path: bytes) -> int:
        status = stat_of(fd, b"")
        assert status is not None
        self._mounts[status.mount] = len(self.fds)
        self.fds.append(fd)
        self.paths.append(path)
        return len(self.fds) - 1

    def mount_of(self, folder: bytes) -> int:
        """Return the id of the mount on which entries of a folder of the host lie; it need not be there yet."""
        while True:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                status = stat_of(self._host.open(folder), b"")
                if status is not None:
                    return status.mount
            folder = split(folder)[0]

    def place_for(self, folder: bytes) -> tuple[int, int]:
        """Return the number of the place for what is done in a folder of the host, and the id of the mount."""
        found = self._by_folder.get(folder)
        if found is None:
            mount = self.mount_of(folder)
            place = self._mounts.get(mount)
            found = self._by_folder[folder] = (self._make(folder, mount) if place is None else place, mount)
        return found

    def _make(self, folder: bytes, mount: int) -> int:
        above = self._first_writable(folder, mount)
        fd = self._host.open(above)
        status = stat_of(fd, b"")
        assert status is not None
        name = f".layerrun-{self._id}"
        path = b"/" + (above + b"/" if above else b"") + os.fsencode(name)
        # Noted first, so that it is found after a crash.
        noted = read_json(self._folder, "places") or []
        noted.append([path.decode("latin-1"), status.mtime_ns])
        write_json(self._folder, "places", noted)
        with explain("make a folder to keep things aside in", os.fsdecode(path)):
            make_dir(fd, name)
            set_mtime(f"/proc/self/fd/{fd}", status.mtime_ns)
            return self._add(open_dir(fd, name), path)

    def _first_writable(self, folder: bytes, mount: int) -> bytes:
        """Return the topmost folder of the mount, on the way to ``folder``, in which the caller may make one."""
        parts = folder.split(b"/") if folder else []
        for count in range(len(parts) + 1):
            path = b"/".join(parts[:count])
            try:
                fd = self._host.open(path)
            except (FileNotFoundError, NotADirectoryError):
                break
            status = stat_of(fd, b"")
            if (
                status is not None
                and status.mount == mount
                and os.access(f"/proc/self/fd/{fd}", os.W_OK | os.X_OK)
            ):
                return path
        return folder

    def open(self, paths: tuple[bytes, ...]) -> None:
        """Open the places that a journal names. Raises `DamagedError` when one is missing."""
        for path in paths:
            try:
                if path:
                    fd = open_beneath(self._host.root, path.strip(b"/"), DIR_FLAGS, cross_mounts=True)
                else:
                    fd = open_dir(self._folder, "slots")
            except OSError as error:
                shown = os.fsdecode(path) if path else "slots"
                raise DamagedError(
                    f"what commit {self._id} kept aside in {shown!r} is missing: {os.strerror(error.errno or 0)}",
                    hint="if it lies on a file system that is not mounted now: mount it, and try again",
                ) from None
            status = os.fstat(fd)
            if status.st_uid != os.geteuid() or status.st_mode & 0o077:
                os.close(fd)
                raise DamagedError(
                    f"{os.fsdecode(path)!r}, where commit {self._id} keeps things aside, is somebody else's",
                    hint="whoever owns the folder around it has put it there: put back what was there before",
                )
            self._add(fd, path)

    def close(self) -> None:
        """Close the descriptors."""
        for fd in self.fds:
            os.close(fd)
        self.fds.clear()


def noted_places(folder_fd: int) -> list[tuple[bytes, int]]:
    """Return the places of a commit outside the store, with the time of modification of the folder around before."""
    return [(path.encode("latin-1"), mtime) for path, mtime in read_json(folder_fd, "places") or []]


def remove_places(folder_fd: int, host: Folders, *, restore: bool) -> None:
    """Remove the places of a commit outside the store, with all in them.

    With ``restore`` the folders around them get the times back that they had before they were made.
    """
    for path, before in noted_places(folder_fd):
        above, name = split(path.strip(b"/"))
        try:
            fd = host.open(above)
        except OSError:
            continue  # it lies on a file system that is not mounted any more
        status = stat_of(fd, b"")
        remove_tree(fd, name)
        with contextlib.suppress(OSError):
            if status is not None:
                set_mtime(f"/proc/self/fd/{fd}", before if restore else status.mtime_ns)
            fsync_dir(fd, ".")  # before the note of where it was goes
