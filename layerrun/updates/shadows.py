"""What apps hide of what differs between two versions of their base: the old one, the new one, the app's."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import attrs

from layerrun.errors import LayerrunError
from layerrun.model import App, AppKind, Base, IdMode
from layerrun.runtime import comparing, data, jobs, snapshots
from layerrun.runtime.comparing import Side
from layerrun.store.freezing import Restack
from layerrun.store.store import Store

if TYPE_CHECKING:
    from layerrun.layers.between import Row

__all__ = ["Shadow", "all_shadows", "changes", "shadows_of", "take"]


@attrs.frozen
class Shadow:
    """A path that differs between two versions of a base, and that an app shows as it has it itself.

    ``change`` is the letter from the old version to the new one. ``state`` says what the app's is like: ``changed``, by
    the app; ``copy`` of what the old version has; or the ``same`` as in the new one. ``where``: ``upper`` or ``layer``.
    """

    app: str
    path: str
    change: str
    state: str
    where: str


def changes(store: Store, old: Base, new: Base) -> list[Row]:
    """Return what differs between two versions, as `layerrun.layers.between.rows`; metadata of folders left out."""
    found = comparing.rows(store, _side(old), _side(new))
    return [row for row in found if not (row[0] == ord("P") and stat.S_ISDIR(row[3]))]


def _side(base: Base) -> Side:
    return Side(base.full_name, base, ids=base.ids)


def shadows_of(store: Store, app: App, old: Base, new: Base, changed: Sequence[Row]) -> list[Shadow]:
    """Return what an app, or a profile, hides of ``changed``, which `changes` gave, sorted by path."""
    where = _hiding(store, app, changed)
    if not where:
        return []
    only = ["/" + path for path in where]
    on_old, on_new = (
        {row[-1] for row in comparing.rows(store, _side(base), _over(app, base), only)} for base in (old, new)
    )
    letters = {row[-1]: chr(row[0]) for row in changed}

    def state(path: str) -> str:
        if path not in on_new:
            return "same"
        return "changed" if path in on_old else "copy"

    return [Shadow(app.name, "/" + path, letters[path], state(path), where[path]) for path in sorted(where)]


def _over(app: App, base: Base) -> Side:
    return Side(app.name, base, app.stack, app, app.ids)


def _hiding(store: Store, app: App, changed: Sequence[Row]) -> dict[str, str]:
    """Return the paths that an app hides, and whether its upper or a layer does."""
    paths = [(row[-1], bool(row[1]) and stat.S_ISDIR(row[3])) for row in changed]
    with ExitStack() as opened:
        fds = [store.open_data(app, "upper")]
        opened.callback(os.close, fds[0])
        for layer in app.stack:
            fds.append(store.open_layer(layer))
            opened.callback(os.close, fds[-1])
        userxattr = app.ids in (IdMode.SUBIDS, IdMode.SINGLE, IdMode.SELF)
        found = jobs.on_files(app, "shadows_job", fds, paths, userxattr)
    own, *layers = found
    return {path: "layer" for layer in layers for path in layer} | dict.fromkeys(own, "upper")


def all_shadows(store: Store, old: Base, new: Base, changed: Sequence[Row]) -> dict[str, list[Shadow]]:
    """Return what each app of a base hides of what differs between two versions, by its name, if anything."""
    found = {}
    for id_ in store.catalog.slot_apps(new.name):
        app = store.catalog.app_by_id(id_)
        if app is not None and app.kind is AppKind.APP and not app.ephemeral:
            with suppress(LayerrunError):  # one whose files are damaged is doctor's to find
                hides = shadows_of(store, app, old, new, changed)
                if hides:
                    found[app.name] = hides
    return found


def take(store: Store, app: App, shadows: Iterable[Shadow]) -> list[str]:
    """Let an app, which must not run, show what its base has at these paths; return those that came back.

    What the app has changed there is kept as a snapshot first. Raises `BusyError`.
    """
    chosen = list(shadows)
    if any(one.state == "changed" for one in chosen):
        with snapshots.locked(store, app, "take the base's files into") as now:
            if snapshots.is_worth_keeping(store, now):
                snapshots.exchange(store, now, Restack(snapshot=True, automatic=True))
        app = store.app_again(app)
    return data.reset_paths(store, app, [data.literal(one.path) for one in chosen])
