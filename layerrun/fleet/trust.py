"""Asking a channel what is current, believing only what is signed: python-tuf's client over http(s) or a folder.

The rules are those of the TUF specification (theupdateframework.github.io/specification/latest, 5): the root's keys
vouch for all others, nothing may be older than what was seen before, nothing may have expired, and all that is read
is of one state of the repository. How far a follower is lies in a folder that the caller keeps.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from tuf.api import exceptions
from tuf.api.metadata import Metadata, Root
from tuf.ngclient import FetcherInterface, Updater
from tuf.ngclient.config import UpdaterConfig
from tuf.ngclient.urllib3_fetcher import Urllib3Fetcher

from layerrun import __version__
from layerrun.errors import TrustError, UnreachableError, UsageError
from layerrun.fleet.release import LIMIT, Release, target_path
from layerrun.images.proxies import make_pool

__all__ = ["Fetcher", "ask", "check_url", "fetch_root", "fingerprint", "root_keys", "told"]

# Between two parts of an answer, and for a whole piece of metadata, in seconds.
QUIET = 20
WHOLE = 120

_CONFIG = UpdaterConfig(
    max_root_rotations=1024, max_delegations=8, root_max_length=512_000, targets_max_length=2_000_000
)


class _Pools:
    """What python-tuf's fetcher sends requests by: a pool of connections for each host."""

    def __init__(self) -> None:
        self._pools: dict[tuple[str, str], Any] = {}

    def request(self, method: str, url: str, *, headers: Mapping[str, str] | None = None, **more: Any) -> Any:
        parts = urlsplit(url)
        place = parts.scheme, parts.netloc.rpartition("@")[2]
        if place not in self._pools:
            self._pools[place] = make_pool(*place)
        sent = {"User-Agent": f"layerrun/{__version__}", **(headers or {})}
        return self._pools[place].request(method, url, headers=sent, **more)


class _Web(Urllib3Fetcher):
    """python-tuf's own fetcher, which would wait until a whole chunk has come: that can be dripped for ever.

    Proxies are those of registries: python-tuf knows neither their passwords nor networks in NO_PROXY.
    """

    def __init__(self) -> None:
        super().__init__(socket_timeout=QUIET, chunk_size=1 << 18)
        self._proxy_env = cast("Any", _Pools())

    def _chunks(self, response: Any) -> Iterator[bytes]:
        try:
            while data := response.read1(self.chunk_size):
                yield data
        finally:
            response.close()

    def fetch_from(self, url: str, start: int) -> tuple[int, Iterator[bytes]]:
        """Ask for the rest of a file; return where the answer begins, and it."""
        try:
            response = self._proxy_env.request(
                "GET",
                url,
                preload_content=False,
                timeout=QUIET,
                headers={"Range": f"bytes={start}-", "Accept-Encoding": "identity"},
            )
        except Exception as error:  # as python-tuf does for the whole of a file
            raise exceptions.DownloadError(str(error)) from error
        if response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            return start, self._chunks(response)
        if response.status >= 300:
            response.close()
            raise exceptions.DownloadHTTPError(f"status {response.status}", response.status)
        return 0, self._chunks(response)


