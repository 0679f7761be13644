"""Work on the files of steps where their ids can be read: here, or in a helper that maps them (`runtime.jobs`).

Arguments and results are plain JSON data; descriptors come first.
"""

from __future__ import annotations

import base64
import os
from typing import Any

import attrs

from layerrun.building import adding, clamping, listing
from layerrun.layers.putback import Stack
from layerrun.layers.restore import restore_paths
from layerrun.layers.tidy import drop, droppable

__all__ = ["add_job", "clean_job", "compare_job", "list_job", "source_job"]


def source_job(source: int, exclude: list[str], mode: int | None) -> str:
    """Return the digest of what would be added from an open folder or file."""
    return adding.digest_of(source, exclude, mode)


def add_job(*arguments: Any) -> list[Any]:
    """Arguments: the source, the upper, the lowers (topmost first); then userxattr and the options of `adding.add`.

    Return where it was put, and the digest of what was put there.
    """
    source, upper, *lowers, userxattr, options = arguments
    stack = Stack(lowers, userxattr, False)
    target, digest = adding.add(source, upper, stack, **options)
    return [os.fsdecode(target), digest]


def clean_job(*arguments: Any) -> None:
    """Arguments: the upper, the trash, the lowers; then userxattr, patterns, since when (ns), and the epoch.

    Take out of an upper what no step keeps and what equals what lies beneath; then clamp the times.
    """
    upper, trash, *lowers, userxattr, patterns, since_ns, epoch = arguments
    if patterns:
        restore_paths(upper, lowers, patterns, trash, userxattr=userxattr)
    drop(upper, trash, droppable(upper, lowers, userxattr=userxattr))
    clamping.clamp(upper, trash, since_ns, epoch, userxattr=userxattr)


def list_job(folder: int, userxattr: bool) -> list[Any]:
    """Write the listing of the layer in a folder; return digest, entries, bytes."""
    return list(attrs.astuple(listing.write_listing(folder, userxattr=userxattr)))


def compare_job(first: int, second: int, userxattr: bool) -> list[list[str]]:
    """Return where two layers' trees differ: lists of a path, in base64, and of how."""
    found = listing.differences(*(listing.read_lines(fd, userxattr=userxattr) for fd in (first, second)))
    return [[base64.b64encode(path).decode(), how] for path, how in found]
