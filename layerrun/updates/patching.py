"""Bases from deltas: the old base and a delta become the stream of records of the new one.

What a delta says is hostile until it is shown to be right: the file has its checksum, its bytes are decompressed in a
jail, its listing must have the digest that it promises and every content the digest of the listing.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from layerrun.bases.intake import scheme_of
from layerrun.errors import ArchiveError, NotFoundError
from layerrun.model import Base, BaseKind, IdMode
from layerrun.native.jail import run_jailed
from layerrun.store.fs import DIR_FLAGS, explain
from layerrun.updates.deltafile import Head, check_sum, read_head
from layerrun.updates.owners import as_owner

if TYPE_CHECKING:
    from layerrun.images.stream import Feed
    from layerrun.store.store import Store

__all__ = ["DeltaSource", "delta_source"]

# Bytes of memory and seconds of a processor that decompressing may take, and files it may have open.
_RLIMITS = {"RLIMIT_AS": 1 << 30, "RLIMIT_CPU": 3600, "RLIMIT_NOFILE": 64, "RLIMIT_FSIZE": 0}


def delta_source(store: Store, path: str, name: str | None = None) -> DeltaSource:
    """Return the source that the delta in the file ``path`` is; close it in the end.

    Versions of the base ``name`` are looked at first. Raises `ArchiveError` where it is damaged or none,
    `NotFoundError` where the base that it is for is not in the store.
    """
    with explain("open", path):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        head = read_head(fd)
        check_sum(fd, head)
        return DeltaSource(store, fd, os.path.realpath(path), head, _old(store, head, path, name))
    except BaseException:
        os.close(fd)
        raise


def _old(store: Store, head: Head, path: str, name: str | None) -> Base:
    known = store.catalog.versions()
    fit = [base for base in known if base.digest == head.old and base.kind is BaseKind.TREE]
    if fit:
        return min(fit, key=lambda base: (base.name != name, base.name, base.version))
    shown = next((base for base in (store.catalog.base(name) if name else None,) if base), None)
    about = "" if shown is None else f"; {shown.full_name} is {shown.digest}"
    raise NotFoundError(
        f"the delta {path!r} is for a base that is not here: {head.old}{about}",
        hint="`layerrun base list --json` tells the digests of those that are; the whole new base needs no old one",
    )


class DeltaSource:
    """A delta over a base of the store, as a `layerrun.images.stream.Source`.

    ``expected`` is the digest that the new base must turn out to have; ``old`` the base that the delta is for.
    """

    knows = True  # the records of known files are made here, not by what has read the delta

    def __init__(self, store: Store, fd: int, path: str, head: Head, old: Base) -> None:
        self._store, self._fd, self._head = store, fd, head
        self.text = path
        self.old = old
        self.expected = head.new

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def ids(self, *, rootless: bool) -> IdMode:  # noqa: ARG002  (the old base has been chosen for already)
        """The new base keeps owners as the old one does."""
        assert self.old.ids is not None
        return self.old.ids

    def feed(self, to: Feed) -> Mapping[str, Any]:
        """Write the stream of the new base. Raises `ArchiveError`, and `DamagedError` of the old base."""
        orders, ordering = os.pipe()
        answering, content = os.pipe()
        ours = [ordering, answering]
        with (
            tempfile.TemporaryFile(dir=os.path.join(self._store.path, "staging")) as spool,
            ThreadPoolExecutor(1) as pool,
        ):
            decoding = pool.submit(_decode, to, self._fd, orders, content)
            try:
                self._apply([self._fd, to.out, *ours, spool.fileno()], to)
            except ArchiveError as error:
                _close(ours)
                raise decoding.exception() or error from None  # the jail knows better what is wrong
            except OSError as error:
                if error.errno != errno.EPIPE:  # what takes the stream in has ended, and says why itself
                    raise
            finally:
                _close(ours)
            decoding.result()
        return dict(self._head.origin)

    def _apply(self, handed: Sequence[int], to: Feed) -> None:
        os.close(self._store.open_base(self.old))
        with ExitStack() as stack:
            fds = []
            for name in (f"bases/{self.old.id}", "objects"):
                fds.append(os.open(name, DIR_FLAGS, dir_fd=self._store.fd))
                stack.callback(os.close, fds[-1])
            fds[1:1] = handed
            function = "layerrun.updates.applying:apply_here"
            as_owner(self._store, (self.old,), function, fds, scheme_of(to.ids), to.entries, to.size, fds=fds)


def _decode(to: Feed, delta: int, orders: int, content: int) -> None:
    """Run the jail until it ends; its ends of the pipes are closed then, so that who waits for it learns of it."""
    try:
        run_jailed(
            "layerrun.updates.decoding:decode_here",
            folder=None,
            pass_fds=(delta, orders, content),
            uid_map=to.uid_map,
            gid_map=to.gid_map,
            mapped=to.mapped,
            limits=_RLIMITS,
        )
    finally:
        _close([orders, content])


def _close(fds: list[int]) -> None:
    while fds:
        os.close(fds.pop())