class Fetcher(FetcherInterface):
    """Fetches by http, https, or from a folder (``file``); ``seconds`` is how long one answer may take as a whole."""

    def __init__(self, seconds: float | None = None) -> None:
        self._seconds = WHOLE if seconds is None else seconds
        self._web = _Web()

    def _fetch(self, url: str) -> Iterator[bytes]:
        if urlsplit(url).scheme != "file":
            return self._in_time(self._web.fetch(url))
        try:
            # A fifo in its place would be waited for.
            fd = os.open(unquote(urlsplit(url).path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise exceptions.DownloadHTTPError(f"there is no {url}", 404) from error
        return self._local(fd)

    def fetch_from(self, url: str, start: int) -> tuple[int, Iterator[bytes]]:
        """Fetch a file from its byte ``start`` on; return where the answer begins: 0 if the server knows no parts."""
        if urlsplit(url).scheme == "file" or not start:
            chunks = self.fetch(url)
            return 0, chunks
        first, chunks = self._web.fetch_from(url, start)
        return first, self._in_time(chunks)

    def _local(self, fd: int) -> Iterator[bytes]:
        with os.fdopen(fd, "rb") as file:
            while data := file.read(1 << 18):
                yield data

    def _in_time(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Pass an answer on; a server that sends a byte now and then is not waited for without end."""
        end = time.monotonic() + self._seconds
        try:
            for chunk in chunks:
                if time.monotonic() > end:
                    raise exceptions.SlowRetrievalError
                yield chunk
        except (exceptions.DownloadError, GeneratorExit):
            raise
        except Exception as error:  # urllib3's; python-tuf translates what comes before the first byte alone
            if "timed out" in str(error):
                raise exceptions.SlowRetrievalError from error
            raise exceptions.DownloadError(str(error)) from error


def check_url(text: str) -> str:
    """Return the address of a repository without a slash at its end; a folder becomes a ``file`` address."""
    parts = urlsplit(text)
    if parts.scheme in ("http", "https"):
        # A name and a password would be read by any proxy, and are none of TUF's.
        if not parts.hostname or parts.query or parts.fragment or parts.username is not None:
            raise UsageError(
                f"{text!r} is no address of a channel", hint="such as https://example.org/channel"
            )
        return text.rstrip("/")
    path = unquote(parts.path) if parts.scheme == "file" else text
    if parts.scheme not in ("", "file") or not os.path.isdir(path):
        raise UsageError(
            f"{text!r} is no address of a channel", hint="name a folder, or https://… or http://…"
        )
    from urllib.request import pathname2url

    return "file://" + pathname2url(os.path.realpath(path))


def _why(error: BaseException) -> str:
    """Return the reason beneath urllib3's errors; python-tuf takes a refused connection for a slow one."""
    cause = getattr(error.__cause__, "reason", error.__cause__)
    return "" if cause is None else str(cause).rpartition(": ")[2]


@contextmanager
def told(url: str) -> Iterator[None]:
    """Turn python-tuf's errors into layerrun's."""
    try:
        yield
    except exceptions.DownloadLengthMismatchError as error:
        raise TrustError(
            f"{url} sends more than what is signed, or than any channel needs", hint=_TELL
        ) from error
    except exceptions.SlowRetrievalError as error:
        why = _why(error)
        said = f"cannot be asked: {why}" if why and "timed out" not in why else "sends too slowly"
        raise UnreachableError(f"{url} {said}", hint="check the address and the network") from error
    except exceptions.DownloadHTTPError as error:
        raise UnreachableError(
            f"{url} does not have what a channel has: status {error.status_code}", hint="check the address"
        ) from error
    except exceptions.DownloadError as error:
        raise UnreachableError(
            f"{url} cannot be asked: {_why(error) or error}", hint="check the address and the network"
        ) from error
    except exceptions.ExpiredMetadataError as error:
        raise TrustError(
            f"what {url} says has expired: {error}",
            hint="news may be kept from you, nobody signs it any more, or this machine's clock is wrong",
        ) from error
    except exceptions.BadVersionNumberError as error:
        raise TrustError(
            f"{url} says what is older than, or not one with, what it said before: {error}", hint=_TELL
        ) from error
    except exceptions.UnsignedMetadataError as error:
        raise TrustError(f"{url} says what is not signed by the right keys: {error}", hint=_TELL) from error
    except exceptions.LengthOrHashMismatchError as error:
        raise TrustError(f"{url} sends something else than what is signed: {error}", hint=_TELL) from error
    except exceptions.RepositoryError as error:
        raise TrustError(f"{url} says what cannot be trusted: {error}", hint=_TELL) from error


_TELL = "nothing was changed here; if it stays so, ask whoever runs the channel, by another way"


def fingerprint(root: bytes) -> str:
    """Return what a root is recognised by: the SHA-256 of its file."""
    return hashlib.sha256(root).hexdigest()


def root_keys(root: bytes) -> tuple[list[str], int]:
    """Return the ids of the keys of a root, which it must be signed by itself, and how many have to sign.

    Raises `TrustError` when it is no root, or not signed by enough of its own keys.
    """
    try:
        data = Metadata[Root].from_bytes(root)
        if not isinstance(data.signed, Root):
            raise exceptions.RepositoryError("it is metadata of another kind")
        data.signed.verify_delegate("root", data.signed_bytes, data.signatures)
    except exceptions.RepositoryError as error:
        raise TrustError(
            f"that is no root of a channel: {error}", hint="name the file N.root.json"
        ) from error
    keys = data.signed.roles["root"]
    return sorted(keys.keyids), keys.threshold


def fetch_root(url: str) -> bytes:
    """Fetch the first root of a repository; nothing vouches for it yet."""
    with told(url):
        return Fetcher().download_bytes(f"{url}/metadata/1.root.json", _CONFIG.root_max_length)


def ask(folder: str, url: str, root: bytes, channel: str, arch: str) -> Release:
    """Ask a repository what a channel offers.

    ``folder`` holds what was accepted so far, and whatever of the answer is good is added to it, even when the rest is
    not: the caller keeps it either way. ``root`` is what trust began with. Raises `TrustError`, `UnreachableError`, and
    `UsageError` when there is no such channel.
    """
    with told(url):
        updater = Updater(
            folder,
            f"{url}/metadata",
            folder,
            f"{url}/targets",
            fetcher=Fetcher(),
            config=_CONFIG,
            bootstrap=root,
        )
        updater.refresh()
        found = updater.get_targetinfo(target_path(channel, arch))
        if found is None:
            raise UsageError(
                f"{url} has no channel {channel!r} for {arch}", hint="name another with --channel or --arch"
            )
        if found.length > LIMIT:
            raise TrustError(f"what channel {channel!r} says is {found.length} bytes long", hint=_TELL)
        path = os.path.join(folder, "release")
        cached = updater.find_cached_target(found, path)
        if cached is None:
            updater.download_target(found, path)
        with open(path, "rb") as file:
            return Release.from_bytes(file.read(LIMIT), channel, arch)
