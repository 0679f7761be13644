"""Manifests and blobs of one repository: what is read is verified by its digest, and goes on where it was cut.

Source: the OCI distribution specification, 1.1.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from layerrun.errors import NotFoundError, RegistryError
from layerrun.images.reference import Reference, is_digest
from layerrun.images.session import Session, refusal
from layerrun.images.transport import Access, Transport, let_go, read_all

if TYPE_CHECKING:
    from io import BufferedRandom

    from urllib3 import BaseHTTPResponse

__all__ = ["MANIFEST_TYPES", "Manifest", "Repository"]

MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MOST_MANIFEST = 4 << 20  # bytes; the specification has registries take as much
_PIECE = 1 << 18
_PATIENCE = 6  # attempts in a row that bring nothing

Progress = Callable[[int], None]


@attrs.frozen
class Manifest:
    """A manifest or an index as the registry sent it: its bytes are what ``digest`` is of."""

    data: bytes
    media_type: str
    digest: str


class Repository:
    """A repository of a registry, to read from; see `layerrun.images.upload` for writing."""

    def __init__(self, access: Access | Transport, reference: Reference, *, push: bool = False) -> None:
        self.transport = access if isinstance(access, Transport) else Transport(access)
        self.reference = reference
        self.session = Session(self.transport, reference.host, reference.name, push=push)

    def manifest(self, wanted: str) -> Manifest:
        """Return the manifest that a tag or a digest names. Raises `NotFoundError` if there is none.

        The digest is that of the bytes; one that was asked for, or is announced, must be the same.
        """
        response = self.session.send(
            "GET", f"manifests/{wanted}", headers={"Accept": ", ".join(MANIFEST_TYPES)}
        )
        if response.status == 404:
            self._close(response)
            raise NotFoundError(
                f"{self.reference.repository} has no {wanted!r}",
                hint="is it spelled right? Tags differ in case",
            )
        if response.status != 200:
            raise refusal(response, self.reference.host, self.reference.name, f"cannot read {wanted!r}")
        announced = response.headers.get("Docker-Content-Digest")
        media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
        data = read_all(response, MOST_MANIFEST, f"the manifest {wanted!r}")
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        for other in (
            wanted if ":" in wanted else None,
            announced if announced and is_digest(announced) else None,
        ):
            if other and other != digest:
                raise RegistryError(f"{self.reference.host} sent a manifest {digest} instead of {other}")
        return Manifest(data, media_type, digest)

    def digest_of(self, wanted: str) -> str | None:
        """Return the digest that a tag has now, as the registry says it, without reading the manifest."""
        response = self.session.send(
            "HEAD", f"manifests/{wanted}", headers={"Accept": ", ".join(MANIFEST_TYPES)}
        )
        self._close(response)
        digest = response.headers.get("Docker-Content-Digest")
        return digest if response.status == 200 and digest and is_digest(digest) else None

    def has_blob(self, digest: str) -> bool:
        """Say whether the repository has a blob."""
        response = self.session.send("HEAD", f"blobs/{digest}")
        self._close(response)
        if response.status in (200, 404):
            return response.status == 200
        raise refusal(response, self.reference.host, self.reference.name, f"cannot look for {digest}")

    def small(self, digest: str, most: int) -> bytes:
        """Return a blob that has at most ``most`` bytes, not verified."""
        response = self.session.send("GET", f"blobs/{digest}")
        if response.status == 404:
            self._close(response)
            raise NotFoundError(f"{self.reference.repository} has no blob {digest}")
        if response.status != 200:
            raise refusal(response, self.reference.host, self.reference.name, f"cannot read {digest}")
        return read_all(response, most, digest)

    def fetch(self, digest: str, size: int, file: BufferedRandom, progress: Progress | None = None) -> None:
        """Read a blob into a file that is open to be read and written, and may have the beginning of it.

        ``progress`` is called with the bytes that the file has so far. A connection that breaks is taken up where it
        broke, by Range; what comes out wrong is read once more from the start. Raises `RegistryError` if it stays
        wrong.
        """
        for left in (1, 0):
            self._fill(digest, size, file, progress)
            file.seek(0)
            if "sha256:" + hashlib.file_digest(file, "sha256").hexdigest() == digest:
                return
            file.seek(0)
            file.truncate(0)
            if not left:
                raise RegistryError(
                    f"{self.reference.host} sends something else than {digest}",
                    hint="its copy is damaged, or something on the way changes what passes",
                )

    def _fill(self, digest: str, size: int, file: BufferedRandom, progress: Progress | None) -> None:
        """Read what is missing of a blob. Attempts are counted only as long as they bring nothing."""
        have = file.seek(0, os.SEEK_END)
        if have > size:
            have = file.truncate(0)
        idle, wait = 0, 0.25
        while have < size:
            before = have
            problem = self._read_on(digest, size, file, progress)
            have = file.seek(0, os.SEEK_END)
            if have >= size:
                break
            idle = 0 if have > before else idle + 1
            if idle >= _PATIENCE:
                raise RegistryError(
                    f"{digest} of {self.reference.repository} is cut short at {have} of {size} bytes: {problem}",
                    hint="try again: what has come is kept",
                )
            if idle:
                self.transport.pause(wait)
                wait *= 2

    def _read_on(self, digest: str, size: int, file: BufferedRandom, progress: Progress | None) -> str:
        """Read on from the end of the file as far as it goes; say what cut it short."""
        from urllib3.exceptions import HTTPError

        have = file.seek(0, os.SEEK_END)
        headers = {"Range": f"bytes={have}-"} if have else {}
        response = self.session.send("GET", f"blobs/{digest}", headers=headers)
        if response.status == 404:
            self._close(response)
            raise NotFoundError(f"{self.reference.repository} has no blob {digest}")
        if response.status == 416 or (
            response.status == 206
            and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        ):
            self._close(response)
            file.truncate(0)
            return "it cannot go on where it broke"
        if response.status not in (200, 206):
            raise refusal(response, self.reference.host, self.reference.name, f"cannot read {digest}")
        if response.status == 200:
            have = 0  # it has not heard of Range
            file.seek(0)
            file.truncate(0)
        try:
            for piece in response.stream(_PIECE):
                if have + len(piece) > size:
                    response.close()
                    raise RegistryError(f"{self.reference.host} sends more than the {size} bytes of {digest}")
                file.write(piece)
                have += len(piece)
                if progress is not None:
                    progress(have)
        except HTTPError as error:
            response.close()
            return str(error)
        finally:
            file.flush()
            response.release_conn()
        return "it ended too soon"

    @staticmethod
    def _close(response: BaseHTTPResponse) -> None:
        let_go(response)
