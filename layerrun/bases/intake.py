"""Taking trees into the store, whatever they come from: docs/store.md, objects.

A source (`layerrun.images.stream.Source`) writes a stream into a pipe, in a thread; another thread, or for a plain user
a helper in a user namespace, makes of it a tree of links to objects, and its manifest. The caller's thread
passes on how far it is. Nothing is in its place before `keep`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import attrs

from layerrun.bases.manifest import Progress, Summary
from layerrun.errors import ArchiveError, ExistsError, LayerrunError, SystemError, UsageError
from layerrun.images.stream import Feed, Source
from layerrun.model import HOST_BASE, Base, BaseKind, IdMode, check_name
from layerrun.native.subids import id_maps, subids
from layerrun.native.syscalls import syncfs
from layerrun.store.fs import explain, fsync_dir, make_dir, open_dir, present
from layerrun.store.staging import Ticket, new_id
from layerrun.store.store import Store, now
from layerrun.store.uids import COUNT, for_helpers, taken_elsewhere

if TYPE_CHECKING:
    from layerrun.native.intake import Taken

__all__ = ["ENTRIES", "SIZE", "import_base", "keep", "maps", "record", "renew_objects", "take_in"]

# How much may come in: bytes of files, holes counted, and entries.
SIZE = 64 << 30
ENTRIES = 2_000_000
_PIPE = 1 << 20
_OBJECT = 64 + 1 + 16  # bytes of an object's name
_PAIR = struct.Struct("=QQ")
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
Maps = tuple[tuple[tuple[int, int, int], ...], tuple[tuple[int, int, int], ...]]


def import_base(
    store: Store,
    name: str,
    source: Source,
    *,
    size: int = SIZE,
    entries: int = ENTRIES,
    progress: Progress | None = None,
) -> Base:
    """Take a root file system into the store as the first version of the base ``name``.

    ``progress`` is called now and then with the entries and the bytes taken in so far. Importing the same tree under
    the same name again makes nothing and returns the base that is there. Raises `ExistsError` when the name stands for
    another tree, `UsageError` when the source holds no root file system, `ArchiveError` when it holds what it must not.
    """
    if check_name(name, "name of a base") == HOST_BASE:
        raise UsageError("the base 'host' is the machine's own / and cannot be imported")
    ids = source.ids(rootless=store.rootless)
    with store.ticket(ids) as ticket:
        summary, origin = take_in(
            store, ticket.fd, "base", source, ids, size=size, entries=entries, progress=progress
        )
        known = store.catalog.base(name)
        if known is not None:
            return _same(known, summary)
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
        try:
            record(store, ticket, base, lambda: store.catalog.add_base(base))
        except ExistsError:
            known = store.catalog.base(name)  # another import of the name was quicker
            if known is None:
                raise
            return _same(known, summary)
        return base


def _same(known: Base, summary: Summary) -> Base:
    if known.digest == summary.digest:
        return known
    raise ExistsError(
        f"there is a base {known.name!r} already, with another content ({known.digest})",
        hint="choose another name, update it, or remove that one first",
    )


def record(store: Store, ticket: Ticket, base: Base, add: Callable[[], None]) -> None:
    """Make the staged ``base`` durable and known: ``add`` writes its rows, within a transaction."""
    place = f"bases/{base.id}"
    with explain("write the base", base.name):
        keep(store, ticket, "base", place)
    try:
        with store.catalog.transaction():
            add()
    except BaseException:
        os.rename(place, "base", src_dir_fd=store.fd, dst_dir_fd=ticket.fd)
        raise


def keep(store: Store, ticket: Ticket, folder: str, place: str) -> None:
    """Make what `take_in` staged durable, its objects everybody's, and move ``folder`` to ``place`` in the store."""
    from layerrun.native.intake import keep_objects

    # Once for all files: neither a row nor an object may vouch for what is not on the disk.
    syncfs(ticket.fd)
    with ExitStack() as stack:
        keep_objects(_opened(stack, ticket.fd, "objects"), _opened(stack, store.fd, "objects"))
    os.rename(folder, place, src_dir_fd=ticket.fd, dst_dir_fd=store.fd)
    fsync_dir(store.fd, os.path.dirname(place))


