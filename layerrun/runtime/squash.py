"""Keeping stacks shallow: many frozen layers become one, while apps that have them mounted go on running.

A start costs something for each layer, and the kernel takes 500 lowers at most.
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from layerrun.errors import BusyError, LayerrunError
from layerrun.model import App, Layer
from layerrun.runtime import jobs
from layerrun.runtime.units import layer_folder, note_since, since
from layerrun.runtime.uppers import read_roots, write_roots
from layerrun.store.freezing import GATHERED, drop_unused
from layerrun.store.fs import explain, fsync_dir, make_dir, open_dir, present, write_file
from layerrun.store.making import now
from layerrun.store.plans import forget_plan
from layerrun.store.staging import new_id
from layerrun.store.trash import in_foreground

if TYPE_CHECKING:
    from layerrun.store.store import Store

__all__ = ["DEEP", "DEEPEST", "keep_shallow", "remove", "squash"]

# Of more layers than this one is made, in the background; with more than that nothing is frozen before it is done.
DEEP = 20
DEEPEST = 400


def keep_shallow(store: Store, app: App) -> None:
    """See to it that an app's stack does not become too deep: begin to make one layer of many, or do it."""
    depth = len(app.stack)
    if depth <= DEEP:
        return
    if in_foreground() or depth >= DEEPEST:
        squash(store, app)
        return
    with suppress(OSError, LayerrunError), _alone(store, wait=False):
        pass  # nobody else is at it
    with suppress(OSError):
        _in_background(
            [sys.executable, "-I", "-m", "layerrun", "--store", store.path, "squash", "--idle", app.name]
        )


def _in_background(words: Sequence[str]) -> None:
    """Start a command that outlives us, and whose end nobody waits for."""
    import subprocess

    nothing = subprocess.DEVNULL
    subprocess.run(
        ["/bin/sh", "-c", '"$@" &', "sh", *words],
        stdin=nothing,
        stdout=nothing,
        stderr=nothing,
        start_new_session=True,
        cwd="/",
        check=False,
    )


@contextmanager
def _alone(store: Store, *, wait: bool) -> Iterator[None]:
    """Hold the lock of those who make one layer of many. Raises `BusyError` if another does and ``wait`` is not set."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with explain("open the lock of the layers of", store.path):
        fd = os.open("squash.lock", flags, 0o600, dir_fd=store.fd)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise BusyError("another process makes one layer of many already") from None
        yield
    finally:
        os.close(fd)


def squash(store: Store, app: App, *, wait: bool = True) -> int:
    """Make one layer of an app's frozen ones, and one of those of its factory state; return how many fewer there are.

    The app may run. What has the same layers beneath it stands on the new one from then on: other apps, snapshots.
    The old ones go when nothing stands on them any more, and no start of before has them mounted.
    Raises `BusyError` if another process is at it and ``wait`` is not set.
    """
    fewer = 0
    with _alone(store, wait=wait):
        for part in ("frozen", "factory"):
            app = store.app_again(app)
            run = app.frozen if part == "frozen" else app.config.layers
            if len(run) > 1 and _squash(store, app, run):
                fewer += len(run) - 1
        drop_unused(store)
    return fewer


def _squash(store: Store, app: App, run: tuple[str, ...]) -> bool:
    """Make one layer of ``run`` (the lowest first) and put it in the place of these; say whether anything took it."""
    with store.ticket(app.ids) as ticket:
        made = Layer(new_id(), app.ids, now())
        with explain("make one layer of those of", app.name):
            make_dir(ticket.fd, "layer")
            fd = open_dir(ticket.fd, "layer")
            try:
                _fill(store, app, run, fd)
            finally:
                os.close(fd)
            _sync(ticket.fd)
            os.rename("layer", f"layers/{made.id}", src_dir_fd=ticket.fd, dst_dir_fd=store.fd)
            fsync_dir(store.fd, "layers")
        if _record(store, made, run):
            return True
        os.rename(f"layers/{made.id}", "layer", src_dir_fd=store.fd, dst_dir_fd=ticket.fd)
        return False


def remove(
    store: Store, going: Sequence[App], *, keep_data: bool = False, along: Collection[str] | None = None
) -> list[str]:
    """Remove an app, the first of ``going``, with its profiles, the others; see `Store.remove_app`.

    What is kept has what the frozen layers held, too: as one, ``frozen``, beside the upper.
    """
    for app in going if keep_data else ():
        if app.frozen:
            _gather(store, app)
    return store.remove_app(going[0].name, keep_data=keep_data, only=going[0].id, along=along)


def _gather(store: Store, app: App) -> None:
    """Put what an app's frozen layers hold into its data unit."""
    with store.app_lock(app, "remove"), store.ticket(app.ids) as ticket:
        app = store.app_again(app)
        if not app.frozen:
            return
        with explain("gather the layers of", app.name):
            make_dir(ticket.fd, GATHERED)
            fd = open_dir(ticket.fd, GATHERED)
            try:
                _fill(store, app, app.frozen, fd)
                write_file(fd, "of", " ".join(app.frozen))
            finally:
                os.close(fd)
            _sync(ticket.fd)
            data = store.open_data(app)
            try:
                if present(data, GATHERED):  # of a removal that was cut short
                    os.rename(GATHERED, "old", src_dir_fd=data, dst_dir_fd=ticket.fd)
                os.rename(GATHERED, GATHERED, src_dir_fd=ticket.fd, dst_dir_fd=data)
                os.fsync(data)
            finally:
                os.close(data)


