"""One step of a build: in a throwaway of its own, over what the steps before came to; then frozen into a layer.

A throwaway for a step is made with its lock held, and goes when nobody holds that any more (`Store.sweep`); what
is staged lies in a ticket. So a build that is killed leaves steps that are done, and nothing else.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

import attrs

from layerrun.bases.intake import publish, renew_objects
from layerrun.bases.sharing import share_layer
from layerrun.building import caching
from layerrun.building.jobs import add_job, clean_job, list_job
from layerrun.building.recipe import Add, Run
from layerrun.building.sources import Source
from layerrun.errors import BuildError, BusyError, LayerrunError, UsageError
from layerrun.model import App, AppConfig, AppKind, Base, IdMode, Layer
from layerrun.policy import Policy
from layerrun.runtime import launch
from layerrun.runtime.jobs import on_ids
from layerrun.runtime.units import dress, is_touched, layer_folder
from layerrun.store import making, removing
from layerrun.store.fs import explain, fsync_dir, make_dir, open_dir
from layerrun.store.making import Beginning, now
from layerrun.store.staging import Ticket, new_id

if TYPE_CHECKING:
    from layerrun.building.recipe import Step
    from layerrun.store.locks import AppLock
    from layerrun.store.store import Store

__all__ = ["Stack", "Stage", "Way", "redirected", "stage"]

# The kernel gives files the time of a clock that may be a tick behind.
_SLACK_NS = 20_000_000
# The same on every machine, whoever builds. The caller's words for these would get through otherwise.
_ENV = {
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "LANGUAGE": "",
    "TZ": "UTC",
    "TERM": "dumb",
    "COLORTERM": "",
    "NO_COLOR": "1",
    "DEBIAN_FRONTEND": "noninteractive",
}


@attrs.frozen
class Stack:
    """What a step stands on: a base, and the ids of layers above it, the lowest first."""

    base: Base
    ids: IdMode
    layers: tuple[str, ...] = ()


@attrs.frozen
class Stage:
    """What a step has come to, in a ticket: the folder ``layer`` of it holds the layer, unless nothing was changed.

    ``put`` is where an `Add` has put its files.
    """

    ticket: Ticket
    layer: Layer | None
    put: str | None = None

    def record(
        self, store: Store, key: str, origin: Mapping[str, object], *, spoilt: Layer | None = None
    ) -> Layer | None:
        """Put the layer into its place and record it, and the step, in one transaction; return the layer.

        If the same step has come to the same over something else, that layer serves. ``spoilt``: a layer that is not
        any more what it was, which serves nobody from then on; nor do the files that it shares.
        """
        layer = None if self.layer is None else attrs.evolve(self.layer, origin=dict(origin))
        fd = self.ticket.fd
        if spoilt is not None:
            with store.catalog.transaction():
                store.catalog.spoil_layer(spoilt.id, now())
        if layer is None or _alike(store, layer) is not None:
            with store.catalog.transaction():
                found = None if layer is None else _alike(store, layer)
                if layer is None or found is not None:
                    store.catalog.add_step(key, None if found is None else found.id, now())
                    return found
        with explain("write the layer of", str(origin.get("step", "a step"))):
            share_layer(store, fd, "layer/tree", layer.ids, anew=spoilt is not None)
            _sync(fd)
            if spoilt is None:
                publish(store, fd)
            else:
                renew_objects(store, self.ticket)
            os.rename("layer", f"layers/{layer.id}", src_dir_fd=fd, dst_dir_fd=store.fd)
            fsync_dir(store.fd, "layers")
        kept: Layer | None = None
        try:
            with store.catalog.transaction():
                # Another build may have come to the same meanwhile, and what no step has is dropped by anybody.
                found = _alike(store, layer) or layer
                if found is layer:
                    store.catalog.add_layer(layer)
                store.catalog.add_step(key, found.id, now())
            kept = found
        finally:
            if kept is not layer:
                os.rename(f"layers/{layer.id}", "layer", src_dir_fd=store.fd, dst_dir_fd=fd)
        return kept


def _alike(store: Store, layer: Layer) -> Layer | None:
    """Return a layer that the same step has come to, with the same digest and the same times."""
    assert layer.digest is not None
    for known in store.catalog.layers_like(layer.digest):
        if known.ids is layer.ids and known.origin == layer.origin:
            return known
    return None


def _sync(fd: int) -> None:
    from layerrun.native.syscalls import syncfs

    syncfs(fd)


@contextmanager
def redirected(output: int | None) -> Iterator[None]:
    """Let what is run have no input, and write to ``output``, an open file; ``None``: as it is."""
    if output is None:
        yield
        return
    saved = [os.dup(fd) for fd in range(3)]
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for fd, source in enumerate((null, output, output)):
            os.dup2(source, fd)
        yield
    finally:
        for fd, source in enumerate(saved):
            os.dup2(source, fd)
            os.close(source)
        os.close(null)


@contextmanager
def _plain() -> Iterator[None]:
    """Let what is run have nothing of the caller's words for languages, and new files the usual modes."""
    names = [name for name in os.environ if name.startswith("LC_")]
    saved = {name: os.environ.pop(name) for name in names}
    umask = os.umask(0o022)
    try:
        yield
    finally:
        os.umask(umask)
        os.environ.update(saved)


@attrs.frozen
class Way:
    """How a step is run.

    Attributes:
        epoch: seconds; what the step has changed gets this time.
        drop: patterns of what is not kept.
        output: an open file that the command writes to; ``None``: the caller's own.
        told: is told of a command that has failed, before the shell.
        shell: if it fails, open a shell where it ran, with the caller's own terminal.
    """

    epoch: int
    drop: tuple[str, ...]
    output: int | None = None
    told: Callable[[BuildError], None] | None = None
    shell: bool = False

    def failed(self, error: BuildError) -> None:
        """Tell of a command that has failed."""
        if self.told is not None:
            self.told(error)


