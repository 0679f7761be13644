"""Running the steps of a build again, each over the same layers as before, to see whether they come to the same."""

from __future__ import annotations

import base64
import os
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import attrs

from layerrun.building.build import Built, Done, Watch
from layerrun.building.jobs import compare_job
from layerrun.building.recipe import Recipe, Run
from layerrun.building.running import Stack, Stage, Way, stage
from layerrun.runtime.jobs import on_ids
from layerrun.store.fs import explain, open_dir

if TYPE_CHECKING:
    from layerrun.model import Layer
    from layerrun.store.store import Store

__all__ = ["Unlike", "check"]


class Unlike(NamedTuple):
    """A path at which a step (counted from 1) comes to something else each time, and how that differs."""

    step: int
    path: str
    how: str


def check(store: Store, recipe: Recipe, built: Built, watch: Watch) -> list[Unlike]:
    """Run each command of a build once more, over the layers of that build; return what differs, by step and path.

    Nothing is recorded. Files are added the same way each time, so steps that add some are not run. Raises as `build`.
    """
    on, found = Stack(built.base, built.ids), list[Unlike]()
    for number, done in enumerate(built.steps):
        if isinstance(done.step, Run):
            began = time.monotonic()
            output = watch.begins(number, done.step)
            told = partial(watch.failed, number, done.step)
            way = Way(recipe.epoch, recipe.drop, output, told)
            with stage(store, on, done.step, None, way) as staged:
                found += [Unlike(number + 1, *one) for one in _unlike(store, done.layer, staged)]
                again = Done(done.step, done.key, staged.layer, False, time.monotonic() - began)
            watch.ended(number, again)
        if done.layer is not None:
            on = attrs.evolve(on, layers=(*on.layers, done.layer.id))
    return found


def _unlike(store: Store, known: Layer | None, staged: Stage) -> list[tuple[str, str]]:
    """Return the paths at which a layer and what is staged differ, and how."""
    if known is None or staged.layer is None:
        which = "second" if known is None else "first"
        return [] if known is staged.layer else [("/", f"only the {which} time something was changed")]
    with ExitStack() as opened, explain("compare what was built"):
        first = store.open_layer(known.id)
        opened.callback(os.close, first)
        second = open_dir(staged.ticket.fd, "layer/tree")
        opened.callback(os.close, second)
        found = on_ids(known.ids, compare_job, [first, second], known.ids.userxattr)
    paths = ((base64.b64decode(path), how) for path, how in found)
    return [("/" if path == b"." else "/" + os.fsdecode(path), how) for path, how in paths]
