"""What makes layers an image that anybody runs, and what layerrun writes into one so that it is the same app again.

Source: the OCI image specification, 1.1 (config.md, manifest.md). layerrun's own words are labels of the configuration:
they survive a copy into any other format of images. docs/registries.md has them.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from layerrun.images.documents import LAYERS_CONFIG
from layerrun.images.platform import machine
from layerrun.images.reference import SCHEME
from layerrun.model import App, Base
from layerrun.store.blob_rows import Blob

__all__ = [
    "APP_LABEL",
    "BASE_LABEL",
    "CONFIG_TYPE",
    "LAYERS_TYPE",
    "MANIFEST_TYPE",
    "Image",
    "image_of_app",
    "image_of_base",
    "image_of_layers",
    "running_system",
]

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYERS_TYPE = "application/vnd.layerrun.layers.v1"
BASE_LABEL = "layerrun.base"
APP_LABEL = "layerrun.app"

# What runs there expects as much; layerrun's own apps get theirs at each start.
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@attrs.frozen
class Image:
    """A configuration and a manifest, as bytes; ``layers`` are in the order of the manifest, the lowest first."""

    config: bytes
    manifest: bytes
    layers: tuple[Blob, ...]

    @property
    def config_digest(self) -> str:
        """The digest of the configuration."""
        return "sha256:" + hashlib.sha256(self.config).hexdigest()

    @property
    def digest(self) -> str:
        """The digest of the manifest: what the image is called by."""
        return "sha256:" + hashlib.sha256(self.manifest).hexdigest()


def image_of_base(base: Base, layer: Blob) -> Image:
    """Return the image of a base: one layer, with the configuration of the image that it came from, if it did."""
    config = _config_of(base)
    labels = {BASE_LABEL: _dumps(_base_label(base, 1))}
    return _image(base, [layer], config, labels, base.created)


def image_of_app(app: App, base: Base, layers: Sequence[Blob], lowest: int) -> Image:
    """Return the image of an app: ``lowest`` layers of its base, then its own; with its command and environment."""
    config = _config_of(base)
    env = [*(str(one) for one in _list(config.get("Env"))), *app.config.env]
    names = {one.partition("=")[0]: one for one in env}
    config["Env"] = list(names.values())
    if app.config.command:
        config["Cmd"] = list(app.config.command)
        config.pop("Entrypoint", None)
    labels = {BASE_LABEL: _dumps(_base_label(base, lowest)), APP_LABEL: _dumps(_app_label(app))}
    # The same layers and the same words give the same image, whenever it was made.
    return _image(base, layers, config, labels, base.created)


def image_of_layers(app: App, base: Base, layers: Sequence[Blob]) -> Image:
    """Return what an app's own layers are in a registry: an artifact that nobody runs, and that names their base.

    The annotations are those that images have for the one they are made of, where that is known.
    """
    said = _base_label(base, 0)
    source, digest = base.origin.get("reference"), base.origin.get("digest")
    annotations = {"org.opencontainers.image.title": app.name}
    if base.digest is None:
        said["machine"] = running_system()
    elif isinstance(source, str) and source.startswith(SCHEME) and isinstance(digest, str):
        annotations["org.opencontainers.image.base.name"] = source.removeprefix(SCHEME).partition("@")[0]
        annotations["org.opencontainers.image.base.digest"] = digest
        said["source"] = f"{source.partition('@')[0]}@{digest}"
    labels = {BASE_LABEL: _dumps(said), APP_LABEL: _dumps(_app_label(app))}
    config = {
        **_platform(base),
        "config": {"Labels": labels},
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
    }
    return _documents(
        config, LAYERS_CONFIG, layers, annotations | {BASE_LABEL: labels[BASE_LABEL]}, LAYERS_TYPE
    )


def running_system() -> str:
    """Return what system this machine has, as os-release(5) says it: ``debian 12``; ``unknown`` where it does not."""
    try:
        found = platform.freedesktop_os_release()
    except OSError:
        return "unknown"
    return " ".join(filter(None, (found.get("ID", "linux"), found.get("VERSION_ID", ""))))[:80]


def _app_label(app: App) -> dict[str, Any]:
    own = app.config.to_json()
    own.pop("layers")
    return {"version": 1, "name": app.name, "config": own}


def _config_of(base: Base) -> dict[str, Any]:
    """Return the settings of the image that a base came from, by the names that images have for them."""
    said = _table(base.origin.get("config"))
    names = {"env": "Env", "entrypoint": "Entrypoint", "cmd": "Cmd", "workdir": "WorkingDir", "user": "User"}
    return {name: said[key] for key, name in names.items() if said.get(key)}


def _base_label(base: Base, layers: int) -> dict[str, Any]:
    return {"version": 1, "name": base.name, "digest": base.digest, "layers": layers}


def _image(
    base: Base, layers: Sequence[Blob], config: dict[str, Any], labels: Mapping[str, str], created: str
) -> Image:
    env = [str(one) for one in _list(config.get("Env"))]
    if not any(one.startswith("PATH=") for one in env):
        env.insert(0, _PATH)
    config |= {"Env": env, "Labels": {**_table(config.get("Labels")), **labels}}
    config.setdefault("Cmd", ["/bin/sh"])
    data = {
        "created": created,
        **_platform(base),
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        "history": [{"created": created, "created_by": "layerrun"} for _ in layers],
    }
    return _documents(data, CONFIG_TYPE, layers, {"org.opencontainers.image.created": created})


def _documents(
    config: Mapping[str, Any],
    config_type: str,
    layers: Sequence[Blob],
    annotations: Mapping[str, str],
    artifact_type: str = "",
) -> Image:
    """Put a configuration and a manifest about layers."""
    encoded = _dumps(config).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        **({"artifactType": artifact_type} if artifact_type else {}),
        "config": _descriptor(config_type, "sha256:" + hashlib.sha256(encoded).hexdigest(), len(encoded)),
        "layers": [_descriptor(layer.media_type, layer.digest, layer.size) for layer in layers],
        "annotations": dict(annotations),
    }
    return Image(encoded, _dumps(manifest).encode(), tuple(layers))


def _platform(base: Base) -> dict[str, str]:
    """Return what the image runs on: what its origin says, as OS/ARCH[/VARIANT], else what this machine is."""
    said = base.origin.get("platform")
    if isinstance(said, str) and said.count("/") in (1, 2):
        return dict(zip(("os", "architecture", "variant"), said.split("/"), strict=False))
    here = machine()
    return {"os": here.os, "architecture": here.architecture} | (
        {"variant": here.variant} if here.variant else {}
    )


def _descriptor(media_type: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest, "size": size}


def _dumps(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _table(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []
