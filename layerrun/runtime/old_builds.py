"""What steps of builds came to and no app has any more: what ``gc`` removes of them."""

from __future__ import annotations

import calendar
import os
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from layerrun.errors import LayerrunError
from layerrun.model import Layer
from layerrun.runtime import jobs
from layerrun.store.freezing import drop_unused
from layerrun.store.garbage import Garbage

if TYPE_CHECKING:
    from layerrun.store.store import Store

__all__ = ["garbage"]


def garbage(store: Store, older_than: float) -> list[Garbage]:
    """Return the steps that no build has wanted for so many seconds, with their layers if nothing stands on these.

    A step that is gone is run again by the next build that has it.
    """
    held = store.catalog.held_layers()
    old = []
    for step in store.catalog.cached_steps():
        layer = None if step.layer_id is None else store.catalog.layer(step.layer_id)
        if step.layer_id in held or _age(step.used) < older_than:
            continue
        title = "" if layer is None else f" {layer.origin.get('step', '')!r}"
        what = f"what the step{title} of a build came to, last wanted {step.used}"
        old.append(Garbage(what, _size(store, layer), partial(_forget, store, step.key)))
    return old


def _age(used: str) -> float:
    return time.time() - calendar.timegm(time.strptime(used, "%Y-%m-%dT%H:%M:%SZ"))


def _size(store: Store, layer: Layer | None) -> int:
    with suppress(OSError, LayerrunError):  # it went meanwhile
        if layer is not None:
            fd = os.open(f"layers/{layer.id}", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=store.fd)
            try:
                return int(jobs.on_ids(layer.ids, jobs.usage_job, [fd])[0][2])
            finally:
                os.close(fd)
    return 0


def _forget(store: Store, key: str) -> None:
    with store.catalog.transaction():
        store.catalog.delete_steps([key])
    drop_unused(store)
