"""Putting right what `layerrun.bases.tree.verify` found, from a source that has it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from layerrun.bases.intake import renew_objects, take_in
from layerrun.bases.manifest import Progress, escape
from layerrun.bases.opening import FileSystem, Wanted, open_source
from layerrun.bases.tree import Problem, in_userns, verify
from layerrun.errors import ConflictError, NotFoundError, UsageError
from layerrun.images.limits import Limits
from layerrun.images.stream import Source
from layerrun.model import Base, BaseKind
from layerrun.native import trees
from layerrun.native.syscalls import RENAME_EXCHANGE, renameat2, syncfs
from layerrun.store import spares
from layerrun.store.fs import DIR_FLAGS, explain, open_dir
from layerrun.store.store import Store

__all__ = ["repair"]


def repair(
    store: Store, base: Base, source: str, *, progress: Progress | None = None
) -> tuple[list[Problem], list[Problem]]:
    """Put right what is not as it was imported; return what was wrong, and what still is.

    ``source`` is what `layerrun.bases.opening.open_source` knows. It is taken in whole, and believed only as far as its
    digests go: if its tree is the base's, that takes the place of the base's in one step. Else what it has as the
    base's manifest wants it is put back entry by entry, and what was added is removed. No app may run on this version
    meanwhile: `BusyError`; the caller holds the lock of updates. Raises `ConflictError` if the source was taken in by
    other ids than the base, `UsageError` for an image that is kept as it is.
    """
    found = verify(store, base)
    if not found:
        return [], []
    if base.kind is BaseKind.IMAGE:
        raise UsageError(
            f"{base.full_name} is an image that is kept as it is, of which no part can be put right",
            hint=f"layerrun base update {base.name} --from SRC",
        )
    # What is as large as the base may come in, whatever it was imported with.
    options = Wanted(unpack=True, limits=Limits(size=max(Limits().size, 2 * (base.size or 0))))
    with open_source(store, source, options) as opened:
        assert not isinstance(opened, FileSystem)
        return found, _from(store, base, found, opened, most=options.most(opened), progress=progress)


def _from(
    store: Store,
    base: Base,
    found: Sequence[Problem],
    source: Source,
    *,
    most: tuple[int, int],
    progress: Progress | None,
) -> list[Problem]:
    """Put right what was found from a source of at most so many bytes and entries; return what is still wrong."""
    if base.ids is not source.ids(rootless=store.rootless):
        raise ConflictError(
            f"{source.text!r} would have other owners than base {base.name!r} ({base.ids})",
            hint="name the source that the base came from, or one of its kind",
        )
    with _nobody_runs(store, base), store.ticket(base.ids) as ticket:
        assert base.ids is not None
        summary, _ = take_in(
            store,
            ticket.fd,
            "base",
            source,
            base.ids,
            size=most[0],
            entries=most[1],
            progress=progress,
            rooted=False,
            anew=True,
        )
        with explain("repair the base", base.name), ExitStack() as stack:
            place = open_dir(store.fd, f"bases/{base.id}")
            stack.callback(os.close, place)
            staged = open_dir(ticket.fd, "base")
            stack.callback(os.close, staged)
            syncfs(ticket.fd)
            if summary.digest == base.digest:
                renameat2(staged, "tree", place, "tree", RENAME_EXCHANGE)
                os.fsync(place)
                left = verify(store, base)
            else:
                left = _by_entries(store, base, found, staged, place)
            renew_objects(store, ticket)
    return left


def _by_entries(store: Store, base: Base, found: Sequence[Problem], staged: int, place: int) -> list[Problem]:
    """Put entries back for as long as that helps: a folder comes with all in it, which may be too much."""
    left = list(found)
    for _ in range(4):
        before = left
        _entry_by_entry(store, base, before, staged, place)
        left = verify(store, base)
        if not left or left == before:
            break
    return left


@contextmanager
def _nobody_runs(store: Store, base: Base) -> Iterator[None]:
    """Hold the locks of all that stands on this version of the base, or was moved off it and may still run on it."""
    for name in (base.name, base.full_name):
        spares.drop_idle(store, name)
    moved = store.catalog.users_of_base(base.id)
    with ExitStack() as stack:
        for app in store.catalog.apps():
            if app.base_id == base.id or app.id in moved:
                with suppress(NotFoundError):  # removed meanwhile
                    stack.callback(store.app_lock(app, f"repair base {base.full_name}").release)
        yield


def _entry_by_entry(store: Store, base: Base, found: Sequence[Problem], staged: int, place: int) -> None:
    wanted, there = _lines(place, found), _lines(staged, found)
    back = [one.path for one in found if one.kind != "added" and wanted.get(one.path) == there.get(one.path)]
    gone = [one.path for one in found if one.kind == "added"]
    if store.rootless:
        in_userns(base.ids, f"{__name__}:put_back_here", staged, place, back, gone, fds=(staged, place))
    else:
        put_back_here(staged, place, back, gone)
    syncfs(place)


def _lines(folder: int, found: Sequence[Problem]) -> dict[str, bytes]:
    """Return the lines of a manifest for the paths that something is wrong with."""
    paths = {escape(os.fsencode(one.path[1:]) or b"."): one.path for one in found}
    lines = {}
    with open(os.open("manifest", os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder), "rb") as file:
        next(file)
        for line in file:
            path = paths.get(line.split(b" ", 6)[5].rstrip(b"\n"))
            if path is not None:
                lines[path] = line
    return lines


def put_back_here(staged: int, place: int, back: Sequence[str], gone: Sequence[str]) -> None:
    """Move entries from one folder's tree to the other's, and remove others; what the worker calls.

    Each is one rename. A folder is put back only where there is none; what cannot be is left to be found again.
    """
    source, tree = os.open("tree", DIR_FLAGS, dir_fd=staged), os.open("tree", DIR_FLAGS, dir_fd=place)
    try:
        for path in gone:
            with _around(tree, path) as (at, name):
                trees.remove_tree(at, name)
        for path in back:
            with suppress(OSError), _around(source, path) as (there, name), _around(tree, path) as (at, _):
                os.rename(name, name, src_dir_fd=there, dst_dir_fd=at)
    finally:
        os.close(source)
        os.close(tree)


@contextmanager
def _around(tree: int, path: str) -> Iterator[tuple[int, bytes]]:
    """Open the folder that an entry is in; give that and its name."""
    folder, _, name = os.fsencode(path[1:]).rpartition(b"/")
    fd = trees.open_beneath(tree, folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield fd, name
    finally:
        os.close(fd)
