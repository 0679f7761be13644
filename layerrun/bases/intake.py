"""Taking trees into the store, whatever they come from: docs/store.md, objects.

A source (`layerrun.images.stream.Source`) writes a stream into a pipe, in a thread; another thread, or for a plain user
a helper in a user namespace, makes of it a tree of links to objects, and its manifest. The caller's thread
passes on how far it is. Nothing is in its place before `keep`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

import attrs

from layerrun.bases import recording
from layerrun.bases.manifest import Progress, Summary
from layerrun.bases.taking import GoneError, Maps, Run
from layerrun.errors import ArchiveError, ExistsError, UsageError
from layerrun.images.stream import Feed, Layered, Source
from layerrun.model import Base, BaseKind, IdMode
from layerrun.native.subids import id_maps, subids
from layerrun.native.syscalls import syncfs
from layerrun.store.fs import explain, fsync_dir, make_dir, open_dir, present
from layerrun.store.staging import Ticket, new_id
from layerrun.store.store import Store, now
from layerrun.store.uids import COUNT, for_helpers, taken_elsewhere

__all__ = [
    "ENTRIES",
    "SIZE",
    "import_base",
    "keep",
    "known_layers",
    "maps",
    "publish",
    "renew_objects",
    "scheme_of",
    "settle",
    "take_in",
]

# How much may come in: bytes of files, holes counted, and entries.
SIZE = 64 << 30
ENTRIES = 2_000_000
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def import_base(
    store: Store,
    name: str,
    source: Source,
    *,
    size: int = SIZE,
    entries: int = ENTRIES,
    progress: Progress | None = None,
    version: bool = False,
) -> Base:
    """Take a root file system into the store as the first version of the base ``name``; with ``version`` as its next.

    The next version (`BaseRows.add_next_version`) does not become the current one; a version that has this content is
    returned as it is. An update holds the lock of updates meanwhile.

    ``progress`` is called now and then with the entries and the bytes taken in so far. Importing the same tree under
    the same name again makes nothing and returns the base that is there. Raises `ExistsError` when the name stands for
    another tree, `UsageError` when the source holds no root file system, `ArchiveError` when it holds what it must not.
    """
    recording.check_new(name)
    ids = source.ids(rootless=store.rootless)
    with store.ticket(ids) as ticket:
        summary, origin = take_in(
            store, ticket.fd, "base", source, ids, size=size, entries=entries, progress=progress
        )
        base = Base(
            id=new_id(),
            name=name,
            kind=BaseKind.TREE,
            digest=summary.digest,
            ids=ids,
            source=source.text,
            created=now(),
            entries=summary.entries,
            size=summary.size,
            origin=origin,
        )
        return settle(store, ticket, base, version=version)


def settle(store: Store, ticket: Ticket, base: Base, *, version: bool) -> Base:
    """Make the folder ``base`` of a ticket durable and known as ``base``, or with ``version`` as the next of its name.

    A base that is there already with this content is returned as it is. Raises `ExistsError` as `import_base` does.
    """
    known = partial(recording.known, store, base.name, str(base.digest), version=version)
    there = known()
    if there is not None:
        return there
    try:
        return _record(store, ticket, base, version=version)
    except ExistsError:  # another import of the name was quicker
        there = known()
        if there is None:
            raise
        return there


def _record(store: Store, ticket: Ticket, base: Base, *, version: bool) -> Base:
    place = f"bases/{base.id}"
    with explain("write the base", base.name):
        keep(store, ticket, "base", place)
    try:
        with store.catalog.transaction():
            return recording.add(store, base, version=version)
    except BaseException:
        os.rename(place, "base", src_dir_fd=store.fd, dst_dir_fd=ticket.fd)
        raise


def keep(store: Store, ticket: Ticket, folder: str, place: str) -> None:
    """Make what was staged durable, its objects everybody's, and move ``folder`` to ``place`` in the store."""
    # Once for all files: neither a row nor an object may vouch for what is not on the disk.
    syncfs(ticket.fd)
    publish(store, ticket.fd)
    os.rename(folder, place, src_dir_fd=ticket.fd, dst_dir_fd=store.fd)
    fsync_dir(store.fd, os.path.dirname(place))


