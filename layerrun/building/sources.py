"""What steps add: a file or a folder beneath the recipe's, a text, or what an earlier build has added."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import attrs

from layerrun.building.jobs import source_job
from layerrun.building.recipe import Add
from layerrun.errors import LayerrunError, UsageError
from layerrun.model import IdMode, Layer
from layerrun.native.trees import open_beneath
from layerrun.runtime.jobs import on_ids
from layerrun.store.fs import DIR_FLAGS, explain
from layerrun.store.store import Store

__all__ = ["Source", "opened", "origin_of"]


@attrs.frozen
class Source:
    """An open folder or file that a step adds; ``name`` is what it is called, ``digest`` says what it holds."""

    fd: int
    name: str
    digest: str
    exclude: tuple[str, ...] = ()


def origin_of(step: Add, digest: str, put: str) -> dict[str, object]:
    """Return what is recorded of a layer that a step has added, for `opened` to find it again."""
    return {"add": _spec(step), "content": digest, "at": put}


def _spec(step: Add) -> dict[str, object]:
    data = step.to_json()
    return {key: data[key] for key in ("add", "to", "owner", "mode", "exclude")}


@contextmanager
def opened(
    store: Store, step: Add, ids: IdMode, folder: str | None, built: Sequence[Layer] = ()
) -> Iterator[Source]:
    """Open what a step adds: what the layers ``built`` have of it, if any; else what lies in the recipe's ``folder``.

    Raises `UsageError` if it is not there, or lies behind a link.
    """
    if step.text is not None:
        fd = os.memfd_create("layerrun-text", os.MFD_CLOEXEC)
        try:
            os.write(fd, step.text.encode("utf-8", "surrogateescape"))
            yield _source(ids, fd, "", step, ())
        finally:
            os.close(fd)
        return
    assert step.source is not None
    name = os.path.basename(step.source.rstrip("/"))
    for layer in built:
        if layer.origin.get("add") == _spec(step):
            fd = _in_layer(store, layer, str(layer.origin["at"]))
            break
    else:
        fd = _in_folder(step, folder)
    try:
        yield _source(ids, fd, name or os.path.basename(folder or ""), step, step.exclude)
    finally:
        os.close(fd)


def _source(ids: IdMode, fd: int, name: str, step: Add, exclude: tuple[str, ...]) -> Source:
    with explain("read", step.source or step.target):
        digest = on_ids(ids, source_job, [fd], list(exclude), step.mode)
    return Source(fd, name, digest, exclude)


def _in_layer(store: Store, layer: Layer, path: str) -> int:
    tree = store.open_layer(layer.id)
    try:
        return open_beneath(tree, os.fsencode(path), os.O_RDONLY)
    finally:
        os.close(tree)


def _in_folder(step: Add, folder: str | None) -> int:
    assert step.source is not None
    if folder is None:
        raise UsageError(
            f"the recipe adds {step.source!r}, and lies in no folder", hint="give it as a file: build -f FILE"
        )
    try:
        top = os.open(folder, DIR_FLAGS & ~os.O_NOFOLLOW)
    except OSError as error:
        raise UsageError(
            f"{folder!r}, which the recipe adds from, cannot be opened: {error.strerror}"
        ) from None
    try:
        path = os.path.normpath(step.source)
        fd = open_beneath(top, b"" if path == "." else os.fsencode(path), os.O_RDONLY)
    except LayerrunError as error:
        number = getattr(error, "errno", None)
        if number == errno.ENOENT:
            raise UsageError(f"the recipe adds {step.source!r}, and {folder!r} has no such thing") from None
        if number in (errno.ELOOP, errno.EXDEV, errno.ENOTDIR):
            raise UsageError(
                f"the recipe adds {step.source!r}, which lies behind a link or a mount",
                hint="name what it leads to",
            ) from None
        raise
    finally:
        os.close(top)
    return fd
