"""Writing to a repository: blobs, which go on where they were cut, and manifests.

Source: the OCI distribution specification, 1.1: pushing a blob in chunks, mounting one from another repository.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, cast
from urllib.parse import urlencode

from layerrun.errors import RegistryError
from layerrun.images.registry import Repository
from layerrun.images.session import Session, refusal
from layerrun.images.transport import let_go

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

__all__ = ["mount_blob", "put_blob", "put_manifest"]

_PATIENCE = 5  # attempts in a row that bring nothing
_OCTETS = "application/octet-stream"

Opener = Callable[[], IO[bytes]]


def put_blob(
    repository: Repository,
    digest: str,
    size: int,
    opener: Opener,
    *,
    elsewhere: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> bool:
    """Have a blob in the repository; say whether it was sent (not if it was there or came from ``elsewhere``).

    Args:
        repository: one opened to push.
        digest: the blob's, which the registry verifies.
        size: bytes.
        opener: opens the blob for reading, whenever it is to be sent again.
        elsewhere: a repository of the same registry that may have it, to be mounted from.
        progress: called with the bytes sent so far.
    """
    if repository.has_blob(digest):
        return False
    last: RegistryError | None = None
    for _ in range(3):
        place = _begin(repository, digest, elsewhere)
        if place is None:
            return False
        try:
            place = _send_all(repository, place, size, opener, progress)
            _finish(repository, place, digest)
        except RegistryError as error:
            # The session is gone, or its end got lost: perhaps the blob is there after all.
            if repository.has_blob(digest):
                return True
            last = error
            continue
        return True
    assert last is not None
    raise last


def mount_blob(repository: Repository, digest: str, elsewhere: str) -> bool:
    """Have the registry take a blob from its repository ``elsewhere``; say whether it did, and leave nothing begun."""
    place = _begin(repository, digest, elsewhere)
    if place is not None:
        _close(repository.session.send("DELETE", place))
    return place is None


def _begin(repository: Repository, digest: str, elsewhere: str | None) -> str | None:
    """Begin an upload and return its URL; ``None`` if the registry has mounted the blob instead."""
    session = repository.session
    query = "?" + urlencode({"mount": digest, "from": elsewhere}) if elsewhere else ""
    if elsewhere:
        host, name = repository.reference.host, repository.reference.name
        session = Session(repository.transport, host, name, push=True, others=[elsewhere])
    response = session.send("POST", f"blobs/uploads/{query}", headers={"Content-Length": "0"})
    if response.status == 201 and elsewhere:
        _close(response)
        return None
    if elsewhere and response.status not in (202, 429):
        # It is there no more, or we may not read it: then it is sent.
        _close(response)
        return _begin(repository, digest, None)
    return _location(repository, response, (202,), "cannot begin an upload")


def _location(repository: Repository, response: BaseHTTPResponse, wanted: tuple[int, ...], what: str) -> str:
    if response.status not in wanted:
        raise refusal(response, repository.reference.host, repository.reference.name, what)
    place = response.headers.get("Location")
    _close(response)
    if not place:
        raise RegistryError(f"{what}: {repository.reference.host} does not say where to go on")
    return repository.transport.follow(repository.session.url(""), place)


def _send_all(
    repository: Repository, place: str, size: int, opener: Opener, progress: Callable[[int], None] | None
) -> str:
    """Send the content, from where the registry has it after each cut; return the URL that ends the upload."""
    sent = idle = 0
    while True:
        try:
            return _send_rest(repository, place, (sent, size), opener, progress)
        except RegistryError as error:
            repository.transport.pause(0.25 * 2**idle)
            there = _how_far(repository, place)
            if there is None or there[1] > size:
                raise
            place, have = there
            if have == size:
                return place
            idle = 0 if have > sent else idle + 1
            if idle >= _PATIENCE:
                raise error from None
            sent = have


def _send_rest(
    repository: Repository,
    place: str,
    part: tuple[int, int],
    opener: Opener,
    progress: Callable[[int], None] | None,
) -> str:
    offset, size = part

    def rest() -> IO[bytes]:
        file = opener()
        file.seek(offset)
        return cast("IO[bytes]", _Counted(file, offset, progress))

    headers = {"Content-Type": _OCTETS, "Content-Length": str(size - offset)}
    if offset:
        headers["Content-Range"] = f"{offset}-{size - 1}"
    response = repository.session.send(
        "PATCH", place, headers=headers, body=rest if size else b"", attempts=1
    )
    return _location(repository, response, (202, 201, 204), "cannot send a blob")


def _how_far(repository: Repository, place: str) -> tuple[str, int] | None:
    """Ask how much of an upload has come; return where to go on and the bytes, ``None`` if it is gone."""
    response = repository.session.send("GET", place)
    found = re.fullmatch(r"(?:bytes=)?0-([0-9]+)", response.headers.get("Range", ""))
    next_place = response.headers.get("Location")
    _close(response)
    if response.status not in (204, 200) or not found:
        return None
    have = int(found[1])
    # An empty upload is told as 0-0, and so is one of a single byte: that one is sent again.
    return repository.transport.follow(place, next_place or place), have + 1 if have else 0


def _finish(repository: Repository, place: str, digest: str) -> None:
    mark = "&" if "?" in place else "?"
    headers = {"Content-Length": "0", "Content-Type": _OCTETS}
    response = repository.session.send(
        "PUT", f"{place}{mark}{urlencode({'digest': digest})}", headers=headers
    )
    if response.status not in (201, 204):
        raise refusal(response, repository.reference.host, repository.reference.name, "cannot end an upload")
    _close(response)


def put_manifest(repository: Repository, data: bytes, media_type: str, tag: str | None = None) -> str:
    """Put a manifest under a tag, or under its digest alone; return the digest."""
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    headers = {"Content-Type": media_type}
    response = repository.session.send("PUT", f"manifests/{tag or digest}", headers=headers, body=data)
    if response.status not in (200, 201, 202):
        raise refusal(
            response, repository.reference.host, repository.reference.name, "cannot put the manifest"
        )
    said = response.headers.get("Docker-Content-Digest")
    _close(response)
    if said and said != digest:
        raise RegistryError(
            f"{repository.reference.host} has another manifest than we sent: {said}, not {digest}"
        )
    return digest


def _close(response: BaseHTTPResponse) -> None:
    let_go(response)


class _Counted:
    """The rest of a file from where it stands, read by urllib3 piece by piece, and counted."""

    def __init__(self, file: IO[bytes], offset: int, progress: Callable[[int], None] | None) -> None:
        self._file, self._sent, self._progress = file, offset, progress

    def read(self, count: int = -1) -> bytes:
        data = self._file.read(count)
        self._sent += len(data)
        if self._progress is not None and data:
            self._progress(self._sent)
        return data

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def close(self) -> None:
        self._file.close()