def _sync(fd: int) -> None:
    from layerrun.native.syscalls import syncfs

    syncfs(fd)


def _fill(store: Store, app: App, run: Sequence[str], fd: int) -> None:
    """Fill the folder of a new layer, ``fd``."""
    roots: set[bytes] = set()
    begun = []
    for name in run:
        with layer_folder(store, name) as layer:
            roots.update(read_roots(layer))
            begun.append(since(layer))
    homes = [name for name in reversed(run) if present(store.fd, f"layers/{name}/home")]
    stack = app.stack
    beneath = any(present(store.fd, f"layers/{name}/home") for name in stack[: stack.index(run[0])])
    top = open_dir(store.fd, "layers")
    try:
        jobs.on_files(app, jobs.squash_job, [top, fd], list(reversed(run)), "tree", app.ids.userxattr, False)
        if homes:
            jobs.on_files(app, jobs.squash_job, [top, fd], homes, "home", app.ids.userxattr, not beneath)
    finally:
        os.close(top)
    write_roots(fd, sorted(roots))
    note_since(fd, begun)


def _record(store: Store, made: Layer, run: tuple[str, ...]) -> bool:
    """Put the new layer in the place of ``run`` wherever that stands; say whether it stood anywhere."""
    catalog, found = store.catalog, False
    with catalog.transaction():
        catalog.add_layer(made)
        for app_id, parent, layers, frozen in catalog.layer_lists():
            new = _exchanged(layers, run, made.id), _exchanged(frozen, run, made.id)
            if new == (layers, frozen):
                continue
            found = True
            catalog.exchange_layers(app_id, new[1], None if parent or new[0] == layers else new[0])
            for one in _family(store, app_id, profiles=new[0] != layers):
                forget_plan(store, one.name)
                # It may have them mounted, or be about to. Whoever finds it ended takes this back.
                catalog.add_uses(one.id, run)
        for snapshot in catalog.snapshots():
            lists = snapshot.layers, snapshot.frozen
            new = _exchanged(lists[0], run, made.id), _exchanged(lists[1], run, made.id)
            if new != lists:
                found = True
                catalog.set_snapshot_layers(snapshot, *new)
        if not found:
            catalog.delete_layers([made.id])
    return found


def _family(store: Store, app_id: str, *, profiles: bool) -> list[App]:
    app = store.catalog.app_by_id(app_id)
    return ([] if app is None else [app]) + (store.catalog.profiles(app_id) if profiles else [])


def _exchanged(layers: tuple[str, ...], run: tuple[str, ...], new: str) -> tuple[str, ...]:
    """Return ``layers`` with ``new`` in the place of ``run``, if they hold that."""
    for at in range(len(layers) - len(run) + 1):
        if layers[at : at + len(run)] == run:
            return (*layers[:at], new, *layers[at + len(run) :])
    return layers
