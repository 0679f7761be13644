"""What an image says of its app, and what of that it is not given unasked: who made the image is somebody else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import attrs

from layerrun.errors import ArchiveError, UsageError
from layerrun.fleet.image import APP_LABEL, BASE_LABEL
from layerrun.images.pulling import Pulled
from layerrun.images.reference import SCHEME, Reference, is_digest
from layerrun.model import HOST_BASE, AppConfig, Home, check_name
from layerrun.policy import Policy
from layerrun.terms import Network, NetworkKind

__all__ = ["Said", "said_of", "without_grants"]


@attrs.frozen
class Said:
    """What labels say: how many layers are the base's, its digest and name, and the app's configuration.

    Of layers alone ``lowest`` is 0: ``source`` is where their base came from, ``oci://…@…``, and ``machine`` what it is
    that they lie over the / of; each ``""`` where nothing is said.
    """

    lowest: int
    digest: str | None
    base_name: str
    config: AppConfig | None
    source: str = ""
    machine: str = ""


def said_of(pulled: Pulled, name: str) -> Said:
    """Read the labels; an image without them is a base as a whole. Raises `ArchiveError`."""
    labels, count, alone = pulled.labels(), len(pulled.image.layers), pulled.image.alone
    known = isinstance(labels.get(APP_LABEL), str) and isinstance(labels.get(BASE_LABEL), str)
    if not known and not alone:
        return Said(count, None, name, None)
    try:
        base, app = json.loads(labels[BASE_LABEL]), json.loads(labels[APP_LABEL])
        if (base["version"], app["version"]) != (1, 1):
            raise ArchiveError("the app was pushed by a newer layerrun", hint="update this one")
        lowest, digest = base["layers"], base["digest"]
        over_host = alone and digest is None and base["name"] == HOST_BASE
        if type(lowest) is not int or not (0 < lowest <= count if not alone else lowest == 0 < count):
            raise ValueError("its layers")
        if not over_host and not is_digest(digest):
            raise ValueError("its digest")
        config = AppConfig.from_json({**app["config"], "base": HOST_BASE, "layers": []})
        base_name = check_name(base["name"], "name of a base")
        return Said(lowest, digest, base_name, config, _source(base), _machine(base) if over_host else "")
    except (ValueError, KeyError, TypeError, AttributeError, UsageError) as error:
        raise ArchiveError(
            f"what the image says of its app makes no sense: {error}",
            hint=None if alone else "`layerrun base pull` takes it as a base",
        ) from None


def _source(base: Mapping[str, Any]) -> str:
    """Return where a base came from, if that is a reference with a digest: it is shown, and may be typed."""
    found = base.get("source", "")
    reference = Reference.parse(found) if isinstance(found, str) and found.startswith(SCHEME) else None
    return str(reference) if reference is not None and reference.digest else ""


def _machine(base: Mapping[str, Any]) -> str:
    found = base.get("machine", "")
    return found[:80] if isinstance(found, str) and found.isprintable() else ""


def without_grants(config: AppConfig, left_out: list[str]) -> AppConfig:
    """Take from a configuration what reaches beyond the app's own files; say what that was."""
    policy = config.policy
    left_out += [f"share {share}" for share in config.shares]
    # A name without a value is a variable of whoever starts the app.
    left_out += [f"env {word}" for word in config.env if "=" not in word]
    env = tuple(word for word in config.env if "=" in word)
    if config.home is Home.SHARE:
        left_out.append("home share")
    for what, values in (
        ("publish", policy.publish),
        ("socket", policy.sockets),
        ("device", policy.devices),
        ("allow", policy.allow),
    ):
        left_out += [f"{what} {value}" for value in values]
    left_out += [f"health {command}" for command in config.health]
    network = policy.network
    asked = policy.grants().network
    if asked.kind not in (NetworkKind.NONE, NetworkKind.PRIVATE):
        # Most presets have the machine's network, too, and its servers on loopback.
        left_out.append(f"network {asked}")
        network = Network(NetworkKind.PRIVATE)
    preset = policy.preset
    if preset == "desktop":
        left_out.append(f"preset {preset}")
        preset = "default"
    kept = Policy(
        preset=preset,
        network=network,
        deny=policy.deny,
        limits=policy.limits,
        user=policy.user,
        max_size=policy.max_size,
    )
    home = Home.OVERLAY if config.home is Home.SHARE else config.home
    return attrs.evolve(config, shares=(), home=home, policy=kept, env=env, health=())
