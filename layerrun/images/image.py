"""From a place with blobs to one image: which of an index it is, and what it consists of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from layerrun.errors import NotFoundError, UsageError
from layerrun.images.blobs import Blobs, read_document
from layerrun.images.config import Config, parse_config
from layerrun.images.documents import Descriptor, Index, Manifest, parse_document, refuse
from layerrun.images.platform import Platform, choose, machine

__all__ = ["Image", "Layer", "image_of", "image_of_index", "names_of"]

_MAX_NESTED = 4
# Where a layout keeps the name of an image: OCI's image specification, and what docker and containerd write.
_NAME, _FULL_NAME = "org.opencontainers.image.ref.name", "io.containerd.image.name"
# An entry of an index that is no image but says something of one: BuildKit's attestations.
_REFERENCE_TYPE = "vnd.docker.reference.type"


@attrs.frozen
class Layer:
    """A layer: ``blob`` is where it lies; ``diff_id`` is the digest of what it is unpacked.

    ``named``: the blob's digest is a name and not of its bytes; docker archives say nothing of those.
    """

    blob: Descriptor
    diff_id: str
    named: bool = False

    @property
    def key(self) -> str:
        """What its record goes by: the blob's digest, which is verified outside the jail, and what it is unpacked."""
        return f"{self.blob.digest}.{self.diff_id}"


@attrs.frozen
class Image:
    """An image for one platform, its documents verified and its layers not yet read, the lowest first.

    ``digest`` is of its manifest, ``""`` where there is none (docker archives); ``image_id`` of its configuration.
    ``blobs`` may be one place for all, or another for each layer. ``alone``: the base of its layers is not in it.
    """

    reference: str
    digest: str
    image_id: str
    config: Config
    layers: tuple[Layer, ...]
    blobs: Blobs
    alone: bool = False

    @property
    def origin(self) -> Mapping[str, Any]:
        """What a base remembers of its image (`layerrun.model.Base.origin`)."""
        return {
            "reference": self.reference,
            "digest": self.digest or self.image_id,
            "image_id": self.image_id,
            "platform": str(self.config.platform),
            "layers": [layer.diff_id for layer in self.layers],
            "config": self.config.to_json(),
        }


def names_of(descriptor: Descriptor) -> set[str]:
    """Return the names that an entry of a layout's index goes by."""
    found = {descriptor.annotations.get(key, "") for key in (_NAME, _FULL_NAME)} - {""}
    return found | {name.rpartition(":")[2] for name in found if ":" in name}


def image_of_index(
    blobs: Blobs, index: Index, reference: str, wanted: str = "", platform: Platform | None = None
) -> Image:
    """Choose an image of a layout by a name (a tag), a digest or ``""``, for a platform or else the machine's.

    Raises `NotFoundError` if there is none of that name or for that platform, `UsageError` if it is not clear which is
    meant, `ArchiveError` if something is wrong with it.
    """
    entries = [one for one in index.manifests if _REFERENCE_TYPE not in one.annotations]
    if wanted.startswith("sha256:"):
        named = [one for one in entries if one.digest == wanted] or [Descriptor(wanted, -1)]
    elif wanted:
        named = [one for one in entries if wanted in names_of(one)]
    else:
        named = entries
    if not named:
        _no_such(reference, wanted, entries)
    tags = {one.annotations.get(_FULL_NAME) or one.annotations.get(_NAME, "") for one in named}
    if len(tags) > 1:
        raise UsageError(
            f"{reference} holds several images: {_listed(sorted(tags))}",
            hint=f"name one of them, as {reference}:{max(tags)}",
        )
    tag = next(iter(tags))
    return image_of(blobs, _for_platform(Index(tuple(named)), platform), reference, platform, tag=tag)


def image_of(
    blobs: Blobs,
    descriptor: Descriptor,
    reference: str,
    platform: Platform | None = None,
    *,
    tag: str = "",
    alone: bool = False,
) -> Image:
    """Follow a descriptor, through indexes, to the image for a platform (the machine's unless one is given).

    ``alone``: layers without their base will do as well.
    """
    nested = 0
    while isinstance(found := _read(blobs, descriptor), Index):
        descriptor = _for_platform(found, platform)
        nested += 1
        if nested > _MAX_NESTED:
            refuse(f"is behind more than {_MAX_NESTED} indexes")
    if found.alone and not alone:
        refuse(
            "is the layers of an app without the base they lie over", "`layerrun pull` makes an app of them"
        )
    return _image(blobs, found, descriptor.digest, f"{reference}:{tag}" if tag else reference, platform)


def _read(blobs: Blobs, descriptor: Descriptor) -> Index | Manifest:
    return parse_document(read_document(blobs, descriptor, "a manifest"), descriptor.media_type)


def _image(blobs: Blobs, manifest: Manifest, digest: str, reference: str, platform: Platform | None) -> Image:
    data = read_document(blobs, manifest.config, "a configuration")
    config = parse_config(data, len(manifest.layers))
    check_platform(config.platform, platform)
    layers = tuple(Layer(*pair) for pair in zip(manifest.layers, config.diff_ids, strict=True))
    return Image(reference, digest, manifest.config.digest, config, layers, blobs, manifest.alone)


def check_platform(found: Platform, wanted: Platform | None) -> None:
    """Raise `NotFoundError` if an image is for another platform than the wanted one, or than the machine's."""
    if (not found.architecture and wanted is None) or choose(wanted or machine(), [found]) is not None:
        return
    if wanted is not None:
        raise NotFoundError(f"the image is for {found}, and not for {wanted}")
    raise NotFoundError(
        f"the image is for {found}, and this machine is {machine()}",
        hint=f"--platform {found} imports it all the same",
    )


def _for_platform(index: Index, platform: Platform | None) -> Descriptor:
    entries = [one for one in index.manifests if _REFERENCE_TYPE not in one.annotations]
    if len(entries) == 1 and entries[0].platform is None:
        return entries[0]  # its configuration says for what it is
    offered = [one.platform for one in entries]
    if (place := choose(platform or machine(), offered)) is not None:
        return entries[place]
    unknown = [one for one in entries if one.platform is None]
    if len(unknown) == 1:
        return unknown[0]
    if not entries:
        refuse("is an index without any image in it")
    if unknown:
        raise UsageError(
            "the index holds several images, and does not say for which platforms they are",
            hint="name one by its digest, as SOURCE@sha256:…",
        )
    raise NotFoundError(
        f"the image is for {_listed(sorted({str(one) for one in offered}))}, and not for {platform or machine()}",
        hint=f"--platform {offered[0]} imports that one",
    )


def _no_such(reference: str, wanted: str, entries: Sequence[Descriptor]) -> None:
    known = sorted({name for one in entries for name in names_of(one)})
    if not wanted:
        refuse("is an index without any image in it")
    raise NotFoundError(
        f"{reference} has no image {wanted!r}",
        hint=f"there is {_listed(known)}" if known else "its images have no names: name none",
    )


def _listed(names: Sequence[str], most: int = 10) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(name or "one without a name" for name in names[:most]) + more
