"""Images in files: OCI image layouts (a folder, or a tar of one) and docker archives, of `docker save` and the like."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from layerrun.errors import NotFoundError, UsageError
from layerrun.images.blobs import Blobs, FolderBlobs, Piece, read_piece
from layerrun.images.config import parse_config
from layerrun.images.documents import (
    MAX_DOCUMENT,
    MAX_LAYERS,
    Descriptor,
    Index,
    check_document,
    parse_document,
    parse_object,
    refuse,
)
from layerrun.images.image import Image, Layer, check_platform, image_of_index
from layerrun.images.platform import Platform
from layerrun.images.tarindex import TarBlobs

__all__ = ["open_archive", "open_layout"]

_HEX = re.compile(r"[0-9a-f]{64}")


def open_layout(path: str, wanted: str = "", platform: Platform | None = None) -> Image:
    """Find an image in the OCI image layout in the folder ``path``; see `layerrun.images.image.image_of_index`."""
    return _in_layout(FolderBlobs(path), path, wanted, platform)


def open_archive(fd: int, text: str, wanted: str = "", platform: Platform | None = None) -> Image:
    """Find an image in a tar, a layout or a docker archive; ``text`` is what the file is called.

    ``fd`` must be of a regular file, and stay open as long as the image is used. Raises as
    `layerrun.images.image.image_of_index`.
    """
    files = TarBlobs(fd)
    if "oci-layout" in files and "index.json" in files:
        return _in_layout(files, text, wanted, platform)
    if "manifest.json" not in files:
        refuse("is neither an OCI image layout nor a docker archive", None)
    return _in_docker(files, text, wanted, platform)


def _in_layout(blobs: FolderBlobs | TarBlobs, text: str, wanted: str, platform: Platform | None) -> Image:
    version = parse_object(_whole(blobs, "oci-layout"), "'oci-layout'").get("imageLayoutVersion")
    if not isinstance(version, str) or not version.startswith("1."):
        refuse(f"is of the unknown version {version!r:.60} of image layouts")
    index = parse_document(_whole(blobs, "index.json"))
    if not isinstance(index, Index):
        refuse("has an 'index.json' that is no index")
    return image_of_index(blobs, index, text, wanted, platform)


def _whole(blobs: FolderBlobs | TarBlobs, name: str) -> bytes:
    try:
        piece = blobs.file(name)
    except FileNotFoundError:
        refuse(f"is incomplete: {name!r} is missing")
    with piece:
        return read_piece(piece, repr(name))


class _DockerBlobs:
    """The layers of a docker archive, by the digest that they have unpacked."""

    def __init__(self, files: TarBlobs, names: Mapping[str, str]) -> None:
        self._files = files
        self._names = names

    def open(self, descriptor: Descriptor) -> Piece:
        """Return a layer; see `Blobs`."""
        try:
            return self._files.file(self._names[descriptor.digest])
        except FileNotFoundError:
            refuse(f"is incomplete: {self._names[descriptor.digest]!r:.100} is missing")


def _in_docker(files: TarBlobs, text: str, wanted: str, platform: Platform | None) -> Image:
    images = _list(_whole(files, "manifest.json"))
    chosen, name = _choose(images, text, wanted)
    config_name, layers = chosen.get("Config"), chosen.get("Layers") or []
    if not isinstance(config_name, str) or not isinstance(layers, list) or len(layers) > MAX_LAYERS:
        refuse("has a strange 'manifest.json'")
    data = _whole(files, config_name)
    image_id = "sha256:" + hashlib.sha256(data).hexdigest()
    expected = os.path.basename(config_name).removesuffix(".json")
    if _HEX.fullmatch(expected):
        check_document(data, f"sha256:{expected}", "its configuration")
    config = parse_config(data, len(layers))
    check_platform(config.platform, platform)
    if not all(isinstance(layer, str) for layer in layers):
        refuse("has a strange 'manifest.json'")
    # The archive says nothing of its layers' bytes; what they are unpacked is verified.
    found = tuple(Layer(Descriptor(diff_id, -1), diff_id, named=True) for diff_id in config.diff_ids)
    blobs: Blobs = _DockerBlobs(files, dict(zip(config.diff_ids, layers, strict=True)))
    return Image(f"{text}:{name}" if name else text, "", image_id, config, found, blobs)


def _list(data: bytes) -> list[Mapping[str, Any]]:
    try:
        found = json.loads(data) if len(data) <= MAX_DOCUMENT else None
    except (ValueError, RecursionError) as error:
        refuse(f"has a 'manifest.json' that is no JSON: {error}")
    if not isinstance(found, list) or not all(isinstance(one, Mapping) for one in found):
        refuse("has a strange 'manifest.json'")
    if not found:
        refuse("is an archive without any image in it")
    return found


def _choose(images: Sequence[Mapping[str, Any]], text: str, wanted: str) -> tuple[Mapping[str, Any], str]:
    """Return the image of that name, tag or number of its configuration, and its name."""
    tags = [[tag for tag in one.get("RepoTags") or [] if isinstance(tag, str)] for one in images]
    if not wanted:
        if len(images) > 1:
            known = sorted(tag for found in tags for tag in found)
            raise UsageError(
                f"{text} holds several images: {', '.join(known[:10]) or 'none with a name'}",
                hint=f"name one of them, as {text}:NAME",
            )
        return images[0], (tags[0] or [""])[0]
    for one, found in zip(images, tags, strict=True):
        for tag in found:
            if wanted in (tag, tag.rpartition(":")[2], tag.rpartition("/")[2]):
                return one, tag
    known = sorted(tag for found in tags for tag in found)
    raise NotFoundError(
        f"{text} has no image {wanted!r}", hint=f"there is {', '.join(known[:10])}" if known else None
    )
