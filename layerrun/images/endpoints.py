"""Where a repository is to be asked for: registries.conf, its mirrors, what is blocked.

The file is that of containers-registries.conf(5), version 2. Short names are not for us: a reference has its host.
"""

from __future__ import annotations

import glob
import os
import tomllib
from typing import Any

import attrs

from layerrun.errors import RegistryError
from layerrun.images.reference import Reference

__all__ = ["Endpoint", "endpoints"]

SYSTEM = "/etc/containers"


@attrs.frozen
class Endpoint:
    """A place to pull a reference from: its own, or a mirror's; ``insecure`` as the file says."""

    reference: Reference
    insecure: bool = False


def endpoints(reference: Reference, *, pull: bool) -> list[Endpoint]:
    """Return where to ask for a reference, in order: mirrors (to pull only), then the registry that it names.

    Raises `RegistryError` for what is blocked, and for a file that cannot be read.
    """
    best: tuple[int, dict[str, Any]] | None = None
    for path in _paths():
        data = _read(path)
        for entry in _tables(data.get("registry")):
            prefix = entry.get("prefix") or entry.get("location")
            if (
                isinstance(prefix, str)
                and (length := _matches(prefix, reference))
                and length >= (best or (0,))[0]
            ):
                best = length, entry
    if best is None:
        return [Endpoint(reference)]
    entry = best[1]
    if entry.get("blocked") is True:
        raise RegistryError(f"{reference} is blocked in registries.conf")
    prefix = str(entry.get("prefix") or entry.get("location"))
    found = [
        Endpoint(_moved(reference, prefix, str(mirror["location"])), mirror.get("insecure") is True)
        for mirror in (_tables(entry.get("mirror")) if pull else [])
        if mirror.get("location") and _serves(mirror, entry, reference)
    ]
    own = _moved(reference, prefix, str(entry.get("location") or prefix))
    return [*found, Endpoint(own, entry.get("insecure") is True)]


def _paths() -> list[str]:
    """Return the files in the order in which later ones count more."""
    if explicit := os.environ.get("CONTAINERS_REGISTRIES_CONF"):
        return [explicit]
    own = os.path.join(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"), "containers")
    main = (
        f"{own}/registries.conf" if os.path.exists(f"{own}/registries.conf") else f"{SYSTEM}/registries.conf"
    )
    drop_ins = [sorted(glob.glob(f"{glob.escape(at)}/registries.conf.d/*.conf")) for at in (SYSTEM, own)]
    return [main, *drop_ins[0], *drop_ins[1]]


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise RegistryError(
            f"{path!r} cannot be read: {error}", hint="repair it: registries.conf(5)"
        ) from None


def _tables(value: Any) -> list[dict[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _matches(prefix: str, reference: Reference) -> int:
    """Return how much of a reference a prefix matches, 0 if it does not; ``*.example.com`` matches hosts below it."""
    if prefix.startswith("*."):
        return len(prefix) if reference.host.partition(":")[0].endswith(prefix[1:]) else 0
    whole = reference.repository
    return len(prefix) if whole == prefix or whole.startswith(prefix.rstrip("/") + "/") else 0


def _moved(reference: Reference, prefix: str, location: str) -> Reference:
    """Put a location in the place of a prefix."""
    if prefix.startswith("*.") or not location:
        return reference
    host, _, name = (location.rstrip("/") + reference.repository[len(prefix.rstrip("/")) :]).partition("/")
    return attrs.evolve(reference, host=host, name=name)


def _serves(mirror: dict[str, Any], entry: dict[str, Any], reference: Reference) -> bool:
    kind = mirror.get("pull-from-mirror", "all")
    if entry.get("mirror-by-digest-only") is True:
        kind = "digest-only"
    return kind in ("all", "digest-only" if reference.digest else "tag-only")