def renew_objects(store: Store, ticket: Ticket) -> None:
    """Put what `take_in` made ``anew`` in the place of objects that may be spoilt; it is durable already."""
    with ExitStack() as stack:
        fresh, objects = _opened(stack, ticket.fd, "objects"), _opened(stack, store.fd, "objects")
        for name in os.listdir(fresh):
            if len(name) == _OBJECT:
                with suppress(FileNotFoundError):
                    os.rename(name, f"{name[:2]}/{name[2:]}", src_dir_fd=fresh, dst_dir_fd=objects)


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
) -> tuple[Summary, Mapping[str, Any]]:
    """Make of a source ``tree``, ``manifest`` and ``links`` in the new ``folder`` of a ticket; see `keep`.

    ``rooted``: it must be a root file system. ``anew``: with no object that is there already. Returns what the
    manifest covers, and what the source says of itself.
    """
    with ExitStack() as stack:
        with explain("stage", source.text):
            given = _stage(store, ticket_fd, folder, stack)
            if anew:
                given["objects"] = given["fresh"]
        vouched = bool(getattr(source, "vouched", False))
        uid_map, gid_map = maps(store, ids)
        given |= {
            "scheme": "owners" if ids in (IdMode.RANGE, IdMode.NONE) else ids.value,
            "owners": ids is not IdMode.SINGLE,
            "devices": vouched and not store.rootless,
            "strict": not vouched,
            "ids": 0 if vouched else COUNT if ids is IdMode.SINGLE else sum(line[2] for line in uid_map),
            "entries": entries,
            "size": size,
            "marks": 0,
        }
        run = _Run(source, given, (uid_map, gid_map), rootless=store.rootless)
        feed = Feed(
            out=-1,
            ids=ids,
            uid_map=uid_map,
            gid_map=gid_map,
            mapped=ids is IdMode.RANGE,
            size=size,
            entries=entries,
        )
        taken, origin = run.run(feed, progress)
        expected = getattr(source, "expected", None)
        if expected is not None and taken.digest != expected:
            raise ArchiveError(
                f"{source.text!r} made {taken.digest}, and it should be {expected}",
                hint="nothing of it was kept",
            )
        if rooted and not _is_root(given["tree"]):
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
        "records": -1,
        "layers": -1,
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


class _Run:
    """One intake: its pipes and its threads."""

    def __init__(self, source: Source, given: Mapping[str, Any], maps: Maps, *, rootless: bool) -> None:
        self._source, self._given, self._maps, self._rootless = source, given, maps, rootless
        self._origin: Mapping[str, Any] = {}
        self._failed: BaseException | None = None  # the source
        self._taken: Taken | None = None
        self._broke: BaseException | None = None  # what takes in

    def run(self, feed: Feed, progress: Progress | None) -> tuple[Taken, Mapping[str, Any]]:
        stream, out = os.pipe()
        cancel, cancelling = os.pipe()
        ahead, progressing = os.pipe()
        with suppress(OSError):  # more than a plain user may have
            fcntl.fcntl(out, fcntl.F_SETPIPE_SZ, _PIPE)
        os.set_blocking(stream, False)
        os.set_blocking(progressing, False)
        threads = [
            threading.Thread(target=self._feed, args=(attrs.evolve(feed, out=out),), daemon=True),
            threading.Thread(target=self._take, args=(stream, cancel, progressing), daemon=True),
        ]
        try:
            for thread in threads:
                thread.start()
            while data := os.read(ahead, _PAIR.size * 64):
                if progress is not None and len(data) >= _PAIR.size:
                    progress(*_PAIR.unpack(data[-_PAIR.size :]))
            for thread in reversed(threads):
                thread.join()
        except BaseException:
            # Interrupted: nothing may be written any more to what is about to be removed.
            os.write(cancelling, b"x")
            threads[1].join(10.0)
            raise
        finally:
            os.close(cancelling)
            os.close(ahead)
            os.close(cancel)
        return self._outcome(), self._origin

    def _feed(self, feed: Feed) -> None:
        try:
            self._origin = self._source.feed(feed)
        except BaseException as error:  # noqa: BLE001  (it is raised in the caller's thread)
            self._failed = error
        finally:
            os.close(feed.out)

    def _take(self, stream: int, cancel: int, progress: int) -> None:
        values = {**self._given, "stream": stream, "cancel": cancel, "progress": progress}
        try:
            if self._rootless:
                from layerrun.native.intake import Taken
                from layerrun.native.worker import run_in_userns

                fds = [value for name, value in values.items() if name in _FDS and value >= 0]
                answer = run_in_userns(
                    f"{__name__}:take_here",
                    values,
                    uid_map=self._maps[0],
                    gid_map=self._maps[1],
                    pass_fds=fds,
                )
                error = answer.pop("error")
                self._taken = Taken(**answer, error=tuple(error) if error else None)
            else:
                from layerrun.native.intake import Options, take

                self._taken = take(Options(**values))
        except BaseException as error:  # noqa: BLE001
            self._broke = error
        finally:
            os.close(stream)  # the source gets EPIPE
            os.close(progress)

    def _outcome(self) -> Taken:
        """Return what came of it, or raise the error that came first."""
        failed, taken = self._failed, self._taken
        if isinstance(failed, OSError) and failed.errno == errno.EPIPE:
            failed = None
        if taken is None:
            raise self._broke if self._broke is not None else failed or RuntimeError("nothing came of it")
        cut = taken.error is not None and taken.error[:2] == (errno.EBADMSG, _CUT)
        if failed is not None and (taken.error is None or cut):
            raise failed
        if taken.error is not None:
            raise _error(self._source.text, *taken.error)
        return taken


