"""Taking trees in, by descriptors: csrc/intake.h as Python."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence

import attrs

from layerrun.errors import DamagedError
from layerrun.native import error_text, ffi, lib, new_error, raise_error

__all__ = [
    "Options",
    "Taken",
    "emit_tree",
    "keep_objects",
    "share",
    "shares",
    "sweep_objects",
    "take",
    "verify",
]


@attrs.frozen
class Options:
    """What `take` works on and how; see ``struct lr_intake_options``. Descriptors are -1 where there is none."""

    stream: int
    cancel: int
    progress: int
    tree: int
    objects: int
    fresh: int
    records: int
    layers: int
    manifest: int
    links: int
    archive: int
    plan: str
    scheme: str
    owners: bool
    devices: bool
    strict: bool
    known: bool
    marks: int
    ids: int
    entries: int
    size: int


@attrs.frozen
class Taken:
    """What came of it; ``error`` is ``None`` or (errno, what, path), and then nothing else counts.

    ``fresh`` and ``fresh_size``: new objects and their bytes; ``known``: files that an object was there for.
    """

    digest: str = ""
    entries: int = 0
    size: int = 0
    fresh: int = 0
    fresh_size: int = 0
    known: int = 0
    error: tuple[int, str, str] | None = None


def take(options: Options) -> Taken:
    """Take a stream in. Errors are returned, not raised: the source may know better what went wrong."""
    err, result = new_error(), ffi.new("struct lr_intake_result *")
    values = attrs.asdict(options)
    scheme = ffi.new("char[]", values.pop("scheme").encode("ascii"))
    plan = ffi.new("char[]", values.pop("plan").encode("ascii"))
    given = ffi.new("struct lr_intake_options *", {**values, "plan": plan, "scheme": scheme})
    if lib.lr_intake(given, result, err) < 0:
        code, _, step, path = error_text(err)
        return Taken(error=(code, step, path))
    return Taken(
        ffi.string(result.digest).decode("ascii"),
        result.entries,
        result.size,
        result.fresh,
        result.fresh_size,
        result.known,
    )


def emit_tree(fd: int, out: int) -> None:
    """Write the tree beneath the folder ``fd`` to ``out`` as a stream (csrc/stream.h).

    Sockets are left out, what is mounted in it too. Raises `layerrun.errors.SystemError`; with EPIPE nobody reads.
    """
    err = new_error()
    if lib.lr_emit_tree(fd, out, err) < 0:
        raise_error(err)


def share(tree: int, objects: int, fresh: int, scheme: str) -> None:
    """Make the files of a tree, which nobody uses yet, names of objects; see ``lr_share``."""
    err = new_error()
    if lib.lr_share(tree, objects, fresh, scheme.encode("ascii"), err) < 0:
        raise_error(err)


def keep_objects(fresh: int, objects: int) -> None:
    """Move new objects, which are durable by now, to where every import looks for them."""
    err = new_error()
    if lib.lr_objects_keep(fresh, objects, err) < 0:
        raise_error(err)


def verify(tree: int, manifest: int, links: int, out: int, *, owners: bool) -> None:
    """Read a whole tree; write to ``out`` what is not as the manifest says, as ``lr_verify`` does.

    Without ``owners`` the tree does not have those of the manifest: all is 0:0. Raises `DamagedError` where the
    manifest is none.
    """
    err = new_error()
    if lib.lr_verify(tree, manifest, links, owners, out, err) < 0:
        if err.code == errno.EBADMSG:
            raise DamagedError("the manifest of the base is of another version or not a manifest")
        raise_error(err)


def sweep_objects(objects: int, *, dry: bool = False) -> tuple[int, int]:
    """Remove the objects that no tree has, or with ``dry`` only look; return how many, and their bytes on disk."""
    err, swept = new_error(), ffi.new("struct lr_swept *")
    if lib.lr_objects_sweep(objects, dry, swept, err) < 0:
        raise_error(err)
    return int(swept.count), int(swept.bytes)


def shares(objects: int, groups: Iterable[Sequence[int]]) -> list[tuple[int, int, int]]:
    """Return bytes on disk for each group of trees that go together.

    Of all in it, of what no other has, and of all groups so far, each file once.
    """
    err, use = new_error(), ffi.new("struct lr_tree_use *")
    handle = lib.lr_shares_open(objects, err)
    if handle == ffi.NULL:
        raise_error(err)
    found = []
    try:
        for group in groups:
            if lib.lr_shares_add(handle, group, len(group), use, err) < 0:
                raise_error(err)
            found.append((int(use.all), int(use.own), int(use.total)))
    finally:
        lib.lr_shares_close(handle)
    return found
