"""Folders that a step finds as an earlier build left them: put into the step's upper before it runs, taken out after.

The folder is moved, not copied, and lies there as an opaque one: the step sees what the cache has and nothing of what
lies beneath. Killed in between, the cache goes with the step's throwaway, and begins empty the next time.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from layerrun.building.adding import Place
from layerrun.errors import BusyError, UsageError
from layerrun.layers import overlay
from layerrun.layers.putback import Stack
from layerrun.native import trees
from layerrun.native.trees import open_beneath
from layerrun.runtime import step_caches
from layerrun.runtime.jobs import on_ids
from layerrun.store.fs import explain, present

if TYPE_CHECKING:
    from layerrun.model import App
    from layerrun.store.store import Store

__all__ = ["lend_job", "lent", "return_job"]

_TREE = "tree"


@contextmanager
def lent(store: Store, app: App, base: str, paths: Sequence[str]) -> Iterator[None]:
    """Let a step's throwaway, which is not running yet, have the caches for ``paths``; over the base of that name.

    Of two builds that want the same one waits for the other. Raises `UsageError` where a file is at a path.
    """
    with ExitStack() as opened:
        # Always in the same order: two builds cannot wait for each other.
        for path in sorted(set(paths), key=lambda path: step_caches.key_of(base, app.ids, path)):
            opened.enter_context(_one(store, app, base, path))
        yield


@contextmanager
def _one(store: Store, app: App, base: str, path: str) -> Iterator[None]:
    with step_caches.locked(store, base, app.ids, path) as folder, ExitStack() as opened:
        upper = store.open_data(app, "upper")
        opened.callback(os.close, upper)
        lowers = store.lower_fds(app)
        for fd in lowers:
            opened.callback(os.close, fd)

        def work(job: Any, *args: Any) -> Any:
            with explain("lend the cache for", path):
                words = (*args, app.ids.userxattr)
                return on_ids(app.ids, job, [folder, upper, *lowers], *words, helped=store.rootless)

        made = work(lend_job, path)
        try:
            yield
        except BusyError:
            raise  # what ran may have it mounted still
        except BaseException:
            work(return_job, made)
            raise
        work(return_job, made)


def lend_job(*arguments: Any) -> list[str]:
    """Arguments: the cache's folder, the upper, the lowers; then the path, userxattr.

    Return where it was put, relative to the root, after the folders on the way that had to be made.
    """
    cache, upper, *lowers, path, userxattr = arguments
    place = Place(upper, Stack(lowers, userxattr, False), (0, 0), 0)
    where, is_folder = place.resolve(path)
    if not where:
        raise UsageError(f"the cache {path!r} is the root folder")
    way = _way(where)
    new = [one for one in way[:-1] if place.kind(one) == "nothing"]
    if present(cache, _TREE):
        place.folder(way[-2] if len(way) > 1 else b"")
        with _parent(upper, where) as (parent, name):
            os.rename(_TREE, name, src_dir_fd=cache, dst_dir_fd=parent)
    else:
        place.folder(where)
    fd = open_beneath(upper, where, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if is_folder:
            overlay.set_opaque(fd, userxattr=userxattr)
        else:
            overlay.clear_opaque(fd, userxattr=userxattr)
    finally:
        os.close(fd)
    return [os.fsdecode(one) for one in (*new, where)]


def return_job(*arguments: Any) -> None:
    """Arguments: the cache's folder, the upper, the lowers; then what `lend_job` gave, userxattr.

    What the step has made of the folder is the cache from then on; nothing of it is left in the upper.
    """
    cache, upper, *_, made, _ = arguments
    *new, where = map(os.fsencode, made)
    with suppress(FileNotFoundError, NotADirectoryError), _parent(upper, where) as (parent, name):
        if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            trees.remove_tree(cache, os.fsencode(_TREE))
            os.rename(name, _TREE, src_dir_fd=parent, dst_dir_fd=cache)
        else:
            os.unlink(name, dir_fd=parent)  # the step has removed it, or put something else there
    for path in reversed(new):
        with suppress(OSError), _parent(upper, path) as (parent, name):
            os.rmdir(name, dir_fd=parent)  # unless the step has put something beside the cache


def _way(path: bytes) -> list[bytes]:
    parts = path.split(b"/")
    return [b"/".join(parts[: number + 1]) for number in range(len(parts))]


@contextmanager
def _parent(upper: int, path: bytes) -> Iterator[tuple[int, bytes]]:
    folder, _, name = path.rpartition(b"/")
    fd = open_beneath(upper, folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd, name
    finally:
        os.close(fd)
