"""Tree bases: root file systems in the store, which never change: opened, and read again to verify them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import attrs

from layerrun.bases.manifest import digest_of
from layerrun.errors import DamagedError, UsageError
from layerrun.model import HOST_BASE, Base, IdMode
from layerrun.store.fs import DIR_FLAGS, present
from layerrun.store.store import Store

__all__ = ["Problem", "differences", "in_userns", "open_folder", "open_root", "verify"]


@attrs.frozen
class Problem:
    """A path of a base that is not as imported. ``kind``: changed, missing, added; ``path`` as seen inside."""

    kind: str
    path: str


def open_folder(store: Store, directory: str) -> int:
    """Open a folder that holds a root file system, and not the store; else `UsageError`. The caller closes it."""
    path = os.path.realpath(directory)
    try:
        fd = os.open(path, DIR_FLAGS)
    except FileNotFoundError:
        raise UsageError(f"there is no folder {directory!r}") from None
    except NotADirectoryError:
        raise UsageError(f"{directory!r} is not a folder") from None
    except PermissionError:
        raise UsageError(f"{directory!r} cannot be read by you") from None
    try:
        if os.path.commonpath([path, store.path]) == path:
            raise UsageError(f"{directory!r} holds the store itself ({store.path!r})")
        if not {"usr", "bin"} & set(os.listdir(fd)):
            raise UsageError(
                f"{directory!r} does not look like a root file system: it has neither usr nor bin",
                hint="name the folder that is to be / inside, such as mmdebstrap or debootstrap makes",
            )
    except BaseException:
        os.close(fd)
        raise
    return fd


def verify(store: Store, base: Base) -> list[Problem]:
    """Read every byte of a base and name, sorted by path, what is not as it was imported.

    The host base has no digest: there is nothing to compare it with. Raises `DamagedError` when the
    manifest itself is missing or altered.
    """
    if base.name == HOST_BASE:
        raise UsageError("the base 'host' is the machine's own /, of which nothing is recorded to verify")
    os.close(store.open_base(base))
    fd = os.open(f"bases/{base.id}", DIR_FLAGS, dir_fd=store.fd)
    try:
        try:
            digest = digest_of(fd, "manifest")
        except FileNotFoundError:
            digest = "nothing"
        if digest != base.digest:
            raise DamagedError(
                f"the manifest of base {base.name!r} was altered: {digest} is there, {base.digest} was recorded",
                hint="import the base again under another name",
            )
        found = differences(store, base.ids, fd)
    finally:
        os.close(fd)
    return [Problem(kind, path) for path, kind in sorted((path, kind) for kind, path in found)]


def differences(store: Store, ids: IdMode | None, fd: int) -> list[tuple[str, str]]:
    """Return (kind, path) of what is not as the manifest in the folder ``fd`` says, which somebody has verified."""
    owners = ids is not IdMode.SINGLE
    out = os.memfd_create("differences")
    try:
        if store.rootless:
            in_userns(ids, f"{__name__}:verify_here", fd, out, owners, fds=(fd, out))
        else:
            verify_here(fd, out, owners)
        with open(out, "rb", closefd=False) as file:
            file.seek(0)
            told = file.read().split(b"\0")[:-1]
    finally:
        os.close(out)
    pairs = (one.partition(b" ") for one in told)
    return [
        (kind.decode("ascii"), "/" + os.fsdecode(b"" if path == b"." else path)) for kind, _, path in pairs
    ]


def open_root(base: int) -> int:
    """Open the root folder of a base by the base's own folder; an image is mounted for it."""
    from layerrun.native.volumes import open_lower_image

    if present(base, "image"):
        return open_lower_image(base, "image")
    return os.open("tree", DIR_FLAGS, dir_fd=base)


def verify_here(base: int, out: int, owners: bool) -> None:
    """Compare the folder ``base`` with its manifest; see `layerrun.native.intake.verify`."""
    from layerrun.native import intake

    with ExitStack() as stack:

        def opened(name: str, flags: int) -> int:
            fd = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=base)
            stack.callback(os.close, fd)
            return fd

        links = opened("links", os.O_RDONLY) if present(base, "links") else -1
        tree, manifest = open_root(base), opened("manifest", os.O_RDONLY)
        stack.callback(os.close, tree)
        intake.verify(tree, manifest, links, out, owners=owners)


def in_userns(ids: IdMode | None, function: str, *args: Any, fds: Sequence[int]) -> Any:
    """Call a function as root of a user namespace that maps what a rootless base of this id mode holds.

    Also where all is the caller's own: only a root of sorts can read a folder of mode 0000.
    """
    from layerrun.native.worker import run_in_userns

    return run_in_userns(function, *args, own=ids is not IdMode.SUBIDS, pass_fds=fds)