def publish(store: Store, ticket_fd: int) -> None:
    """Let every import find the objects and the records of layers in a ticket; they are durable by now."""
    from layerrun.native.intake import keep_objects

    with ExitStack() as stack:
        if present(ticket_fd, "objects"):
            keep_objects(_opened(stack, ticket_fd, "objects"), _opened(stack, store.fd, "objects"))
        if present(ticket_fd, "records"):
            fresh = _opened(stack, ticket_fd, "records")
            records = _opened(stack, store.fd, "records", make=True)
            for name in os.listdir(fresh):
                os.rename(name, name, src_dir_fd=fresh, dst_dir_fd=records)


def renew_objects(store: Store, ticket: Ticket) -> None:
    """Put what `take_in` made ``anew`` in the place of objects that may be spoilt; it is durable already."""
    with ExitStack() as stack:
        fresh, objects = _opened(stack, ticket.fd, "objects"), _opened(stack, store.fd, "objects")
        for name in os.listdir(fresh):
            if name.startswith("."):
                continue
            for rest in os.listdir(_opened(stack, fresh, name)):
                with suppress(FileNotFoundError):
                    os.rename(f"{name}/{rest}", f"{name}/{rest}", src_dir_fd=fresh, dst_dir_fd=objects)


def scheme_of(ids: IdMode) -> str:
    """Return what owners on disk mean; it is part of an object's name."""
    return "owners" if ids in (IdMode.RANGE, IdMode.NONE) else ids.value


def maps(store: Store, ids: IdMode) -> Maps:
    """Return the maps of user and group ids, of (inside, outside, count), by which to work on files of a mode.

    A root store's are for helpers on hostile input: ids that nobody has.
    """
    if ids in (IdMode.RANGE, IdMode.NONE):
        lines = ((0, for_helpers(store.catalog.uid_starts(), taken_elsewhere()), COUNT),)
        return lines, lines
    found = subids() if ids is IdMode.SUBIDS else None
    if found is None:
        return ((0, os.geteuid(), 1),), ((0, os.getegid(), 1),)
    uids, gids = id_maps(found)
    return tuple(uids), tuple(gids)


def take_in(
    store: Store,
    ticket_fd: int,
    folder: str,
    source: Source,
    ids: IdMode,
    *,
    size: int = SIZE,
    entries: int = ENTRIES,
    progress: Progress | None = None,
    rooted: bool = True,
    anew: bool = False,
    marks: bool = False,
) -> tuple[Summary, Mapping[str, Any]]:
    """Make of a source ``tree``, ``manifest`` and ``links`` in the new ``folder`` of a ticket; see `keep`.

    ``rooted``: it must be a root file system. ``anew``: with no object that is there already.
    ``marks``: it is to lie above others, and its whiteouts become overlayfs's. Returns what the manifest covers, and
    what the source says of itself.
    """
    uid_map, gid_map = maps(store, ids)
    vouched = bool(getattr(source, "vouched", False))
    scheme = scheme_of(ids)
    given = {
        "scheme": scheme,
        "owners": not ids.one_owner,
        "devices": vouched and not store.rootless,
        "strict": not vouched,
        "known": vouched or getattr(source, "knows", False),
        "ids": 0 if vouched else COUNT if ids.one_owner else sum(line[2] for line in uid_map),
        "entries": entries,
        "size": size,
        "marks": (2 if store.rootless else 1) if marks else 0,
    }
    feed = Feed(
        out=-1,
        ids=ids,
        uid_map=uid_map,
        gid_map=gid_map,
        mapped=ids is IdMode.RANGE,
        size=size,
        entries=entries,
        known=frozenset() if anew else known_layers(store, scheme),
    )
    take = partial(
        _take, store, (ticket_fd, folder), source, given, progress=progress, rooted=rooted, anew=anew
    )
    try:
        return take(feed)
    except GoneError:
        # Objects of a layer whose record is there have gone; the source has to tell it all. What there is may belong to
        # subordinate ids: it goes with the ticket.
        for name in (folder, "objects", "records"):
            with suppress(FileNotFoundError):
                os.rename(name, f"{name}.gone", src_dir_fd=ticket_fd, dst_dir_fd=ticket_fd)
        return take(attrs.evolve(feed, known=frozenset()))


