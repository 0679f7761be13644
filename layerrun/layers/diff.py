"""What an upper changes over the merged layers beneath it.

    A  there is something where there was nothing; in a new folder, one for each entry
    M  the content of a file, the target of a link or the number of a device is another
    D  it is gone; for a folder that is gone as a whole, one
    T  it is of another type; below a new folder each entry is an A
    P  only metadata: mode, owner, extended attributes and, folders apart, the time of modification

What was merely copied up and is as before is no change: contents are compared byte by byte. A
folder's own time says only that its entries changed, so it does not count. Nor do overlayfs's
private attributes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence

from layerrun.changes import Change, FileType
from layerrun.layers.between import Row, Stacks, rows
from layerrun.layers.delta import Delta, unpack
from layerrun.native import trees

__all__ = ["change_of", "deltas", "diff_upper"]

_TYPES = {kind.value: kind for kind in FileType}


def diff_upper(
    upper_fd: int,
    lower_fds: Sequence[int],
    *,
    userxattr: bool,
    skip: Iterable[str] = (),
    roots: Iterable[str] = (),
    cross_mounts: bool = False,
) -> Iterator[Change]:
    """Yield the changes, folder by folder, in bytewise order of names within each.

    Args:
        upper_fd: the upper, an open folder.
        lower_fds: what lies beneath, topmost first; they may be layers with whiteouts of their own.
        userxattr: the flavour of overlayfs attributes, see `layerrun.layers.overlay`.
        skip: paths as seen inside that are left out with all beneath them.
        roots: paths whose metadata do not count, since layerrun made them; ``/`` is the root.
        cross_mounts: the lowest lower has mounts in it (the machine's own ``/``).

    Raises:
        layerrun.errors.SystemError: something could not be read; ESTALE if it changes meanwhile.
    """
    yield from map(
        change_of,
        rows(
            Stacks((), (upper_fd,), lower_fds),
            userxattr=userxattr,
            cross_mounts=cross_mounts,
            skip=map(_relative, skip),
            roots=map(_relative, roots),
        ),
    )


def change_of(row: Row) -> Change:
    """Return a row of `layerrun.layers.between.rows` as a change."""
    letter, has_new, has_old, mode, size, old_mode, old_size, path = row
    return Change(
        change=chr(letter),
        path="/" + path,
        type=_type(mode) if has_new else None,
        size=(size if stat.S_ISREG(mode) else 0) if has_new else None,
        old_type=_type(old_mode) if has_old else None,
        old_size=(old_size if stat.S_ISREG(old_mode) else 0) if has_old else None,
    )


def deltas(
    upper_fd: int,
    lower_fds: Sequence[int],
    *,
    userxattr: bool,
    skip: Iterable[str] = (),
    roots: Iterable[str] = (),
    cross_mounts: bool = False,
) -> Iterator[Delta]:
    """Yield what `diff_upper` gives, in its order, with both sides in full, and the entries that are as beneath.

    Arguments and errors are those of `diff_upper`. What is in ``roots`` is given, as `Delta.root`.
    """
    runs = trees.deltas(
        upper_fd,
        lower_fds,
        userxattr=userxattr,
        skip=[_relative(path) for path in skip],
        roots=[_relative(path) for path in roots],
        cross_mounts=cross_mounts,
    )
    for data in runs:
        yield from unpack(data)


def _relative(path: str) -> bytes:
    return os.fsencode(path.strip("/"))


def _type(mode: int) -> FileType:
    return _TYPES[trees.type_name(mode)]
