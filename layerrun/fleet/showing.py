"""Looking at a channel that one runs: its roles and keys, its releases, and what followers know it by."""

from __future__ import annotations

import os
from typing import Any, cast

from tuf.api.metadata import (
    Metadata,
    Role,
    Root,
    TargetFile,
)

from layerrun.fleet.release import Release
from layerrun.fleet.repository import Repository, opened

__all__ = ["root_fingerprint", "show"]


def root_fingerprint(path: str) -> str:
    """Return what followers recognise the first root by; ``""`` if it is not in force yet."""
    from layerrun.fleet.trust import fingerprint

    try:
        with open(os.path.join(path, "metadata", "1.root.json"), "rb") as file:
            return fingerprint(file.read())
    except FileNotFoundError:
        return ""


def show(path: str) -> dict[str, Any]:
    """Return, as JSON data, the roles with their keys and when what they signed expires, and the releases."""
    with opened(path) as repository:
        versions = repository.root_versions()
        draft = repository.draft()
        root = repository.root() if versions else cast("Metadata[Root]", draft)
        roles: dict[str, Role] = dict(root.signed.roles)
        ends = {
            "root": root.signed.expires,
            "snapshot": repository.snapshot().signed.expires,
            "timestamp": repository.timestamp().signed.expires,
        }
        releases = []
        top = repository.targets()
        delegations = None if top is None else top.signed.delegations
        roles.update((delegations.roles if delegations else None) or {})
        for name in [role for role in roles if role not in ends]:
            known = repository.targets(name)
            if known is None:
                continue
            ends[name] = known.signed.expires
            releases += [_shown(repository, one) for one in known.signed.targets.values()]
        return {
            "fingerprint": root_fingerprint(path),
            "root": versions[-1] if versions else None,
            "draft": draft.signed.version if draft else None,
            "roles": [
                {
                    "role": name,
                    "threshold": role.threshold,
                    "keys": list(role.keyids),
                    "expires": ends[name].strftime("%Y-%m-%dT%H:%M:%SZ") if name in ends else "",
                }
                for name, role in roles.items()
            ],
            "releases": releases,
        }


def _shown(repository: Repository, target: TargetFile) -> dict[str, Any]:
    channel, _, name = target.path.partition("/")
    with open(
        os.path.join(repository.path, "targets", channel, f"{target.hashes['sha256']}.{name}"), "rb"
    ) as file:
        found = Release.from_bytes(file.read(), channel, name.removesuffix(".json"))
    return {
        "channel": channel,
        "arch": found.arch,
        "version": found.version,
        "sequence": found.sequence,
        "image": found.image.reference or found.image.file,
        "digest": found.image.digest,
    }
