"""What apps hide of what differs between two versions of their base: the old one, the new one, the app's."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import IO, TYPE_CHECKING

import attrs

from layerrun.bases.manifest import unescape
from layerrun.errors import DamagedError, LayerrunError
from layerrun.model import App, AppKind, Base, BaseKind, Snapshot
from layerrun.runtime import comparing, data, jobs, restoring
from layerrun.runtime.comparing import Side
from layerrun.store.store import Store

if TYPE_CHECKING:
    from layerrun.layers.between import Row

_Fields = list[bytes]
_Entry = tuple[list[bytes], _Fields]

__all__ = ["Changed", "Shadow", "all_shadows", "changes", "layer_shadows", "shadows_of", "take"]


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


@attrs.frozen
class Changed:
    """A path that differs between two versions, relative: the letter, and whether the new one has a folder there."""

    letter: str
    path: str
    folder: bool


def changes(store: Store, old: Base, new: Base) -> list[Changed]:
    """Return what differs between two versions, times and the metadata of folders left out, by their manifests."""
    if old.kind is not BaseKind.TREE or new.kind is not BaseKind.TREE:
        return []  # an image that is mounted as it is has no list of what is in it
    with ExitStack() as opened:
        files = [opened.enter_context(_manifest(store, base)) for base in (old, new)]
        return [
            Changed(_letter(*pair), _path(pair), _is_folder(pair[1]))
            for pair in _pairs(_entries(files[0]), _entries(files[1]))
            if not (_is_folder(pair[0]) and _is_folder(pair[1]))
        ]


def _manifest(store: Store, base: Base) -> IO[bytes]:
    try:
        fd = os.open(f"bases/{base.id}/manifest", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=store.fd)
    except OSError as error:
        raise DamagedError(
            f"the manifest of {base.full_name} cannot be read: {error.strerror}", hint="run `layerrun doctor`"
        ) from None
    return os.fdopen(fd, "rb")


def _entries(file: IO[bytes]) -> Iterator[_Entry]:
    """Yield the key of each entry, which is what manifests are sorted by, and the fields of its line."""
    next(file, b"")
    for line in file:
        fields = line.rstrip(b"\n").split(b" ")
        yield [] if fields[5] == b"." else unescape(fields[5]).split(b"/"), fields


def _pairs(old: Iterator[_Entry], new: Iterator[_Entry]) -> Iterator[tuple[_Fields | None, _Fields | None]]:
    """Yield the entries that differ or that only one side has; neither side is read at once."""
    one, two = next(old, None), next(new, None)
    while one is not None or two is not None:
        if two is None or (one is not None and one[0] < two[0]):
            assert one is not None
            yield one[1], None
            one = next(old, None)
        elif one is None or two[0] < one[0]:
            yield None, two[1]
            two = next(new, None)
        else:
            if one[1] != two[1]:
                yield one[1], two[1]
            one, two = next(old, None), next(new, None)


def _letter(old: _Fields | None, new: _Fields | None) -> str:
    if old is None or new is None:
        return "A" if old is None else "D"
    if old[0] != new[0]:
        return "T"
    return "M" if old[4] != new[4] else "P"


def _path(pair: tuple[_Fields | None, _Fields | None]) -> str:
    fields = pair[1] or pair[0]
    assert fields is not None
    return os.fsdecode(unescape(fields[5]))


def _is_folder(fields: _Fields | None) -> bool:
    return fields is not None and fields[0] == b"d"


def _side(base: Base) -> Side:
    return Side(base.full_name, base, ids=base.ids)


def shadows_of(store: Store, app: App, old: Base, new: Base, changed: Sequence[Changed]) -> list[Shadow]:
    """Return what an app, or a profile, hides of ``changed``, which `changes` gave, sorted by path."""
    where = _hiding(store, app, changed)
    if not where:
        return []
    only = ["/" + path for path in where]
    on_old, on_new = (
        {row[-1]: row for row in comparing.rows(store, _side(base), _over(app, base), only)}
        for base in (old, new)
    )
    letters = {one.path: one.letter for one in changed}
    return [
        Shadow(app.name, "/" + path, letters[path], _state(path, on_old, on_new), where[path])
        for path in sorted(where)
    ]


def _state(path: str, on_old: Mapping[str, Row], on_new: Mapping[str, Row]) -> str:
    """Return what the app's file is like, by what differs from beneath it: before, and from now on."""
    if path not in on_old:
        return "copy"
    row = on_new.get(path)
    # P with the same mode: in most cases only the time is another.
    return "same" if row is None or (chr(row[0]) == "P" and row[3] == row[5]) else "changed"


