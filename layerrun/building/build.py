"""Building: a recipe's steps over a base, one layer each, of which those known already are not run again.

What a step comes to is found again by its key: the digests of the base and of the layers beneath, the step, and what it
adds. A step whose layers beneath have the same digests as before is therefore known, however these came about.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, Protocol

import attrs

from layerrun.building import sources
from layerrun.building.recipe import Add, Recipe, Run, Step
from layerrun.building.running import Stack, Way, stage
from layerrun.building.verifying import is_intact
from layerrun.errors import BuildError, LayerrunError, UsageError
from layerrun.model import HOST_BASE, Base, IdMode, Layer
from layerrun.runtime import identity
from layerrun.store.making import now

if TYPE_CHECKING:
    from layerrun.building.sources import Source
    from layerrun.store.store import Store

__all__ = ["Built", "Done", "Quiet", "Watch", "build", "foresee", "stack_over"]

# Of the keys of steps, and of what steps do beside what they say. Another one: nothing that was built before is known.
_FORMAT = 1
# Of what a step that fails has said, the end is kept: bytes, lines.
_SAID = 1 << 16
_LINES = 20


class Watch(Protocol):
    """Who is told how a build goes on. Steps count from 0."""

    def begins(self, number: int, step: Step, /) -> int | None:
        """Be told that a step begins; return an open file that it is to write to, ``None``: the caller's own."""

    def ended(self, number: int, done: Done, /) -> None:
        """Be told what a step has come to."""

    def failed(self, number: int, step: Step, error: LayerrunError, /) -> None:
        """Be told that the command of a step has failed; the error is raised after that."""


@attrs.frozen
class Done:
    """A step that is done: its layer, ``None`` if it changed nothing; whether it was known; how long it took."""

    step: Step
    key: str
    layer: Layer | None
    cached: bool
    seconds: float


@attrs.frozen
class Built:
    """What a recipe has come to over a base."""

    base: Base
    ids: IdMode
    steps: tuple[Done, ...]

    @property
    def layers(self) -> tuple[str, ...]:
        """The ids of the layers, the lowest first; steps that changed nothing have none."""
        return tuple(done.layer.id for done in self.steps if done.layer is not None)

    @property
    def digest(self) -> str:
        """The digest of all of it: of the base's digest and those of the layers, a line each."""
        lines = [self.base.digest, *(done.layer.digest for done in self.steps if done.layer is not None)]
        return "sha256:" + hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


class Quiet:
    """A `Watch` that shows nothing, and has the last lines of a step that has failed in ``said``."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self._file: IO[bytes] | None = None

    def begins(self, _number: int, _step: Step, /) -> int | None:
        """Let the step write to a file that nobody else sees."""
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  (it is closed when the step has ended)
        return self._file.fileno()

    def ended(self, _number: int, _done: Done, /) -> None:
        """Forget what the step has said."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def failed(self, number: int, step: Step, _error: LayerrunError, /) -> None:
        """Keep the end of what the step has said."""
        if self._file is not None:
            end = self._file.seek(0, os.SEEK_END)
            text = os.pread(self._file.fileno(), _SAID, max(0, end - _SAID)).decode(errors="replace")
            self.said = [f"step {number + 1}: {step.title}", *text.splitlines()[-_LINES:]]
            self._file.close()
            self._file = None


def stack_over(base: Base, ids: IdMode | None = None) -> Stack:
    """Return what the first step stands on. Raises `UsageError` for the machine's own /."""
    if base.name == HOST_BASE or base.digest is None:
        raise UsageError(
            "the machine's own / changes all the time, so nothing can be built over it",
            hint="layerrun base import NAME SRC, then base = NAME in the recipe",
        )
    return Stack(base, ids or identity.choose(base))


def build(
    store: Store,
    recipe: Recipe,
    on: Stack,
    *,
    fresh: bool = False,
    shell: bool = False,
    built: Sequence[Layer] = (),
    watch: Watch | None = None,
) -> Built:
    """Run the steps of a recipe that are not known, over a base; what they come to is known from then on.

    With ``fresh`` all are run again; with ``shell``, if one fails, a shell is opened where it ran. ``built`` are
    layers of an earlier build, which have the files to add; ``watch`` is told how it goes on.

    Raises:
        BuildError: a step has failed; those before it are known.
        UsageError: what is to be added is not there, or cannot be added.
    """
    base, work, done = on.base, _Work(store, recipe, watch or Quiet(), fresh, shell, built), list[Done]()
    for number, step in enumerate(recipe.steps):
        done.append(work.step(number, step, on))
        on = _above(on, done[-1])
    if any(one.cached for one in done):
        with store.catalog.transaction():
            store.catalog.use_steps([one.key for one in done], now())
    return Built(base, on.ids, tuple(done))


