"""What a channel offers, made a base: fetched, checked against what is signed, imported beside the one in use."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs
from tuf.api import exceptions

from layerrun.errors import TrustError
from layerrun.fleet import following, trust
from layerrun.fleet.release import Delta, Image, Release
from layerrun.model import Base
from layerrun.store.channel_rows import Channel
from layerrun.store.fs import explain
from layerrun.store.store import Store

__all__ = ["News", "check", "fetched", "get"]

# How long a file may take, in seconds; between two parts of it no more than `trust.QUIET`.
_HOURS = 12 * 3600

Progress = Callable[[int, int], None]


@attrs.frozen
class News:
    """What a channel offers to a base: ``done`` is the sequence that it has, 0 of a base that is not there yet."""

    channel: Channel
    release: Release
    done: int

    @property
    def new(self) -> bool:
        """Whether the base is behind."""
        return self.release.sequence > self.done


def check(store: Store, name: str) -> News:
    """Ask the channel of a base what there is; nothing but what was learnt is kept."""
    channel = following.channel_of(store, name)
    with following.locked(store, name) as fd:
        return _news(store, channel, following.news(store, channel, fd))


def _news(store: Store, channel: Channel, release: Release) -> News:
    """Compare what is offered with what is there; a base that was removed has nothing."""
    there = store.catalog.base(channel.slot) is not None
    return News(channel, release, int(channel.state.get("done", 0)) if there else 0)


def get(store: Store, news: News, *, progress: Progress | None = None) -> Base:
    """Import what a channel offers as the first version of a base that is not there yet."""
    from layerrun.bases import tree

    name, image = news.channel.slot, news.release.image
    with fetched(store, news.channel.url, image, progress) as path:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            made = tree.import_tar(store, name, fd, f"{news.channel.url}/{image.file}", progress=progress)
        finally:
            os.close(fd)
    following.note(store, name, {"done": news.release.sequence})
    return made


@contextmanager
def fetched(store: Store, url: str, what: Image | Delta, progress: Progress | None = None) -> Iterator[str]:
    """Fetch a file of a channel into the store for a while; give its path. It is the one that is signed."""
    with store.ticket() as ticket:
        path = os.path.join(store.path, "staging", ticket.id, "file" + _ending(what.file))
        with explain("fetch", what.file), open(path, "wb") as file, trust.told(url):
            digest, count = hashlib.sha256(), 0
            for chunk in trust.Fetcher(_HOURS).fetch(f"{url}/{what.file}"):
                count += len(chunk)
                if count > what.size:
                    raise exceptions.DownloadLengthMismatchError
                digest.update(chunk)
                file.write(chunk)
                if progress is not None:
                    progress(0, count)
        if f"sha256:{digest.hexdigest()}" != what.digest:
            raise TrustError(
                f"{url}/{what.file} is not the file that is signed",
                hint="nothing was changed here; try again later",
            )
        yield path


def _ending(name: str) -> str:
    """Return ``.tar.zst`` of a name in files/, whose first part is a digest."""
    return "".join(os.path.basename(name).partition(".")[1:])
