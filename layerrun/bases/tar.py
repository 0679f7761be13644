"""Bases from tar archives. The archive is unpacked in a jail; what came of that is looked at here, and not believed."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import attrs

from layerrun.bases.manifest import Progress, Summary, write_manifest
from layerrun.bases.unpack import Limits, is_kept
from layerrun.errors import ArchiveError, UsageError
from layerrun.model import IdMode
from layerrun.native import trees
from layerrun.native.jail import run_jailed
from layerrun.native.subids import id_maps, subids
from layerrun.native.worker import run_in_userns
from layerrun.store.fs import DIR_FLAGS, explain, make_dir
from layerrun.store.uids import COUNT, for_helpers, taken_elsewhere

if TYPE_CHECKING:
    from layerrun.store.store import Store

__all__ = ["fill_from_tar", "id_mode"]

_TYPES = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO)
# Bytes of memory and seconds of a processor that unpacking may take, and files it may have open.
_RLIMITS = {"RLIMIT_AS": 2 << 30, "RLIMIT_CPU": 4 * 3600, "RLIMIT_NOFILE": 64}


def id_mode(store: Store) -> IdMode:
    """Choose whose ids an archive keeps: all (root), subordinate ones where there are any, or just the caller's."""
    if not store.rootless:
        return IdMode.RANGE
    return IdMode.SINGLE if subids() is None else IdMode.SUBIDS


def fill_from_tar(
    store: Store,
    ids: IdMode,
    archive: int,
    *,
    folder: str,
    base_fd: int,
    limits: Limits,
    progress: Progress | None,
) -> Summary:
    """Unpack to ``tree`` in the folder ``base_fd``, whose path is ``folder``; write its ``manifest`` beside it."""
    with explain("make the base"):
        make_dir(base_fd, "tree", 0o755)
    uids, gids = _maps(store, ids)
    limits = attrs.evolve(limits, ids=COUNT if ids is IdMode.SINGLE else sum(line[2] for line in uids))
    owners = ids is not IdMode.SINGLE
    run_jailed(
        "layerrun.bases.unpack:unpack_here",
        attrs.asdict(limits),
        owners,
        folder=os.path.join(folder, "tree"),
        pass_fds=(archive,),
        uid_map=uids,
        gid_map=gids,
        mapped=ids is IdMode.RANGE,
        limits={**_RLIMITS, "RLIMIT_FSIZE": limits.size},
    )
    if ids is IdMode.RANGE:
        return _seal(base_fd, limits, progress)
    values = run_in_userns(
        f"{__name__}:seal_here",
        base_fd,
        attrs.asdict(limits),
        uid_map=uids,
        gid_map=gids,
        pass_fds=(base_fd,),
    )
    return Summary(*values)


def _maps(store: Store, ids: IdMode) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]:
    if ids is IdMode.RANGE:
        lines = [(0, for_helpers(store.catalog.uid_starts(), taken_elsewhere()), COUNT)]
        return lines, lines
    found = subids() if ids is IdMode.SUBIDS else None
    return ([(0, os.geteuid(), 1)], [(0, os.getegid(), 1)]) if found is None else id_maps(found)


def seal_here(base_fd: int, limits: dict[str, int]) -> list[str | int]:
    """`_seal`, as the worker calls it."""
    return list(attrs.astuple(_seal(base_fd, Limits(**limits), None)))


def _seal(base_fd: int, limits: Limits, progress: Progress | None) -> Summary:
    """Look through what came out, and write its manifest: the archive may have taken over what unpacked it."""
    tree = os.open("tree", DIR_FLAGS, dir_fd=base_fd)
    try:
        _look_through(tree, limits)
        return write_manifest(tree, base_fd, "manifest", progress)
    finally:
        os.close(tree)


def _look_through(tree: int, limits: Limits) -> None:
    names = set(os.listdir(tree))
    if not {"usr", "bin"} & names:
        raise UsageError(
            "the archive does not look like a root file system: it has neither usr nor bin",
            hint="its paths must begin at the root, as `tar -C TREE -c .` writes them",
        )
    if any(
        os.fsencode(key) != b"security.selinux" and not is_kept(os.fsencode(key))
        for key in os.listxattr(tree)
    ):
        raise ArchiveError("the archive's root came out with a strange attribute")
    size = 0
    for count, entry in enumerate(trees.list_tree(tree), 1):
        size += entry.size if entry.type == "file" else 0
        wrong = (
            stat.S_IFMT(entry.mode) not in _TYPES
            or not (0 <= entry.uid < limits.ids and 0 <= entry.gid < limits.ids)
            or any(key != b"security.selinux" and not is_kept(key) for key in entry.xattrs)
            or size > limits.size
            or count > 2 * limits.entries  # folders that no header names are made as well
        )
        if wrong:
            raise ArchiveError(
                f"the archive's entry {os.fsdecode(entry.path)!r} came out as what it must not be"
            )
