"""Whether an app's layers are as they were built or pulled: each entry against the layer's listing (docs/build.md)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import attrs

from layerrun.bases import tree
from layerrun.bases.manifest import HEADER, digest_of
from layerrun.building import listing
from layerrun.model import Layer
from layerrun.native.trees import open_beneath
from layerrun.runtime.jobs import on_ids
from layerrun.store.fs import explain, open_dir, present
from layerrun.store.store import now

if TYPE_CHECKING:
    from layerrun.model import App
    from layerrun.store.store import Store

__all__ = ["Verified", "Wrong", "differences_of", "is_intact", "verify", "verify_job"]


@attrs.frozen
class Wrong:
    """What is not as it was. ``kind``: changed, missing, added; ``path`` as seen inside, ``""``: the listing itself."""

    kind: str
    path: str


@attrs.frozen
class Verified:
    """A layer, and what is wrong with it. ``unlisted``: nobody has noted what it should be, so nothing was read.

    Those are layers that were frozen from what an app has written: snapshots and commits of apps.
    """

    layer: Layer
    wrong: tuple[Wrong, ...] = ()
    unlisted: bool = False


_GONE = (Wrong("missing", "/"),)


def verify(store: Store, app: App) -> Iterator[Verified]:
    """Read the layers of an app, the lowest first, and yield what became of each.

    Names, types, modes, owners, attributes and contents count; times do not, no digest covers them. What the app has
    written since, its upper, is nobody's promise. A layer that is gone is ``missing`` at ``/``, whoever has made it.
    Raises `SystemError` where something cannot be read.
    """
    for id_ in dict.fromkeys(app.stack):
        layer = store.catalog.layer(id_)
        if layer is None:
            yield Verified(Layer(id_, app.ids, ""), _GONE)
        elif not present(store.fd, f"layers/{id_}/tree"):
            yield _told(store, Verified(layer, _GONE))
        elif layer.digest is None:
            yield Verified(layer, unlisted=True)
        else:
            yield _told(store, Verified(layer, differences_of(store, layer)))


def _told(store: Store, found: Verified) -> Verified:
    """Let no further pull take a layer that was pulled and is spoilt; a build looks for itself."""
    if found.wrong and "blob" in found.layer.origin:
        with store.catalog.transaction():
            store.catalog.spoil_layer(found.layer.id, now())
    return found


def differences_of(store: Store, layer: Layer) -> tuple[Wrong, ...]:
    """Return what is wrong with a layer that has a digest."""
    with ExitStack() as opened, explain("verify layer", layer.id):
        folder = open_dir(store.fd, f"layers/{layer.id}")
        opened.callback(os.close, folder)
        if "step" in layer.origin:
            found = on_ids(layer.ids, verify_job, [folder], layer.ids.userxattr, layer.digest)
        else:
            found = _pulled(store, layer, folder)
    return tuple(Wrong(*pair) for pair in found)


def _pulled(store: Store, layer: Layer, folder: int) -> Sequence[Sequence[str]]:
    """Do as `verify_job` with a layer that was pulled, which has a manifest as bases have them."""
    try:
        digest = digest_of(folder, "manifest")
    except FileNotFoundError:
        return [["missing", ""]]
    if digest != layer.digest:
        return [["changed", ""]]
    return sorted(tree.differences(store, layer.ids, folder), key=lambda one: one[1])


def is_intact(store: Store, layer: Layer) -> bool:
    """Say whether a layer that has a digest is as it was; one that cannot be read is not."""
    from layerrun.errors import LayerrunError

    try:
        return not differences_of(store, layer)
    except LayerrunError:
        return False


def verify_job(folder: int, userxattr: bool, digest: str) -> list[list[str]]:
    """Arguments: the folder of a layer, userxattr, the digest. Return kind and path of all that differs, by path."""
    top = open_beneath(folder, b"tree", os.O_RDONLY | os.O_DIRECTORY)
    try:
        read = listing.read_lines(top, userxattr=userxattr)
        there = {path: text for path, (text, _) in read.items()}
    finally:
        os.close(top)
    try:
        with open(
            os.open("manifest", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder), "rb"
        ) as file:
            text = file.read()
    except FileNotFoundError:
        return [["missing", ""]]
    if "sha256:" + hashlib.sha256(text).hexdigest() != digest:
        return [["changed", ""]]
    said = {listing.path_of(line): line for line in text.removeprefix(HEADER).splitlines(keepends=True)}
    found = []
    for path in sorted(said.keys() | there.keys()):
        if said.get(path) != there.get(path):
            kind = "missing" if path not in there else "added" if path not in said else "changed"
            found.append([kind, "/" + os.fsdecode(path).removeprefix(".")])
    return found
