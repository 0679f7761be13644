"""Making an upper show, at chosen paths, what another stack of layers shows there.

Both stacks end in the same base. What they have in common is not looked at: a folder that both take from the same
places is passed over with all in it. What differs is copied, since what an upper has is written to.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

from layerrun.errors import LayerrunError, SystemError  # the root of what native.trees raises
from layerrun.layers import overlay
from layerrun.layers.entries import copy_entry
from layerrun.layers.links import Links
from layerrun.native.trees import open_beneath

__all__ = ["Stack", "put_back"]

_FOLDER = os.O_RDONLY | os.O_DIRECTORY


class _Found(NamedTuple):
    """What a stack shows at a path: the layers that have it (several: merged folders), and what identifies it."""

    layers: tuple[int, ...]
    folder: bool
    same: tuple[tuple[int, int], ...]


_NOTHING = _Found((), folder=False, same=())


class Stack(NamedTuple):
    """A stack of open folders, the topmost first.

    Attributes:
        fds: the folders.
        userxattr: the flavour of overlayfs's attributes in them.
        cross_mounts: the lowest has mounts in it (the machine's own ``/``).
    """

    fds: Sequence[int]
    userxattr: bool
    cross_mounts: bool

    def top(self) -> _Found:
        """Return the root of it."""
        infos = [os.fstat(fd) for fd in self.fds]
        return _Found(tuple(range(len(infos))), True, tuple((info.st_dev, info.st_ino) for info in infos))

    def opened(self, number: int, path: bytes) -> int:
        """Open a folder of a layer."""
        cross = self.cross_mounts and number == len(self.fds) - 1
        return open_beneath(self.fds[number], path, _FOLDER, cross_mounts=cross)

    def find(self, folder: bytes, at: _Found, name: bytes) -> _Found:
        """Return what it shows as ``name`` in a folder, which is ``at``."""
        layers: list[int] = []
        same: list[tuple[int, int]] = []
        for number in at.layers if at.folder else ():
            with _closing(self.opened(number, folder)) as fd:
                try:
                    info = os.stat(name, dir_fd=fd, follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if not stat.S_ISDIR(info.st_mode):
                    if layers or overlay.is_whiteout(info):
                        break
                    return _Found((number,), False, ((info.st_dev, info.st_ino),))
                layers.append(number)
                same.append((info.st_dev, info.st_ino))
                if number != len(self.fds) - 1 and self._is_opaque(fd, name):
                    break
        return _Found(tuple(layers), True, tuple(same)) if layers else _NOTHING

    def _is_opaque(self, fd: int, name: bytes) -> bool:
        with _closing(open_beneath(fd, name, _FOLDER)) as child:
            return overlay.is_opaque(child, userxattr=self.userxattr)

    def names(self, folder: bytes, at: _Found) -> set[bytes]:
        """Return the names in a folder, which is ``at``, whiteouts among them."""
        found: set[bytes] = set()
        for number in at.layers if at.folder else ():
            with _closing(self.opened(number, folder)) as fd:
                found.update(os.fsencode(name) for name in os.listdir(fd))
        return found


def put_back(
    upper_fd: int, beneath: Stack, wanted: Stack, paths: Iterable[bytes]
) -> tuple[list[bytes], list[bytes]]:
    """Make an empty upper over ``beneath`` show what ``wanted`` does at ``paths``, each with all in it.

    Args:
        upper_fd: the upper, an open folder, which may have the folders that overlays are rooted in.
        beneath: the stack it goes over.
        wanted: the other one.
        paths: relative to the root.

    Returns:
        The paths at which both have the same, and those at which neither has anything.

    Raises:
        layerrun.errors.SystemError: a system call failed; the upper is then to be thrown away.
    """
    work = _PutBack(upper_fd, beneath, wanted)
    try:
        found = [(path, work.path(path)) for path in paths]
        work.end()
        return [path for path, same in found if same], [path for path, same in found if same is None]
    except LayerrunError:
        raise
    except OSError as error:
        raise SystemError(f"cannot restore: {error.strerror}", errno=error.errno or 0) from error


class _Task(NamedTuple):
    path: bytes
    wanted: _Found
    beneath: _Found


class _PutBack:
    def __init__(self, upper: int, beneath: Stack, wanted: Stack) -> None:
        self._upper, self._beneath, self._wanted = upper, beneath, wanted
        self._links = Links(upper)
        self._folders: list[_Task] = []

    def path(self, path: bytes) -> bool | None:
        """Do it at one path; say whether it is the same already; ``None``: there is nothing."""
        here = _Task(b"", self._wanted.top(), self._beneath.top())
        for name in filter(None, path.split(b"/")):
            parent = here
            here = self._child(parent, name)
            if not here.wanted.layers and not here.beneath.layers:
                return None
            if here.path != path and here.wanted.same != here.beneath.same:
                self._on_the_way(here)
        if here.wanted.same == here.beneath.same:
            return True
        todo = [here]
        while todo:
            task = todo.pop()
            if self._entry(task):
                self._folders.append(task)
                names = self._wanted.names(task.path, task.wanted) | self._beneath.names(
                    task.path, task.beneath
                )
                todo += [self._child(task, name) for name in sorted(names)]
        return False

    def _child(self, task: _Task, name: bytes) -> _Task:
        path = task.path + b"/" + name if task.path else name
        return _Task(
            path,
            self._wanted.find(task.path, task.wanted, name),
            self._beneath.find(task.path, task.beneath, name),
        )

    def _on_the_way(self, task: _Task) -> None:
        """Make a folder that the path leads through, if there is none; it stays what it is now if there is."""
        if task.beneath.folder or not task.wanted.folder:
            return
        with self._parent(task.path) as (fd, name), suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=fd)
            self._finish(task, task.wanted)

    def _entry(self, task: _Task) -> bool:
        """Make one entry of the upper; say whether it is a folder that is to be filled."""
        if task.wanted.same == task.beneath.same:
            return False
        with self._parent(task.path) as (fd, name):
            if not task.wanted.layers:
                overlay.make_whiteout(fd, os.fsdecode(name))
            elif not task.wanted.folder:
                self._copy(task, fd, name)
            else:
                with suppress(FileExistsError):  # an overlay is rooted there
                    os.mkdir(name, 0o700, dir_fd=fd)
        return task.wanted.folder

    def _copy(self, task: _Task, fd: int, name: bytes) -> None:
        folder = task.path.rpartition(b"/")[0]
        with _closing(self._wanted.opened(task.wanted.layers[0], folder)) as source:
            self._links.note(copy_entry(source, fd, name, userxattr=self._wanted.userxattr), task.path)

    def end(self) -> None:
        """Do what is left once all paths are done: links, then folders, whose modes may forbid more then."""
        self._links.join()
        for task in reversed(self._folders):
            self._finish(task, task.wanted)

    def _finish(self, task: _Task, like: _Found) -> None:
        """Give a folder the metadata of the one it is to be, and hide what lies beneath if that is none."""
        with (
            _closing(self._wanted.opened(like.layers[0], task.path)) as source,
            _closing(open_beneath(self._upper, task.path, _FOLDER)) as made,
        ):
            info = os.fstat(source)
            overlay.copy_metadata(source, made, userxattr=self._wanted.userxattr)
            if not task.beneath.folder:
                overlay.set_opaque(made, userxattr=self._wanted.userxattr)
            os.utime(made, ns=(info.st_atime_ns, info.st_mtime_ns))

    @contextmanager
    def _parent(self, path: bytes) -> Iterator[tuple[int, bytes]]:
        """Open the folder of the upper that ``path`` lies in, made like what lies beneath where it is not there."""
        folder, _, name = path.rpartition(b"/")
        try:
            found = open_beneath(self._upper, folder, _FOLDER)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            self._make_way(folder)
            found = open_beneath(self._upper, folder, _FOLDER)
        with _closing(found) as fd:
            yield fd, name

    def _make_way(self, folder: bytes) -> None:
        done = b""
        for part in folder.split(b"/"):
            above, done = done, done + b"/" + part if done else part
            with _closing(open_beneath(self._upper, above, _FOLDER)) as fd, suppress(FileExistsError):
                os.mkdir(part, 0o700, dir_fd=fd)
                self._like_beneath(done)

    def _like_beneath(self, path: bytes) -> None:
        for number in range(len(self._beneath.fds)):
            try:
                source = self._beneath.opened(number, path)
            except OSError:
                continue
            with _closing(source), _closing(open_beneath(self._upper, path, _FOLDER)) as made:
                overlay.copy_metadata(source, made, userxattr=self._beneath.userxattr)
            return


@contextmanager
def _closing(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)
