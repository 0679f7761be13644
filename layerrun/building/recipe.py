"""Recipes as values: what an app is built from, step by step. `layerrun.config.recipe` reads them from TOML.

Paths are as in `layerrun.model`: ``str`` with surrogateescape. As JSON a recipe holds all that it takes to build again,
but for the files that it adds: those are in the layers that it came to.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

import attrs

from layerrun.errors import DamagedError, UsageError
from layerrun.model import AppConfig

__all__ = ["DROPPED", "EPOCH", "Add", "Recipe", "Run", "Step"]

# 2000-01-01: no file that a step makes looks newer. Zip files cannot hold times before 1980.
EPOCH = 946684800
# What packages leave behind that tells when or how often something was done. Folders stay: servers log into them.
DROPPED = (
    "/var/log/*.log",
    "/var/log/apt/*",
    "/var/log/[blw]tmp",
    "/var/log/lastlog",
    "/var/log/faillog",
    "/var/cache/apt/*.bin",
    "/var/cache/apt/archives/*.deb",
    "/var/cache/ldconfig/aux-cache",
    "/var/cache/debconf/*-old",
    "/var/lib/dpkg/*-old",
    "/root/.cache/*",
    "/root/.bash_history",
)


@attrs.frozen
class Run:
    """A command that is run over what the steps before came to. ``env`` are words NAME=VALUE.

    ``cache`` are folders that are kept from one build to the next, and are no part of what the step comes to.
    """

    argv: tuple[str, ...]
    env: tuple[str, ...] = ()
    workdir: str = "/"
    user: str | None = None
    network: str = "none"
    cache: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Return what a person would call it."""
        if self.argv[:2] == ("/bin/sh", "-ec"):
            return "run " + " ".join(self.argv[2].split())
        return "run " + shlex.join(self.argv)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON data."""
        said = {
            "run": list(self.argv),
            "env": list(self.env),
            "workdir": self.workdir,
            "user": self.user,
            "network": self.network,
        }
        return said | {"cache": list(self.cache)} if self.cache else said


@attrs.frozen
class Add:
    """Files that are put at ``target``: those of ``source``, beneath the recipe's folder, or one that holds ``text``.

    A target that ends in ``/`` is the folder that a single file is put into. ``owner`` is uid and gid as seen inside.
    Files get ``mode``; without it 0755 if they may be executed, else 0644. Names that match a pattern of ``exclude``
    are left out.
    """

    target: str
    source: str | None = None
    text: str | None = None
    owner: tuple[int, int] = (0, 0)
    mode: int | None = None
    exclude: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Return what a person would call it."""
        return f"write {self.target}" if self.source is None else f"add {self.source} to {self.target}"

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON data."""
        return {
            "add": self.source,
            "text": self.text,
            "to": self.target,
            "owner": list(self.owner),
            "mode": self.mode,
            "exclude": list(self.exclude),
        }


Step = Run | Add


def _step(data: Mapping[str, Any]) -> Step:
    if "run" in data:
        rest = {key: data[key] for key in ("workdir", "user", "network")}
        return Run(tuple(data["run"]), tuple(data["env"]), **rest, cache=tuple(data.get("cache", ())))
    uid, gid = data["owner"]
    return Add(data["to"], data["add"], data["text"], (uid, gid), data["mode"], tuple(data["exclude"]))


@attrs.frozen
class Recipe:
    """How an app is built.

    Attributes:
        base: the base it is built over.
        steps: what is done, in this order.
        name: what the app is called, where nobody says another name.
        epoch: seconds; a file that a step has changed gets this time.
        drop: patterns (`layerrun.layers.globs`) of paths at which nothing is kept of what a step has changed.
        app: what the recipe says of the app's configuration, as `AppConfig.to_json` has it.
        folder: where the files to add lie; ``None``: nowhere, it came from a pipe.
    """

    base: str
    steps: tuple[Step, ...]
    name: str | None = None
    epoch: int = EPOCH
    drop: tuple[str, ...] = DROPPED
    app: Mapping[str, Any] = attrs.field(factory=dict, hash=False)
    folder: str | None = None

    def configured(self, config: AppConfig, layers: tuple[str, ...]) -> AppConfig:
        """Return a configuration with all that the recipe says, and the layers that it came to."""
        said = {**config.to_json(), **self.app, "base": self.base, "layers": list(layers)}
        return AppConfig.from_json(said)

    def to_json(self) -> str:
        """Return it as JSON text."""
        data = attrs.asdict(self, filter=lambda field, _: field.name != "steps")
        return json.dumps(data | {"app": dict(self.app), "steps": [step.to_json() for step in self.steps]})

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Make a recipe from what `to_json` gave. Raises `DamagedError`."""
        try:
            data = json.loads(text)
            steps = tuple(map(_step, data.pop("steps")))
            return cls(**{**data, "drop": tuple(data["drop"])}, steps=steps)
        except (ValueError, TypeError, KeyError, AttributeError, UsageError) as error:
            raise DamagedError(f"a recipe in the catalog is damaged: {error}") from error
