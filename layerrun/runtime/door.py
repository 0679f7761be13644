"""Where the front door, bin/layerrun, lies: see docs/architecture.md."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator

__all__ = ["beside", "locate"]

_found: dict[str, str] = {}


def beside() -> str:
    """Return where the front door of this Python lies, if it lies where the scripts of a package do."""
    return os.path.join(os.path.dirname(sys.executable or "/"), "layerrun")


def _places() -> Iterator[str]:
    # A Python may take the package from another environment, and the two must be of one version.
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if package.endswith(("/site-packages/layerrun", "/dist-packages/layerrun")):
        yield os.path.normpath(os.path.join(package, "../../../../bin/layerrun"))
    yield beside()
    # A program that embeds Python has nothing beside it.
    for scheme in (None, f"{os.name}_user"):
        scripts = sysconfig.get_path("scripts", scheme) if scheme else sysconfig.get_path("scripts")
        yield os.path.join(scripts, "layerrun")


def _is_one(path: str) -> bool:
    """Say whether this is a program in C: not a script of an older layerrun, nor a wrapper."""
    try:
        with open(path, "rb") as file:
            return file.read(4) == b"\x7fELF" and os.access(path, os.X_OK)
    except OSError:
        return False


def locate() -> str | None:
    """Return the path of the front door of this installation, or ``None``.

    That of the environment that the package is installed in, else beside this Python, else where its scripts go.
    """
    key = sys.executable or ""
    found = _found.get(key)
    if found is None:
        found = next(filter(_is_one, _places()), None)
        if found is not None:
            _found[key] = found
    return found