# What lr_intake says when the stream ends before its end.
_CUT = "ends too soon"
_FDS = {
    "stream",
    "cancel",
    "progress",
    "tree",
    "objects",
    "fresh",
    "records",
    "layers",
    "manifest",
    "links",
}


def take_here(values: dict[str, Any]) -> dict[str, Any]:
    """Take a stream in, as the worker calls it."""
    from layerrun.native.intake import Options, take

    return attrs.asdict(take(Options(**values)))


def _error(text: str, code: int, step: str, path: str) -> LayerrunError:
    """Return the error of `take` as an exception."""
    shown = ascii(path)[1:-1] if not path.isprintable() else path
    if code == errno.EBADMSG:
        about = f"the archive's entry {shown!r}" if path else "the archive"
        return ArchiveError(f"{about} {step}", hint="nothing of it was kept")
    if code == errno.ENODATA:
        return ArchiveError(f"an object for {shown!r} is gone", hint="try again")
    return SystemError(
        f"cannot {step}{f' {shown}' if path else ''}: {os.strerror(code)}",
        errno=code,
        path=path or None,
        hint="free some space, or put the store elsewhere with LAYERRUN_STORE"
        if code in (errno.ENOSPC, errno.EDQUOT)
        else None,
    )


@attrs.frozen
class FolderSource:
    """A root file system in a folder, whose owner vouches for it; ``fd`` is open for as long as it is used."""

    fd: int
    text: str
    vouched: bool = True

    def ids(self, *, rootless: bool) -> IdMode:
        """Choose whose ids the copy keeps: all (root), the caller's and its subordinate ones, or none.

        Subordinate ids serve where the tree's root folder belongs to one of them or to the caller; a tree
        whose owners the caller cannot map (root's own) would have them all as nobody.
        """
        if not rootless:
            return IdMode.RANGE
        found = subids()
        owner = os.fstat(self.fd).st_uid
        if found is not None and (owner == os.geteuid() or found[0] <= owner < found[0] + found[2]):
            return IdMode.SUBIDS
        return IdMode.SINGLE

    def feed(self, to: Feed) -> Mapping[str, Any]:
        """Write the tree; a folder says nothing of itself."""
        from layerrun.native.intake import emit_tree

        own = stat.S_ISDIR(os.fstat(self.fd).st_mode) and os.fstat(self.fd).st_uid == os.geteuid()
        if to.mapped or (to.ids is IdMode.SINGLE and not own):
            emit_tree(self.fd, to.out)
            return {}
        from layerrun.native.worker import run_in_userns

        # Also where all is the caller's own: only a root of sorts can read a folder of mode 0000.
        run_in_userns(
            f"{__name__}:emit_here",
            self.fd,
            to.out,
            uid_map=to.uid_map,
            gid_map=to.gid_map,
            pass_fds=(self.fd, to.out),
        )
        return {}


def emit_here(fd: int, out: int) -> None:
    """Write a tree as a stream, as the worker calls it."""
    from layerrun.native.intake import emit_tree

    emit_tree(fd, out)