def _over(app: App, base: Base) -> Side:
    return Side(app.name, base, app.stack, app, app.ids)


def _hiding(store: Store, app: App, changed: Sequence[Changed]) -> dict[str, str]:
    """Return the paths that an app hides, and whether its upper or a layer does."""
    paths = [(one.path, one.folder) for one in changed]
    with ExitStack() as opened:
        fds = [store.open_data(app, "upper")]
        opened.callback(os.close, fds[0])
        for layer in app.stack:
            fds.append(store.open_layer(layer))
            opened.callback(os.close, fds[-1])
        found = jobs.on_files(app, jobs.shadows_job, fds, paths, app.ids.userxattr)
    own, *layers = found
    return {path: "layer" for layer in layers for path in layer} | dict.fromkeys(own, "upper")


def all_shadows(
    store: Store,
    old: Base,
    new: Base,
    changed: Sequence[Changed],
    layers: Mapping[str, tuple[str, ...]] | None = None,
) -> dict[str, list[Shadow]]:
    """Return what each app of a base hides of what differs between two versions, by its name, if anything.

    ``layers``: those that apps are to have over the new version instead of their own, by the app's id.
    """
    found = {}
    for id_ in store.catalog.slot_apps(new.name):
        app = store.catalog.app_by_id(id_)
        if app is not None and app.kind is AppKind.APP and not app.ephemeral:
            with suppress(LayerrunError):  # one whose files are damaged is doctor's to find
                hides = shadows_of(store, _with(app, (layers or {}).get(id_)), old, new, changed)
                if hides:
                    found[app.name] = hides
    return found


def _with(app: App, layers: tuple[str, ...] | None) -> App:
    return app if layers is None else attrs.evolve(app, config=attrs.evolve(app.config, layers=layers))


def layer_shadows(store: Store, app: App, layers: tuple[str, ...]) -> list[Shadow]:
    """Return what an app hides, above its factory state, of what differs once that consists of other ``layers``."""
    base, then = store.base(app.config.base), _with(app, layers)
    old, new = (Side(one.name, base, one.config.layers, None, one.ids) for one in (app, then))
    changed = [
        Changed(chr(row[0]), row[-1], stat.S_ISDIR(row[3]))
        for row in comparing.rows(store, old, new)
        if not (stat.S_ISDIR(row[3]) and stat.S_ISDIR(row[5]))
    ]
    where = _hiding(store, _with(app, ()), changed)
    if not where:
        return []
    only = ["/" + path for path in where]
    on_old, on_new = (
        {row[-1]: row for row in comparing.rows(store, side, _over(one, base), only)}
        for side, one in ((old, app), (new, then))
    )
    letters = {one.path: one.letter for one in changed}
    return [
        Shadow(app.name, "/" + path, letters[path], _state(path, on_old, on_new), where[path])
        for path in sorted(where)
    ]


def take(store: Store, app: App, shadows: Iterable[Shadow]) -> tuple[list[str], Snapshot | None]:
    """Let an app, which must not run, show what its base has at these paths; return those that came back.

    What is a mere copy in the upper of an app without layers goes. All else is covered by a copy of what the base has,
    and what the app was like before is kept as a snapshot, which is returned. Raises `BusyError`.
    """
    chosen = list(shadows)
    if not app.stack and all(one.state == "copy" for one in chosen):
        return data.reset_paths(store, app, [data.literal(one.path) for one in chosen]), None
    return restoring.to_base(store, app, [one.path for one in chosen])