def foresee(store: Store, recipe: Recipe, on: Stack) -> list[Done]:
    """Return the steps that are known, up to the first that is not: behind that nobody can tell."""
    found = []
    for step in recipe.steps:
        with _source(store, step, on.ids, recipe.folder) as source:
            key = _key(store, on, recipe, step, source)
        known = _known(store, step, key, time.monotonic())
        if known is None:
            break
        found.append(known)
        on = _above(on, known)
    return found


def _above(on: Stack, done: Done) -> Stack:
    """Return what the step after one stands on."""
    return on if done.layer is None else attrs.evolve(on, layers=(*on.layers, done.layer.id))


@contextmanager
def _source(
    store: Store, step: Step, ids: IdMode, folder: str | None, built: Sequence[Layer] = ()
) -> Iterator[Source | None]:
    if isinstance(step, Run):
        yield None
        return
    with sources.opened(store, step, ids, folder, built) as source:
        yield source


@attrs.frozen
class _Work:
    """A build under way; the attributes are as the arguments of `build`."""

    store: Store
    recipe: Recipe
    watch: Watch
    fresh: bool
    shell: bool
    built: Sequence[Layer]

    def step(self, number: int, step: Step, on: Stack) -> Done:
        """Do a step over what lies beneath it, unless it is known."""
        began = time.monotonic()
        with _source(self.store, step, on.ids, self.recipe.folder, self.built) as source:
            key = _key(self.store, on, self.recipe, step, source)
            done = None if self.fresh else _known(self.store, step, key, began)
            if done is None:
                output = self.watch.begins(number, step)
                way = Way(
                    self.recipe.epoch,
                    self.recipe.drop,
                    output,
                    lambda error: self.watch.failed(number, step, error),
                    self.shell,
                )
                layer = self._run(step, on, key, source, way)
                done = Done(step, key, layer, cached=False, seconds=time.monotonic() - began)
        self.watch.ended(number, done)
        return done

    def _run(self, step: Step, on: Stack, key: str, source: Source | None, way: Way) -> Layer | None:
        """Run a step and record it; of one that comes to what it came to before, that layer stays."""
        origin: dict[str, Any] = {"step": step.title, "epoch": way.epoch}
        with stage(self.store, on, step, source, way) as staged:
            before = _known(self.store, step, key, 0.0)
            spoilt = None
            if before is not None and not self.fresh:
                return before.layer  # another build was quicker
            if before is not None and _digest(before.layer) == _digest(staged.layer):
                if before.layer is None or is_intact(self.store, before.layer):
                    return before.layer
                spoilt = before.layer
            if isinstance(step, Add) and source is not None and staged.put is not None:
                origin |= sources.origin_of(step, source.digest, staged.put)
            return staged.record(self.store, key, origin, spoilt=spoilt)


def _known(store: Store, step: Step, key: str, began: float) -> Done | None:
    found = store.catalog.cached_step(key)
    if found is None:
        return None
    layer = None if found.layer_id is None else store.catalog.layer(found.layer_id)
    return Done(step, key, layer, cached=True, seconds=time.monotonic() - began)


def _digest(layer: Layer | None) -> str | None:
    return None if layer is None else layer.digest


def _key(store: Store, on: Stack, recipe: Recipe, step: Step, source: Source | None) -> str:
    """Return the key of a step: SHA-256 of all that decides what it comes to, in hexadecimal."""
    said = step.to_json()
    if isinstance(step, Add):
        said |= {"add": None if step.text is not None or source is None else source.name, "exclude": []}
    parts = {
        "format": _FORMAT,
        "base": on.base.digest,
        "ids": on.ids.value,
        "layers": list(_digests(store, on.layers)),
        "step": said,
        "content": None if source is None else source.digest,
        "epoch": recipe.epoch,
        "drop": list(recipe.drop),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _digests(store: Store, layers: Sequence[str]) -> Iterator[str | None]:
    for layer in layers:
        found = store.catalog.layer(layer)
        if found is None:
            raise BuildError("a layer of the build was removed meanwhile", hint="build again")
        yield found.digest