@contextmanager
def stage(store: Store, on: Stack, step: Step, source: Source | None, way: Way) -> Iterator[Stage]:
    """Run a step, and give what it has come to; what is not recorded by then goes. ``source`` is what an `Add` adds.

    Raises:
        BuildError: the command has ended with another status than 0.
        UsageError: what is to be added cannot be.
        KeyboardInterrupt: it was ended by SIGINT.
    """
    since_ns = time.time_ns() - _SLACK_NS
    with _scratch(store, on, step) as (app, lock):
        put = None
        if isinstance(step, Run):
            with caching.lent(store, app, on.base.name, step.cache):
                _run(store, app, lock, step, way)
        else:
            assert source is not None
            put = _add(store, app, step, source, way.epoch)
        _clean(store, app, since_ns, way)
        with store.ticket(app.ids) as ticket:
            layer = _frozen(store, app, ticket) if is_touched(store, app) else None
            yield Stage(ticket, layer, put)


@contextmanager
def _scratch(store: Store, on: Stack, step: Step) -> Iterator[tuple[App, AppLock]]:
    user, network = (step.user, step.network) if isinstance(step, Run) else (None, "none")
    config = AppConfig(
        base=on.base.full_name,
        layers=on.layers,
        env=tuple(f"{name}={value}" for name, value in _ENV.items()),
        policy=Policy(network=network, user=user),
    )
    model = App("", "build", AppKind.THROWAWAY, config, on.ids, None, "", 1)

    def dressed(dir_fd: int, path: str) -> None:
        with ExitStack() as opened:
            data = open_dir(dir_fd, path)
            opened.callback(os.close, data)
            for layer in on.layers[-1:]:
                dress(model, data, opened.enter_context(layer_folder(store, layer)))

    app, lock = making.make_scratch(store, config, on.ids, Beginning((), dressed))
    try:
        yield app, lock
    finally:
        with suppress(LayerrunError, OSError):  # it is swept when its lock is free
            removing.remove_locked(store, [app])
        lock.release()


def _run(store: Store, app: App, lock: AppLock, step: Run, way: Way) -> None:
    env = {"SOURCE_DATE_EPOCH": str(way.epoch)} | dict(word.split("=", 1) for word in step.env)
    try:
        with redirected(way.output), _plain():
            status = launch.run_spare(store, app, lock, step.argv, cwd=step.workdir, env=env)
    except LayerrunError as error:
        # It speaks of an option that a recipe has not.
        hint = "let an earlier step make the workdir" if "--cwd" in (error.hint or "") else error.hint
        wrong = BuildError(str(error), hint=hint, status=error.exit_status)
        way.failed(wrong)
        raise wrong from error
    _ended(app, lock)
    if status == 128 + signal.SIGINT:
        raise KeyboardInterrupt
    if status == 0:
        return
    how = f"signal {status - 128}" if status > 128 else f"status {status}"
    wrong = BuildError(f"it has ended with {how}", status=status)
    way.failed(wrong)
    if way.shell:
        launch.run_spare(store, app, lock, ["/bin/sh"], cwd=step.workdir, env=env)
        _ended(app, lock)
    raise wrong


def _ended(app: App, lock: AppLock) -> None:
    """Wait until nothing has the upper mounted any more, and say that the lock is ours again."""
    if not lock.await_end():
        raise BusyError(f"what ran in {app.shown_name!r} has not ended yet", hint="try again")
    lock.write_holder(os.getpid(), "build")


def _add(store: Store, app: App, step: Add, source: Source, epoch: int) -> str:
    options = {
        "target": step.target,
        "name": source.name,
        "owner": list(step.owner),
        "mode": step.mode,
        "exclude": list(source.exclude),
        "epoch": epoch,
    }
    with ExitStack() as opened:
        fds = [source.fd]
        upper = store.open_data(app, "upper")
        opened.callback(os.close, upper)
        lowers = store.lower_fds(app)
        for fd in lowers:
            opened.callback(os.close, fd)
        with explain(f"add to {step.target}"):
            put, digest = on_ids(app.ids, add_job, [*fds, upper, *lowers], app.ids.userxattr, options)
    if digest != source.digest:
        raise UsageError(f"{step.source or step.target!r} was changed while it was added", hint="build again")
    return str(put)


def _clean(store: Store, app: App, since_ns: int, way: Way) -> None:
    with store.ticket(app.ids) as ticket, ExitStack() as opened:
        upper = store.open_data(app, "upper")
        opened.callback(os.close, upper)
        lowers = store.lower_fds(app)
        for fd in lowers:
            opened.callback(os.close, fd)
        fds = [upper, ticket.fd, *lowers]
        with explain("freeze what was built"):
            on_ids(app.ids, clean_job, fds, app.ids.userxattr, list(way.drop), since_ns, way.epoch)


def _frozen(store: Store, app: App, ticket: Ticket) -> Layer:
    """Move the upper to the ticket as the folder of a layer, with its listing."""
    with explain("freeze what was built"):
        make_dir(ticket.fd, "layer")
        folder = open_dir(ticket.fd, "layer")
        data = store.open_app_dir(app, "data")
        try:
            os.rename("upper", "tree", src_dir_fd=data, dst_dir_fd=folder)
            os.close(
                os.open("roots", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
            )
            digest, entries, size = on_ids(app.ids, list_job, [folder], app.ids.userxattr)
        finally:
            os.close(folder)
            os.close(data)
    return Layer(new_id(), app.ids, now(), digest, entries, size)
