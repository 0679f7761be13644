"""What differs between two stacks of layers that stand on common ones: two apps, an app and a snapshot of it.

The letters are those of `layerrun.layers.diff`, from the old side to the new one. The cost is that of the layers that
are not common, whatever lies beneath them.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from layerrun.layers.delta import Stat
from layerrun.native import ffi, lib, new_error, raise_error

__all__ = ["Difference", "Row", "Stacks", "differences", "rows"]

# The letter's number, whether there is a new side and an old one, mode and size of either, the relative path.
Row = tuple[int, int, int, int, int, int, int, str]

_SIDE = "8I3Q2q"
_HEAD = struct.Struct(f"=4B2I{_SIDE}{_SIDE}")
# The same records, of which only the letter, what is there, and mode and size of both sides are taken.
_BRIEF = struct.Struct("=3Bx8x" + 2 * "I28x16xQ16x")


class Stacks(NamedTuple):
    """Open layers, each list top first: those of either side alone, and the common ones beneath, the base last."""

    old: Sequence[int]
    new: Sequence[int]
    common: Sequence[int]

    @property
    def all(self) -> list[int]:
        """All of them: what `Difference.layer` and ``old_layer`` are places in."""
        return [*self.old, *self.new, *self.common]


class Difference(NamedTuple):
    """A difference with both of its sides.

    ``path`` is relative to the root, in the bytes of the file system. ``layer`` and ``old_layer`` are places in
    `Stacks.all`: where ``new`` and ``old`` are; -1 where there is none.
    """

    letter: str
    path: bytes
    new: Stat | None
    old: Stat | None
    layer: int
    old_layer: int


def rows(stacks: Stacks, **options: Any) -> Iterator[Row]:
    """Yield what a list shows, with the options of `differences`, and several times as fast."""
    for heads, paths in _runs(stacks, **options):
        # All at once: a NUL is part of no other character, whatever bytes are in the names.
        names = os.fsdecode(paths).split("\0")
        for head, path in zip(_BRIEF.iter_unpack(heads), names, strict=False):
            yield *head, path


def differences(stacks: Stacks, **options: Any) -> Iterator[Difference]:
    """Yield the differences, folder by folder, in bytewise order of names within each.

    Args:
        stacks: the layers.
        options: ``userxattr``, the flavour of overlayfs's attributes; ``cross_mounts``, whether the last layer may have
            mounts in it; ``deep``, whether what is in a folder that is gone is told entry by entry, too; ``skip``,
            paths that are left out with all beneath them; ``roots``, paths whose metadata do not count; ``only``,
            paths beneath which alone is looked (a folder on the way is given only where it is gone). Paths are
            relative, in bytes.

    Raises:
        layerrun.errors.SystemError: something could not be read; ESTALE if it changes meanwhile.
    """
    for heads, paths in _runs(stacks, **options):
        for head, path in zip(_HEAD.iter_unpack(heads), paths.split(b"\0"), strict=False):
            letter, has_new, has_old, _, layer, old_layer = head[:6]
            yield Difference(
                chr(letter),
                path,
                _stat(head[6:19]) if has_new else None,
                _stat(head[19:]) if has_old else None,
                layer if has_new else -1,
                old_layer if has_old else -1,
            )


def _stat(values: tuple[int, ...]) -> Stat:
    mode, uid, gid, rdev_major, rdev_minor, dev_major, dev_minor, nlink, ino, mount, size, mtime, ctime = (
        values
    )
    rdev, dev = os.makedev(rdev_major, rdev_minor), os.makedev(dev_major, dev_minor)
    return Stat(mode, uid, gid, rdev, ino, dev, mount, nlink, size, mtime, ctime, 0)


def _runs(
    stacks: Stacks,
    *,
    userxattr: bool,
    cross_mounts: bool = False,
    deep: bool = False,
    skip: Iterable[bytes] = (),
    roots: Iterable[bytes] = (),
    only: Iterable[bytes] = (),
) -> Iterator[tuple[bytes, bytes]]:
    """Yield the runs that C makes: records of fixed size, and their paths, each ended by a NUL."""
    # cffi keeps nothing alive that C points to: these names do, until the walk is closed.
    lists = [[ffi.new("char[]", path) for path in sorted(set(paths))] for paths in (skip, roots, only)]
    arrays = [ffi.new("const char *[]", items) for items in lists]
    counted = [value for array, items in zip(arrays, lists, strict=True) for value in (array, len(items))]
    options = ffi.new("struct lr_between_options *", (userxattr, cross_mounts, deep, *counted))
    err, run = new_error(), ffi.new("struct lr_run *")
    handle = lib.lr_between_open(stacks.all, [len(side) for side in stacks], options, err)
    if handle == ffi.NULL:
        raise_error(err)
    try:
        while True:
            if lib.lr_between_next(handle, run, err) < 0:
                raise_error(err)
            if run.heads_size == 0:
                return
            yield (
                bytes(ffi.buffer(run.heads, run.heads_size)),
                bytes(ffi.buffer(run.paths, run.paths_size)),
            )
    finally:
        lib.lr_between_close(handle)