def known_layers(store: Store, scheme: str) -> frozenset[str]:
    """Return the keys of the layers of images whose records the store has, for what `scheme_of` gives."""
    try:
        names = os.listdir(f"{store.path}/records")
    except FileNotFoundError:
        return frozenset()
    return frozenset(name.removesuffix(f".{scheme}") for name in names if name.endswith(f".{scheme}"))


def _take(
    store: Store,
    place: tuple[int, str],
    source: Source,
    given: Mapping[str, Any],
    feed: Feed,
    *,
    progress: Progress | None,
    rooted: bool,
    anew: bool,
) -> tuple[Summary, Mapping[str, Any]]:
    with ExitStack() as stack:
        with explain("stage", source.text):
            fds = _stage(store, *place, stack)
        if anew:
            fds["objects"] = fds["fresh"]
        # Records are for sources that say beforehand which layers come: who writes a stream is not believed.
        plan = source.plan(feed.known) if isinstance(source, Layered) else ()
        if not feed.known or not plan:
            fds["records"] = -1
        if not plan:
            fds["layers"] = -1
        lines = "".join(f"{step.what}{step.name}\n" for step in plan)
        run = Run(
            source, {**given, **fds, "plan": lines}, (feed.uid_map, feed.gid_map), rootless=store.rootless
        )
        taken, origin = run.run(feed, progress)
        expected = getattr(source, "expected", None)
        if expected is not None and taken.digest != expected:
            raise ArchiveError(
                f"{source.text!r} made {taken.digest}, and it should be {expected}",
                hint="nothing of it was kept",
            )
        if rooted and not _is_root(fds["tree"]):
            raise UsageError(
                f"{source.text!r} does not look like a root file system: it has neither usr nor bin",
                hint="its paths must begin at the root, as `tar -C TREE -c .` writes them",
            )
    return Summary(taken.digest, taken.entries, taken.size), origin


def _opened(stack: ExitStack, dir_fd: int, name: str, *, make: bool = False) -> int:
    if make and not present(dir_fd, name):
        with suppress(FileExistsError):
            make_dir(dir_fd, name)
    fd = open_dir(dir_fd, name)
    stack.callback(os.close, fd)
    return fd


def _stage(store: Store, ticket_fd: int, folder: str, stack: ExitStack) -> dict[str, Any]:
    """Make what is written to; return descriptors by the names of `layerrun.native.intake.Options`."""
    at = _opened(stack, ticket_fd, folder, make=True)
    make_dir(at, "tree", 0o755)
    given: dict[str, Any] = {
        "tree": _opened(stack, at, "tree"),
        "fresh": _opened(stack, ticket_fd, "objects", make=True),
        "objects": _opened(stack, store.fd, "objects", make=True),
        "records": _opened(stack, store.fd, "records", make=True),
        "layers": _opened(stack, ticket_fd, "records", make=True),
    }
    for name in ("manifest", "links"):
        given[name] = os.open(name, _NEW, 0o600, dir_fd=at)
        stack.callback(os.close, given[name])
    return given


def _is_root(tree: int) -> bool:
    # No list of names: a plain user may not read what belongs to a subordinate id.
    for name in ("usr", "bin"):
        with suppress(OSError):
            os.stat(name, dir_fd=tree, follow_symlinks=False)
            return True
    return False
