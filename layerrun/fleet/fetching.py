"""Fetching the files of a channel: the archives and the deltas that its documents name by digest."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO

from tuf.api import exceptions

from layerrun.errors import TrustError
from layerrun.fleet import trust
from layerrun.fleet.release import Delta, Image
from layerrun.store.fs import explain

__all__ = ["Progress", "fetched"]

# How long a file may take, in seconds; between two parts of it no more than `trust.QUIET`.
_WHOLE = 12 * 3600

Progress = Callable[[int, int], None]


@contextmanager
def fetched(fd: int, url: str, what: Image | Delta, progress: Progress | None = None) -> Iterator[str]:
    """Fetch a file of a channel for a while; give its path. It is the one that is signed.

    ``fd`` is the channel's folder, from `layerrun.fleet.following.locked`: what came before an interruption stays in
    there and is not fetched again. ``progress`` is called with 0 entries and the bytes that came. Raises `TrustError`,
    `UnreachableError`.
    """
    name = "file-" + what.digest.removeprefix("sha256:") + _ending(what.file)
    for left in os.listdir(fd):
        if left.startswith("file-") and left != name:  # of a release that is not wanted any more
            os.unlink(left, dir_fd=fd)
    with explain("fetch", what.file), trust.told(url):
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(name, flags, 0o600, dir_fd=fd), "r+b") as file:
            found = _fetch(file, f"{url}/{what.file}", what.size, progress)
    if found != what.digest:
        os.unlink(name, dir_fd=fd)
        raise TrustError(
            f"{url}/{what.file} is not the file that is signed",
            hint="nothing was changed here; try again later",
        )
    yield os.path.join(os.readlink(f"/proc/self/fd/{fd}"), name)
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=fd)


def _fetch(file: IO[bytes], url: str, size: int, progress: Progress | None) -> str:
    """Fetch what is missing of a file; return the digest of the whole. What is longer than ``size`` is thrown away."""
    digest, count = hashlib.sha256(), 0
    while data := file.read(1 << 20):
        digest.update(data)
        count += len(data)
    if count >= size > 0:
        file.truncate(0 if count > size else count)
        return f"sha256:{digest.hexdigest()}"
    start, chunks = trust.Fetcher(_WHOLE).fetch_from(url, count)
    if start != count:  # the server knows of no parts
        digest, count = hashlib.sha256(), 0
        file.seek(0)
        file.truncate()
    for chunk in chunks:
        count += len(chunk)
        if count > size:
            file.truncate(0)
            raise exceptions.DownloadLengthMismatchError
        digest.update(chunk)
        file.write(chunk)
        if progress is not None:
            progress(0, count)
    return f"sha256:{digest.hexdigest()}"


def _ending(name: str) -> str:
    """Return ``.tar.zst`` of a name in files/, whose first part is a digest."""
    return "".join(os.path.basename(name).partition(".")[1:])
