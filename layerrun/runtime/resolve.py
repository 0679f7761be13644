"""Following a path within a root: where it leads, without ever leaving that root. See path_resolution(7)."""

from __future__ import annotations

import os

from layerrun.errors import UsageError

__all__ = ["resolve_in_root"]

_LINKS = 40  # as the kernel


def resolve_in_root(root: str, path: str) -> tuple[str, bool]:
    """Return where ``path`` leads in the tree at ``root``, without links, and whether that exists.

    What does not exist is taken literally from there on. Raises `UsageError` on a loop of links.
    """
    parts = [part for part in path.split("/") if part and part != "."][::-1]
    done: list[str] = []
    links, there = 0, True
    while parts:
        part = parts.pop()
        if part == "..":
            done = done[:-1]
            continue
        here = "/".join([root.rstrip("/"), *done, part])
        if there:
            try:
                text = os.readlink(here)
            except OSError:
                there = os.path.lexists(here)
                done.append(part)
                continue
            links += 1
            if links > _LINKS:
                raise UsageError(f"{path!r} is a loop of links")
            if text.startswith("/"):
                done = []
            parts += [p for p in text.split("/") if p and p != "."][::-1]
            continue
        done.append(part)
    return "/" + "/".join(done), there
