"""What a channel offers, made a base: fetched, checked against what is signed, imported beside the one in use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import attrs

from layerrun.errors import (
    ArchiveError,
    BusyError,
    DamagedError,
    HealthError,
    NotFoundError,
    TrustError,
    UnreachableError,
)
from layerrun.fleet import following
from layerrun.fleet.fetching import Progress, fetched
from layerrun.fleet.release import Delta, Image, Release
from layerrun.model import Base
from layerrun.store.channel_rows import Channel
from layerrun.store.store import Store

if TYPE_CHECKING:
    from layerrun.updates.switching import Switched
    from layerrun.updates.update import Found

__all__ = ["News", "Wanted", "apply", "check", "get"]


@attrs.frozen
class News:
    """What a channel offers to a base, which has the release number ``done``, 0 if it is not there yet.

    ``failed`` is the number of one that did not pass its checks. ``staged``: a version waits for the next start.
    """

    channel: Channel
    release: Release
    done: int
    failed: int = 0
    staged: bool = False

    @property
    def state(self) -> str:
        """``current``, ``staged``, ``failed`` (did not pass, and is not tried again unasked) or ``available``."""
        if self.release.sequence <= self.done:
            return "staged" if self.staged else "current"
        return "failed" if self.release.sequence == self.failed else "available"


@attrs.frozen
class Wanted:
    """How to get it. ``stage``: the switch is left to the next start. ``checks``, ``timeout``: as for `base update`."""

    stage: bool = False
    checks: Sequence[str] = ()
    timeout: float = 60.0


def check(store: Store, name: str) -> News:
    """Ask the channel of a base what there is; nothing but what was learnt is kept."""
    with following.locked(store, name) as (fd, channel):
        return _news(store, channel, following.news(store, channel, fd))


def _news(store: Store, channel: Channel, release: Release) -> News:
    """Compare what is offered with what is there; a base that was removed has nothing."""
    slot = store.catalog.slot(channel.slot)
    if slot is None:
        return News(channel, release, 0)
    done, failed = (int(channel.state.get(key, 0)) for key in ("done", "failed"))
    return News(channel, release, done, failed, slot.staged is not None)


def get(
    store: Store,
    news: News,
    wanted: Wanted,
    *,
    progress: Progress | None = None,
    agree: Callable[[Found], bool],
    told: Callable[[str], None],
) -> tuple[str, Found | None, Switched | None]:
    """Make what a channel offers the current version of its base, or stage it; a base that is not there is imported.

    Return ``imported``, ``updated``, ``staged`` or ``current`` (the same content was there already), what was found and
    the switch. Raises as `layerrun.updates.update.update`, and `BusyError` if the base follows something else, or its
    channel has something newer, than when ``news`` was asked for: after a failure of any kind the base is as it was.
    """
    from layerrun.updates.update import Wanted as Asked
    from layerrun.updates.update import update

    name = news.channel.slot
    with following.locked(store, name) as (fd, channel):
        _check_same(news, channel)
        if store.catalog.slot(name) is None:
            _import(store, fd, news, progress)
            return "imported", None, None
        asked = Asked(checks=tuple(wanted.checks), timeout=wanted.timeout, stage=wanted.stage)
        try:
            found, switched = update(
                store, name, lambda: _bring(store, fd, news, progress), asked, agree=agree, told=told
            )
        except HealthError:
            following.note(store, name, {"failed": news.release.sequence})
            raise
        following.note(store, name, {"done": news.release.sequence, "failed": None})
    if switched is not None:
        return "updated", found, switched
    return "staged" if found.new.id != found.old.id else "current", found, None


def _check_same(news: News, channel: Channel) -> None:
    """Raise `BusyError` unless a channel is as it was when it was asked for ``news``."""
    before, now = (
        (one.url, *(one.state.get(key) for key in ("channel", "arch", "root")))
        for one in (news.channel, channel)
    )
    if before != now or channel.state.get("sequence") != news.release.sequence:
        raise BusyError(
            f"what {channel.slot!r} follows was changed by another process meanwhile", hint="try again"
        )


def apply(store: Store, name: str) -> Switched | None:
    """Switch a base to what is staged for it now; ``None`` if nothing is."""
    from layerrun.updates.update import apply_staged

    return apply_staged(store, name)


def _import(store: Store, fd: int, news: News, progress: Progress | None) -> None:
    from layerrun.bases import versions

    made = _take(store, fd, news, news.release.image, progress, version=False)
    try:
        _check_tree(news, made)
    except TrustError:
        versions.remove(store, made.name)
        raise
    _remember(store, news, made)
    following.note(store, made.name, {"done": news.release.sequence, "failed": None})


def _bring(store: Store, fd: int, news: News, progress: Progress | None) -> Base:
    """Import a release as the next version of its base, from a delta if there is one for a version that is there."""
    there = {base.digest for base in store.catalog.versions(news.channel.slot)}
    made = None
    for delta in news.release.deltas:
        if delta.old in there:
            # Whatever is wrong with it, or with the version that it is for, the whole is as good.
            with suppress(ArchiveError, DamagedError, NotFoundError, TrustError, UnreachableError):
                made = _next(store, fd, news, delta, progress)
                break
    if made is None:
        made = _next(store, fd, news, news.release.image, progress)
    _remember(store, news, made)
    return made


def _next(store: Store, fd: int, news: News, what: Image | Delta, progress: Progress | None) -> Base:
    from layerrun.bases import versions

    made = _take(store, fd, news, what, progress, version=True)
    try:
        _check_tree(news, made)
    except TrustError:
        slot = store.catalog.slot(made.name)
        if slot is not None and slot.pending == made.id:
            versions.take_back(store, made)
        raise
    return made


def _take(
    store: Store, fd: int, news: News, what: Image | Delta, progress: Progress | None, *, version: bool
) -> Base:
    """Import what a release names: an image of a registry, or a file, which is fetched first."""
    from layerrun.updates.sources import bring

    name = news.channel.slot
    if isinstance(what, Image) and what.reference:
        arch = news.release.arch
        return bring(store, name, what.reference, platform=arch, progress=progress, version=version)
    with fetched(fd, news.channel.url, what, progress) as path:
        return bring(store, name, path, progress=progress, version=version)


def _check_tree(news: News, made: Base) -> None:
    """Raise `TrustError` if the tree is not the one that is signed."""
    if news.release.tree not in (None, made.digest):
        raise TrustError(
            f"what channel {news.release.channel!r} offers as {news.release.version} has the digest {made.digest},"
            f" and {news.release.tree} is signed",
            hint="tell whoever runs the channel; nothing was changed here",
        )


def _remember(store: Store, news: News, made: Base) -> None:
    """Record where a version comes from: not from a file in the store that is gone by then."""
    release = news.release
    channel = {
        "url": news.channel.url,
        "name": release.channel,
        "arch": release.arch,
        "version": release.version,
        "sequence": release.sequence,
    }
    source = release.image.reference or f"{news.channel.url}/{release.image.file}"
    with store.catalog.transaction():
        store.catalog.set_origin(made.id, source, {**made.origin, "channel": channel})
