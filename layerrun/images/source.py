"""An image as a source of a tree: its layers, one upon the other, each verified.

What is read in the jail is hashed there, unpacked; what lies in the blobs is hashed here meanwhile. The stream gets its
end only when all digests are right, so nothing of an image with a wrong one is ever kept.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import groupby
from typing import Any

import attrs

from layerrun.errors import ArchiveError
from layerrun.images.blobs import Piece
from layerrun.images.documents import refuse
from layerrun.images.image import Image, Layer
from layerrun.images.limits import Limits
from layerrun.images.stream import Feed, Record, Step, write_record
from layerrun.images.tar import Part, ids_of_archives, read_tars
from layerrun.model import IdMode

__all__ = ["ImageSource"]

_CHUNK = 1 << 20
# Longer keys, of digests by sha512, have no records: they are names of files.
_MAX_KEY = 200
_Opened = tuple[Layer, Piece]


@attrs.frozen
class ImageSource:
    """The file system of an image (`layerrun.images.stream.Source`); ``limits`` are of all its layers together."""

    image: Image
    text: str
    limits: Limits = attrs.field(factory=Limits)

    def ids(self, *, rootless: bool) -> IdMode:
        """Choose whose ids the tree keeps."""
        return ids_of_archives(rootless=rootless)

    def plan(self, known: frozenset[str]) -> Sequence[Step]:
        """Return the layers; see `layerrun.images.stream.Layered`.

        Of the layers that must be read only the first is recorded, and it is read in a jail of its own: one that was
        taken over could say anything of the layers behind its own.
        """
        return [step for _, step in self._steps(known)]

    def _steps(self, known: frozenset[str]) -> list[tuple[Layer, Step]]:
        steps: list[tuple[Layer, Step]] = []
        fresh = True
        for layer in self.image.layers:
            recorded = not layer.named and len(layer.key) <= _MAX_KEY
            if recorded and layer.key in known:
                steps.append((layer, Step(layer.key, "r")))
                continue
            steps.append((layer, Step(layer.key[:_MAX_KEY], "w" if recorded and fresh else "-")))
            fresh = False
        return steps

    def feed(self, to: Feed) -> Mapping[str, Any]:
        """Write the layers, the lowest first; of those that are known, by `Layer.key`, no more than the name."""
        with ExitStack() as stack:
            opened: list[_Opened] = []
            for layer, step in self._steps(to.known):
                if step.what != "r":
                    opened.append((layer, stack.enter_context(self.image.blobs.open(layer.blob))))
            sums = _Sums(opened)
            stack.callback(sums.stop)
            self._write(to, dict(opened))
            sums.check()
        with os.fdopen(os.dup(to.out), "wb") as file:
            write_record(file, Record(kind="e"))
        return self.image.origin

    def _write(self, to: Feed, opened: Mapping[Layer, Piece]) -> None:
        """Write the records of all layers; as few jails are started as can be.

        Which layer begins is said from here, where one jail has ended and the next one begins.
        """
        for what, group in groupby(self._steps(to.known), lambda pair: pair[1].what):
            pairs = list(group)
            with os.fdopen(os.dup(to.out), "wb") as file:
                for _, step in pairs if what == "r" else pairs[:1]:
                    write_record(file, Record(kind="n", link=step.name.encode("ascii")))
            if what == "r":
                continue
            layers = [layer for layer, _ in pairs]
            parts = [
                _part(layer, opened[layer], step.name if number else None)
                for number, (layer, step) in enumerate(pairs)
            ]
            found = read_tars(parts, to, self.limits, layer=True, hashed=True)
            for layer, digest in zip(layers, found.digests, strict=True):
                if digest != layer.diff_id:
                    refuse(f"is damaged: a layer is {digest} unpacked, and {layer.diff_id} was expected")


def _part(layer: Layer, piece: Piece, name: str | None) -> Part:
    return Part(piece.fd, name, piece.offset, piece.size)


class _Sums:
    """Hashes blobs in a thread, while they are read elsewhere."""

    def __init__(self, opened: Sequence[_Opened]) -> None:
        self._opened = [(layer, piece) for layer, piece in opened if not layer.named]
        self._stopped = False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End, also before all is done."""
        self._stopped = True
        self._thread.join()

    def check(self) -> None:
        """Wait until all is done; raise `ArchiveError` if a digest is wrong."""
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            for layer, piece in self._opened:
                self._one(layer, piece)
        except Exception as error:  # noqa: BLE001  (it is raised in the caller's thread)
            self._error = error

    def _one(self, layer: Layer, piece: Piece) -> None:
        kind = layer.blob.digest.partition(":")[0]
        digest, done = hashlib.new(kind), 0
        while done < piece.size and not self._stopped:
            data = os.pread(piece.fd, min(_CHUNK, piece.size - done), piece.offset + done)
            if not data:
                break
            digest.update(data)
            done += len(data)
        found = f"{kind}:{digest.hexdigest()}"
        if found != layer.blob.digest and not self._stopped:
            raise ArchiveError(
                f"the image is damaged: a layer has the digest {found}, and {layer.blob.digest} was expected",
                hint="nothing of it was kept",
            )
