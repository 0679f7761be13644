"""The JSON of images: descriptors, indexes and manifests, of OCI 1.0 and 1.1 and of docker's schema 2.

What is read here nobody vouches for but its digest. So it is read with limits, and what is missing, twofold or strange
is refused with what it is. Formats: the image specification of OCI (image-index.md, manifest.md, descriptor.md), and
docker's "image manifest version 2, schema 2".
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import attrs

from layerrun.errors import ArchiveError
from layerrun.images.platform import Platform

__all__ = [
    "LAYERS_CONFIG",
    "MAX_DOCUMENT",
    "MAX_LAYERS",
    "Descriptor",
    "Index",
    "Manifest",
    "check_digest",
    "check_document",
    "parse_document",
    "refuse",
]

# Bytes of an index, a manifest or a configuration; registries take no more either.
MAX_DOCUMENT = 4 << 20
MAX_LAYERS = 128
_MAX_MANIFESTS = 4096

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_OCI, _DOCKER = "application/vnd.oci.image.", "application/vnd.docker."
INDEXES = frozenset({_OCI + "index.v1+json", _DOCKER + "distribution.manifest.list.v2+json"})
MANIFESTS = frozenset({_OCI + "manifest.v1+json", _DOCKER + "distribution.manifest.v2+json"})
_CONFIGS = frozenset({"", _OCI + "config.v1+json", _DOCKER + "container.image.v1+json"})
# The configuration of layers without the base they lie over: docs/registries.md.
LAYERS_CONFIG = "application/vnd.layerrun.layers.config.v1+json"
_LAYER = re.compile(
    r"|application/vnd\.oci\.image\.layer\.(?:nondistributable\.)?v1\.tar(?:\+gzip|\+zstd)?"
    r"|application/vnd\.docker\.image\.rootfs\.(?:foreign\.)?diff\.tar(?:\.gzip|\.zstd)?"
)


def refuse(why: str, hint: str | None = "nothing of it was kept") -> NoReturn:
    """Raise `ArchiveError` that says what is wrong with an image."""
    raise ArchiveError(f"the image {why}", hint=hint)


@attrs.frozen
class Descriptor:
    """What a document says of a blob: ``size`` in bytes, ``digest`` as ``sha256:…``; "" where it says nothing."""

    digest: str
    size: int
    media_type: str = ""
    platform: Platform | None = None
    annotations: Mapping[str, str] = attrs.field(factory=dict, hash=False)


@attrs.frozen
class Index:
    """Manifests for several platforms, or of several images."""

    manifests: tuple[Descriptor, ...]


@attrs.frozen
class Manifest:
    """One image for one platform: its configuration and its layers, the lowest first.

    ``alone``: it is no image, but layers without the base that they lie over.
    """

    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = attrs.field(factory=dict, hash=False)
    alone: bool = False


def check_digest(text: object) -> str:
    """Return a digest that can be a name of a file and that can be verified, or raise `ArchiveError`."""
    if not isinstance(text, str) or not _DIGEST.fullmatch(text):
        refuse(f"names something by {text!r:.100}, which is no sha256 or sha512 digest")
    return text


def check_document(data: bytes, digest: str, what: str = "a document") -> bytes:
    """Return ``data`` if it has this digest, else raise `ArchiveError`."""
    kind = digest.partition(":")[0]
    found = f"{kind}:{hashlib.new(kind, data).hexdigest()}"
    if found != digest:
        refuse(f"is damaged: {what} has the digest {found}, and {digest} was expected")
    return data


def parse_document(data: bytes, media_type: str = "") -> Index | Manifest:
    """Read an index or a manifest; ``media_type`` is what the descriptor or the server says of it, "" if nothing.

    A document that says of itself that it is something else, or that can be read as both, is refused: two readers
    would see two images under one digest (CVE-2021-41190). Raises `ArchiveError`.
    """
    document = parse_object(data, "a document")
    own = _text(document, "mediaType")
    if own and media_type and own != media_type:
        refuse(f"calls a document {own!r:.100} which was announced as {media_type!r:.100}")
    kind = own or media_type
    if "fsLayers" in document or ("manifest.v1" in kind and kind.startswith(_DOCKER)):
        refuse(
            "is of docker's old schema 1, whose layers cannot be verified",
            "skopeo copy --format oci makes a new one",
        )
    lists, single = "manifests" in document, "layers" in document or "config" in document
    if lists and single:
        refuse("has a document that is an index and a manifest at the same time")
    if lists and kind not in MANIFESTS:
        return _index(document)
    if single and kind not in INDEXES:
        return _manifest(document)
    refuse(f"has a document that is neither an index nor a manifest ({kind or 'without a type'!r:.100})")


def parse_object(data: bytes, what: str) -> dict[str, Any]:
    """Read JSON that must be an object, or raise `ArchiveError`."""
    if len(data) > MAX_DOCUMENT:
        refuse(f"has {what} of more than {MAX_DOCUMENT:,} bytes")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        refuse(f"has {what} that is no JSON: {error}")
    if not isinstance(found, dict):
        refuse(f"has {what} that is no JSON object")
    return found


def parse_descriptor(data: object) -> Descriptor:
    """Check a descriptor, JSON data, or raise `ArchiveError`."""
    if not isinstance(data, Mapping):
        refuse(f"has {data!r:.60} where a descriptor should be")
    size = data.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 1 << 62:
        refuse(f"has something of the size {size!r:.60}")
    platform = data.get("platform")
    return Descriptor(
        digest=check_digest(data.get("digest")),
        size=size,
        media_type=_text(data, "mediaType"),
        platform=None if platform is None else Platform.from_json(platform),
        annotations=_texts(data.get("annotations")),
    )


def _index(document: Mapping[str, Any]) -> Index:
    return Index(tuple(parse_descriptor(one) for one in _list(document, "manifests", _MAX_MANIFESTS)))


def _manifest(document: Mapping[str, Any]) -> Manifest:
    config = parse_descriptor(document.get("config"))
    alone = config.media_type == LAYERS_CONFIG
    if config.media_type not in _CONFIGS and not alone:
        refuse(f"is none of a file system: its configuration is {config.media_type!r:.100}")
    layers = tuple(parse_descriptor(one) for one in _list(document, "layers", MAX_LAYERS))
    for layer in layers:
        if layer.media_type.endswith("+encrypted"):
            refuse("is encrypted", "skopeo copy --decryption-key decrypts it")
        if not _LAYER.fullmatch(layer.media_type):
            refuse(f"has a layer of the unknown kind {layer.media_type!r:.100}")
    return Manifest(config, layers, _texts(document.get("annotations")), alone)


def _list(document: Mapping[str, Any], key: str, most: int) -> Sequence[object]:
    found = document.get(key)
    if found is None:  # Go writes an empty list as null
        return ()
    if not isinstance(found, list):
        refuse(f"has {found!r:.60} where {key} should be")
    if len(found) > most:
        refuse(f"has {len(found):,} {key}, and no more than {most} are taken")
    return found


def _text(document: Mapping[str, Any], key: str) -> str:
    found = document.get(key)
    if found is None:
        return ""
    if not isinstance(found, str):
        refuse(f"has {found!r:.60} where a text {key!r} should be")
    return found


def _texts(found: object) -> Mapping[str, str]:
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        refuse("has annotations that are no texts")
    return found
