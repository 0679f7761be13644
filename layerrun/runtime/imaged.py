"""What an app takes over from the image that its base came from."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from layerrun.model import AppConfig, Base
from layerrun.runtime.resolve import resolve_in_root

__all__ = ["folder_of_image", "from_image"]


def from_image(config: AppConfig, base: Base) -> AppConfig:
    """Take over from the base's image what the app does not say: its command, and variables that it does not set.

    The app keeps them, to be seen and edited, whatever later versions of the base say.
    """
    image = base.origin.get("config")
    if not isinstance(image, Mapping):
        return config
    said = {word.partition("=")[0] for word in config.env}
    # What has no value would be taken from whoever starts the app.
    more = tuple(
        word for word in image.get("env", ()) if word.find("=") > 0 and word.partition("=")[0] not in said
    )
    command = config.command or (*image.get("entrypoint", ()), *image.get("cmd", ()))
    return attrs.evolve(config, env=more + config.env, command=command)


def folder_of_image(base: Base, root: str) -> str | None:
    """Return the working folder that the base's image wants, if it is there; ``root``: where the base is to be seen."""
    image = base.origin.get("config")
    wanted = image.get("workdir") if isinstance(image, Mapping) else None
    if not wanted:
        return None
    path, there = resolve_in_root(root, wanted)
    return path if there else None
