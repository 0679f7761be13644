"""Several frozen layers made one, which shows the same: by hard links, so that no content is copied.

A layer is only ever read, so its files may have a name in another one. Folders are made anew, since what is in
them is another selection. What the layers hide of what lies beneath all of them stays hidden: whiteouts and the marks
of opaque folders go along.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import NamedTuple

from layerrun.errors import SystemError  # the root of what native.trees raises
from layerrun.layers import overlay
from layerrun.layers.entries import copy_entry
from layerrun.layers.links import Links
from layerrun.native.trees import open_beneath

__all__ = ["squash_trees"]

_FOLDER = os.O_RDONLY | os.O_DIRECTORY


class _Merged(NamedTuple):
    """A folder of the new layer: where it is, the trees (numbers, the topmost first) that it comes from, its mark."""

    path: bytes
    trees: tuple[int, ...]
    opaque: bool


def squash_trees(
    trees: Sequence[int], target: int, *, userxattr: bool, lowest: bool = False, copies: bool = False
) -> None:
    """Fill an empty folder with what trees show together.

    Args:
        trees: open folders, the topmost first, all on one file system.
        target: an open folder on the same.
        userxattr: the flavour of overlayfs's attributes.
        lowest: nothing lies beneath them, so there is nothing to hide: overlayfs lists the whiteouts of a lowest layer.

        copies: files are copied, since they are to be written to; hard links among them are kept.

    Raises:
        layerrun.errors.SystemError: a system call failed: EMLINK where a file has too many names already.
    """
    work = _Squash(trees, target, userxattr=userxattr, lowest=lowest, copies=copies)
    try:
        work.run()
    except SystemError:
        raise
    except OSError as error:
        raise SystemError(
            f"cannot make one layer of several: {error.strerror}", errno=error.errno or 0
        ) from error


class _Squash:
    def __init__(
        self, trees: Sequence[int], target: int, *, userxattr: bool, lowest: bool, copies: bool
    ) -> None:
        self._trees, self._target, self._userxattr, self._lowest = trees, target, userxattr, lowest
        self._copied = Links(target) if copies else None
        self._todo = [_Merged(b"", tuple(range(len(trees))), opaque=False)]
        self._done: list[_Merged] = []

    def run(self) -> None:
        while self._todo:
            folder = self._todo.pop()
            self._fill(folder)
            self._done.append(folder)
        if self._copied is not None:
            self._copied.join()
        for folder in reversed(
            self._done
        ):  # what is in a folder first: that changes its time, and may need its mode
            self._finish(folder)

    def _fill(self, folder: _Merged) -> None:
        folders: dict[bytes, list[int]] = {}
        closed: set[bytes] = set()  # names that nothing further down adds to
        opaque: set[bytes] = set()
        with ExitStack() as opened:
            out = opened.enter_context(_opened(self._target, folder.path))
            for number in folder.trees:
                with _opened(self._trees[number], folder.path) as fd, os.scandir(fd) as entries:
                    for entry in entries:
                        name = os.fsencode(entry.name)
                        if name in closed:
                            continue
                        if entry.is_dir(follow_symlinks=False):
                            folders.setdefault(name, []).append(number)
                            if self._is_opaque(fd, name):
                                closed.add(name)
                                opaque.add(name)
                        elif name in folders:  # a folder took the place of what this was
                            closed.add(name)
                            opaque.add(name)
                        else:
                            closed.add(name)
                            self._take(fd, out, entry, folder.path)
            for name, trees in folders.items():
                os.mkdir(name, 0o700, dir_fd=out)
                path = folder.path + b"/" + name if folder.path else name
                self._todo.append(_Merged(path, tuple(trees), name in opaque))

    def _take(self, source: int, out: int, entry: os.DirEntry[str], folder: bytes) -> None:
        name = os.fsencode(entry.name)
        whiteout = _may_be_whiteout(entry) and overlay.is_whiteout(entry.stat(follow_symlinks=False))
        if whiteout and self._lowest:
            return
        if self._copied is None:
            self._link(source, out, name, whiteout=whiteout)
        elif whiteout:
            overlay.make_whiteout(out, entry.name)
        else:
            self._copy(source, out, name, folder + b"/" + name if folder else name)

    def _copy(self, source: int, out: int, name: bytes, path: bytes) -> None:
        assert self._copied is not None
        self._copied.note(copy_entry(source, out, name, userxattr=self._userxattr), path)

    def _link(self, source: int, out: int, name: bytes, *, whiteout: bool) -> None:
        try:
            os.link(name, name, src_dir_fd=source, dst_dir_fd=out, follow_symlinks=False)
        except OSError as error:
            # One whiteout with many names is what the kernel makes, up to as many as there can be.
            if error.errno != errno.EMLINK or not whiteout:
                raise
            overlay.make_whiteout(out, os.fsdecode(name))

    def _is_opaque(self, fd: int, name: bytes) -> bool:
        with _opened(fd, name) as child:
            return overlay.is_opaque(child, userxattr=self._userxattr)

    def _finish(self, folder: _Merged) -> None:
        with (
            _opened(self._trees[folder.trees[0]], folder.path) as like,
            _opened(self._target, folder.path) as made,
        ):
            info = os.fstat(like)
            overlay.copy_metadata(like, made, userxattr=self._userxattr)
            if self._copied is not None and not folder.opaque:
                self._keep_origin(folder, made)
            if folder.opaque and not self._lowest:
                overlay.set_opaque(made, userxattr=self._userxattr)
            os.utime(made, ns=(info.st_atime_ns, info.st_mtime_ns))

    def _keep_origin(self, folder: _Merged, made: int) -> None:
        """Let a folder go on saying of which one beneath all layers it was a copy: the lowest of them knows."""
        key = overlay.xattr_name("origin", userxattr=self._userxattr)
        with _opened(self._trees[folder.trees[-1]], folder.path) as lowest, suppress(OSError):
            os.setxattr(made, key, os.getxattr(lowest, key))


def _may_be_whiteout(entry: os.DirEntry[str]) -> bool:
    """Say whether an entry that is no folder may be a device, by what its folder says of it."""
    return not entry.is_file(follow_symlinks=False) and not entry.is_symlink()


@contextmanager
def _opened(root: int, path: bytes) -> Iterator[int]:
    fd = open_beneath(root, path, _FOLDER)
    try:
        yield fd
    finally:
        os.close(fd)
