"""Letting what lies beneath an upper show through again at chosen paths, exactly there.

Where a folder of the upper is opaque (or a whiteout stands for a whole folder), the chosen path is
hidden by something above it. Such a folder is opened up: first everything else it hides gets a
whiteout or an opaque folder of its own, then its mark goes. At no step does anything show that
should not, so being killed halfway costs nothing.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from layerrun import errors
from layerrun.layers import overlay
from layerrun.layers.globs import Globs, States
from layerrun.native import syscalls, trees

__all__ = ["restore_paths"]

_FOLDER = os.O_RDONLY | os.O_DIRECTORY

# The folders that lowers show merged under a name, as their numbers, top first; None: no folder.
Shown = dict[str, tuple[int, ...] | None]


class _Folder(NamedTuple):
    """A folder of the upper that is still to be looked at."""

    path: str
    states: States
    lowers: tuple[int, ...]
    opaque: bool


def restore_paths(
    upper_fd: int,
    lower_fds: Sequence[int],
    globs: Iterable[str],
    trash_fd: int,
    *,
    userxattr: bool,
    cross_mounts: bool = False,
) -> list[str]:
    """Take back what an upper changes at the paths that match, a matching folder with all in it.

    Nobody may have the upper mounted. Entries are moved into the trash under fresh names; removing
    them is for the caller.

    Args:
        upper_fd: the upper, an open folder.
        lower_fds: what lies beneath, topmost first.
        globs: patterns of absolute paths as seen inside, see `layerrun.layers.globs`.
        trash_fd: an open folder on the upper's file system.
        userxattr: the flavour of overlayfs attributes.
        cross_mounts: the lowest lower has mounts in it.

    Returns:
        The paths, sorted, topmost only.

    Raises:
        UsageError: a pattern makes no sense; nothing was done.
        layerrun.errors.SystemError: a system call failed; what was done so far holds.
    """
    work = _Restore(
        upper_fd, lower_fds, Globs(globs), trash_fd, userxattr=userxattr, cross_mounts=cross_mounts
    )
    return sorted(work.run())


class _Restore:
    def __init__(
        self,
        upper_fd: int,
        lower_fds: Sequence[int],
        globs: Globs,
        trash_fd: int,
        *,
        userxattr: bool,
        cross_mounts: bool,
    ) -> None:
        self._upper = upper_fd
        self._lowers = lower_fds
        self._globs = globs
        self._trash = trash_fd
        self._userxattr = userxattr
        self._cross = cross_mounts
        self._todo: list[_Folder] = []
        self._done: list[str] = []

    def run(self) -> list[str]:
        self._todo.append(_Folder("", self._globs.start(), tuple(range(len(self._lowers))), opaque=False))
        while self._todo:
            folder = self._todo.pop()
            try:
                self._look_into(folder)
            except errors.LayerrunError:
                raise
            except OSError as error:
                path = "/" + folder.path
                raise errors.SystemError(
                    f"cannot restore in {path}: {error.strerror}", errno=error.errno or 0, path=path
                ) from error
        return self._done

    def _look_into(self, folder: _Folder) -> None:
        with _opened(self._upper, folder.path) as fd:
            names = sorted(os.listdir(fd))
            opening = folder.opaque and self._hides_a_match(folder)
            if opening:
                shown = self._shown(folder.path, folder.lowers)
                for name in sorted(set(shown) - set(names)):
                    self._uncover(folder, fd, name, shown[name])
            elif folder.opaque:
                shown = {}  # it goes on hiding all: only entries of the upper can match
            else:
                shown = self._shown(folder.path, folder.lowers, only=names)
            for name in names:
                self._entry(folder, fd, name, shown, opening=opening)
            if opening:
                overlay.clear_opaque(fd, userxattr=self._userxattr)

    def _uncover(self, folder: _Folder, fd: int, name: str, lowers: tuple[int, ...] | None) -> None:
        """Prepare for a name that an opaque folder hides and the upper does not have."""
        states = self._globs.step(folder.states, name)
        path = _join(folder.path, name)
        inside = _Folder(path, states, lowers or (), opaque=True)
        if self._globs.matches(states):
            self._done.append("/" + path)
        elif lowers and self._hides_a_match(inside):
            self._make_opaque_folder(fd, inside, name, replace=False)
            self._todo.append(inside)
        else:
            overlay.make_whiteout(fd, name)

    def _entry(self, folder: _Folder, fd: int, name: str, shown: Shown, *, opening: bool) -> None:
        """Deal with an entry that the upper has."""
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        states = self._globs.step(folder.states, name)
        path = _join(folder.path, name)
        lowers = shown.get(name) or ()
        whiteout = overlay.is_whiteout(status)
        if self._globs.matches(states):
            if whiteout:
                os.unlink(name, dir_fd=fd)
            else:
                self._throw_away(fd, name, status)
            if not whiteout or name in shown:
                self._done.append("/" + path)
        elif whiteout:
            inside = _Folder(path, states, lowers, opaque=True)
            if lowers and self._hides_a_match(inside):
                self._make_opaque_folder(fd, inside, name, replace=True)
                self._todo.append(inside)
        elif stat.S_ISDIR(status.st_mode):
            opaque = False
            if lowers:
                with _opened(fd, name) as child:
                    if opening:
                        overlay.set_opaque(child, userxattr=self._userxattr)
                    opaque = opening or overlay.is_opaque(child, userxattr=self._userxattr)
            if states:
                self._todo.append(_Folder(path, states, lowers, opaque))

    def _hides_a_match(self, folder: _Folder) -> bool:
        """Say whether anything that the lowers have inside a folder matches."""
        todo = [folder] if folder.states else []
        while todo:
            at = todo.pop()
            for name, lowers in self._shown(at.path, at.lowers).items():
                states = self._globs.step(at.states, name)
                if self._globs.matches(states):
                    return True
                if states and lowers:
                    todo.append(_Folder(_join(at.path, name), states, lowers, opaque=False))
        return False

    def _shown(self, path: str, lowers: tuple[int, ...], only: Iterable[str] | None = None) -> Shown:
        """Return what the merged lowers show in a folder; of ``only`` those names, or of all."""
        found: dict[str, list[int] | None] = {}
        closed: set[str] = set()
        for number in lowers:
            with self._lower(number, path) as fd:
                for name in os.listdir(fd) if only is None else only:
                    if name in closed:
                        continue
                    try:
                        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    if stat.S_ISDIR(status.st_mode):
                        merged = found.setdefault(name, [])
                        assert merged is not None
                        merged.append(number)
                        if number != lowers[-1] and self._is_opaque(fd, name):
                            closed.add(name)
                        continue
                    closed.add(name)
                    if name not in found and not overlay.is_whiteout(status):
                        found[name] = None
        return {name: None if merged is None else tuple(merged) for name, merged in found.items()}

    def _is_opaque(self, fd: int, name: str) -> bool:
        with _opened(fd, name) as child:
            return overlay.is_opaque(child, userxattr=self._userxattr)

    def _lower(self, number: int, path: str) -> contextlib.AbstractContextManager[int]:
        cross = self._cross and number == len(self._lowers) - 1
        return _opened(self._lowers[number], path, cross_mounts=cross)

    def _make_opaque_folder(self, fd: int, folder: _Folder, name: str, *, replace: bool) -> None:
        """Put an empty folder that looks like the lowers' but hides all in them, in one step."""
        fresh = secrets.token_hex(8)
        os.mkdir(fresh, 0o700, dir_fd=self._trash)
        with _opened(self._trash, fresh) as made, self._lower(folder.lowers[0], folder.path) as like:
            overlay.copy_metadata(like, made, userxattr=self._userxattr)
            overlay.set_opaque(made, userxattr=self._userxattr)
        if replace:
            syscalls.renameat2(self._trash, fresh, fd, name, syscalls.RENAME_EXCHANGE)
            os.unlink(fresh, dir_fd=self._trash)
        else:
            os.rename(fresh, name, src_dir_fd=self._trash, dst_dir_fd=fd)

    def _throw_away(self, fd: int, name: str, status: os.stat_result) -> None:
        fresh = secrets.token_hex(8)
        try:
            os.rename(name, fresh, src_dir_fd=fd, dst_dir_fd=self._trash)
        except PermissionError:
            # A folder that changes its parent must be writable itself: its ".." is rewritten.
            if not stat.S_ISDIR(status.st_mode) or status.st_mode & stat.S_IWUSR:
                raise
            with _opened(fd, name) as child:
                os.fchmod(child, 0o700)
            os.rename(name, fresh, src_dir_fd=fd, dst_dir_fd=self._trash)


@contextlib.contextmanager
def _opened(root_fd: int, path: str, *, cross_mounts: bool = False) -> Iterator[int]:
    fd = trees.open_beneath(root_fd, os.fsencode(path), _FOLDER, cross_mounts=cross_mounts)
    try:
        yield fd
    finally:
        os.close(fd)


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
