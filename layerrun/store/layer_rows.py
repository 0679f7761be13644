"""The catalog's rows of layers, snapshots, and of the layers that running apps have mounted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from layerrun.errors import DamagedError, ExistsError
from layerrun.model import IdMode, Layer, Snapshot
from layerrun.store.rows import Rows

__all__ = ["LayerRows"]

_LAYER = "id, ids, created, digest, entries, size, origin"
_SNAPSHOT = "app_id, number, tag, layers, frozen, created, pinned, automatic"
# The lists of layers that something stands on.
_STOOD_ON = (
    "SELECT value FROM apps, json_each(apps.frozen)"
    " UNION SELECT value FROM apps, json_each(apps.config, '$.layers')"
    " UNION SELECT value FROM snapshots, json_each(snapshots.layers)"
    " UNION SELECT value FROM snapshots, json_each(snapshots.frozen)"
    " UNION SELECT layer_id FROM uses"
    " UNION SELECT value FROM fits, json_each(fits.layers)"
    " UNION SELECT value FROM trials, json_each(trials.layers)"
)
# What a build came to is kept for the next.
_HELD = _STOOD_ON + " UNION SELECT layer_id FROM steps WHERE layer_id IS NOT NULL"


class LayerRows(Rows):
    """What `layerrun.store.catalog.Catalog` has beside apps and bases; within it alone."""

    # Layers

    def layers(self) -> list[Layer]:
        """Return all layers, by id."""
        return [self._layer(row) for row in self._rows(f"SELECT {_LAYER} FROM layers ORDER BY id")]

    def layer(self, id_: str) -> Layer | None:
        """Return the layer with this id."""
        rows = self._rows(f"SELECT {_LAYER} FROM layers WHERE id = ?", id_)
        return self._layer(rows[0]) if rows else None

    def layers_like(self, digest: str) -> list[Layer]:
        """Return the layers with this digest, by id."""
        query = f"SELECT {_LAYER} FROM layers WHERE digest = ? ORDER BY id"
        return [self._layer(row) for row in self._rows(query, digest)]

    def add_layer(self, layer: Layer) -> None:
        """Record a layer; within a transaction."""
        self._db.execute(
            f"INSERT INTO layers ({_LAYER}) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                layer.id,
                layer.ids.value,
                layer.created,
                layer.digest,
                layer.entries,
                layer.size,
                json.dumps(dict(layer.origin)),
            ),
        )

    def unused_layers(self) -> list[Layer]:
        """Return the layers that no app, no snapshot and no start refers to."""
        query = f"SELECT {_LAYER} FROM layers WHERE id NOT IN ({_HELD}) ORDER BY id"
        return [self._layer(row) for row in self._rows(query)]

    def held_layers(self) -> set[str]:
        """Return the ids of the layers that an app, a snapshot or a start refers to, not only a build."""
        return {row[0] for row in self._rows(_STOOD_ON)}

    def built_layers(self) -> set[str]:
        """Return the ids of the layers that builds keep, whoever stands on them."""
        return {row[0] for row in self._rows("SELECT layer_id FROM steps WHERE layer_id IS NOT NULL")}

    def delete_layers(self, ids: Iterable[str]) -> None:
        """Forget layers; within a transaction."""
        self._db.executemany("DELETE FROM layers WHERE id = ?", [(id_,) for id_ in ids])

    def set_stack(self, app_id: str, frozen: Sequence[str], layers: Sequence[str] | None = None) -> None:
        """Give an app other frozen layers and, unless ``None``, its configuration other layers; within a transaction.

        It is another generation then; of its profiles too where it is their configuration.
        """
        self._db.execute(
            "UPDATE apps SET frozen = ?, generation = generation + 1 WHERE id = ?",
            (json.dumps(list(frozen)), app_id),
        )
        if layers is not None:
            self._db.execute(
                "UPDATE apps SET config = json_set(config, '$.layers', json(?)) WHERE id = ?",
                (json.dumps(list(layers)), app_id),
            )
            self._db.execute("UPDATE apps SET generation = generation + 1 WHERE parent = ?", (app_id,))

    def exchange_layers(self, app_id: str, frozen: Sequence[str], layers: Sequence[str] | None) -> None:
        """As `set_stack`, for layers that hold the same: the app may run, or be changed, and stays as it is."""
        self._db.execute("UPDATE apps SET frozen = ? WHERE id = ?", (json.dumps(list(frozen)), app_id))
        if layers is not None:
            self._db.execute(
                "UPDATE apps SET config = json_set(config, '$.layers', json(?)) WHERE id = ?",
                (json.dumps(list(layers)), app_id),
            )

    def layer_lists(self) -> list[tuple[str, str, tuple[str, ...], tuple[str, ...]]]:
        """Return (app's id, app's parent or "", configuration's layers, frozen ones) of all apps that have any."""
        query = (
            "SELECT id, coalesce(parent, ''), coalesce(json_extract(config, '$.layers'), '[]'), frozen FROM apps"
            " WHERE frozen != '[]' OR json_array_length(config, '$.layers') > 0"
        )
        return [(id_, up, _list(layers), _list(frozen)) for id_, up, layers, frozen in self._rows(query)]

    # Snapshots

    def snapshots(self, app_id: str | None = None) -> list[Snapshot]:
        """Return the snapshots of an app, or of all apps, the first made first."""
        if app_id is None:
            rows = self._rows(f"SELECT {_SNAPSHOT} FROM snapshots ORDER BY app_id, number")
        else:
            rows = self._rows(f"SELECT {_SNAPSHOT} FROM snapshots WHERE app_id = ? ORDER BY number", app_id)
        return [self._snapshot(row) for row in rows]

    def snapshot(self, app_id: str, number: int) -> Snapshot | None:
        """Return the snapshot with this number."""
        query = f"SELECT {_SNAPSHOT} FROM snapshots WHERE app_id = ? AND number = ?"
        rows = self._rows(query, app_id, number)
        return self._snapshot(rows[0]) if rows else None

    def tagged_snapshot(self, app_id: str, tag: str) -> Snapshot | None:
        """Return the snapshot with this tag."""
        rows = self._rows(f"SELECT {_SNAPSHOT} FROM snapshots WHERE app_id = ? AND tag = ?", app_id, tag)
        return self._snapshot(rows[0]) if rows else None

    def next_number(self, app_id: str) -> int:
        """Return the number of the next snapshot of an app, and count it as given; within a transaction."""
        self._db.execute("UPDATE apps SET last_snapshot = last_snapshot + 1 WHERE id = ?", (app_id,))
        return int(self._db.execute("SELECT last_snapshot FROM apps WHERE id = ?", (app_id,)).fetchone()[0])

    def skip_numbers(self, app_id: str, last: int) -> None:
        """Count the numbers up to ``last`` as given; within a transaction."""
        self._db.execute("UPDATE apps SET last_snapshot = max(last_snapshot, ?) WHERE id = ?", (last, app_id))

    def add_snapshot(self, snapshot: Snapshot) -> None:
        """Record a snapshot; within a transaction. Raises `ExistsError` when the tag is taken."""
        if snapshot.tag is not None and self.tagged_snapshot(snapshot.app_id, snapshot.tag) is not None:
            raise ExistsError(
                f"there is a snapshot {snapshot.tag!r} already",
                hint="choose another tag, or forget that one first",
            )
        self._db.execute(
            f"INSERT INTO snapshots ({_SNAPSHOT}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                snapshot.app_id,
                snapshot.number,
                snapshot.tag,
                json.dumps(snapshot.layers),
                json.dumps(snapshot.frozen),
                snapshot.created,
                int(snapshot.pinned),
                int(snapshot.automatic),
            ),
        )

    def set_snapshot_layers(self, snapshot: Snapshot, layers: Sequence[str], frozen: Sequence[str]) -> None:
        """Give a snapshot other layers that hold the same; within a transaction."""
        self._db.execute(
            "UPDATE snapshots SET layers = ?, frozen = ? WHERE app_id = ? AND number = ?",
            (json.dumps(list(layers)), json.dumps(list(frozen)), snapshot.app_id, snapshot.number),
        )

    def pin_snapshot(self, snapshot: Snapshot, pinned: bool) -> None:
        """Pin a snapshot or take that back; within a transaction."""
        self._db.execute(
            "UPDATE snapshots SET pinned = ? WHERE app_id = ? AND number = ?",
            (int(pinned), snapshot.app_id, snapshot.number),
        )

    def delete_snapshot(self, snapshot: Snapshot) -> None:
        """Forget a snapshot; within a transaction."""
        self._db.execute(
            "DELETE FROM snapshots WHERE app_id = ? AND number = ?", (snapshot.app_id, snapshot.number)
        )

    # Uses

    def add_uses(self, app_id: str, layers: Iterable[str]) -> None:
        """Note that an app may have layers mounted which its row does not name any more; within a transaction."""
        self._db.executemany(
            "INSERT OR IGNORE INTO uses (layer_id, app_id) SELECT id, ? FROM layers WHERE id = ?",
            [(app_id, layer) for layer in layers],
        )

    def users(self) -> list[str]:
        """Return the ids of the apps that `add_uses` was told of."""
        return [row[0] for row in self._rows("SELECT DISTINCT app_id FROM uses")]

    def delete_uses(self, app_id: str) -> None:
        """Forget what an app had mounted; within a transaction, by who holds its lock."""
        self._db.execute("DELETE FROM uses WHERE app_id = ?", (app_id,))

    def _layer(self, row: tuple[Any, ...]) -> Layer:
        id_, ids, created, digest, entries, size, origin = row
        try:
            return Layer(id_, IdMode(ids), created, digest, entries, size, json.loads(origin))
        except (ValueError, TypeError) as error:
            raise DamagedError(f"the catalog {self.path!r} is damaged: layer {id_!r}: {error}") from error

    def _snapshot(self, row: tuple[Any, ...]) -> Snapshot:
        app_id, number, tag, layers, frozen, created, pinned, automatic = row
        try:
            return Snapshot(
                app_id=app_id,
                number=number,
                tag=tag,
                layers=_list(layers),
                frozen=_list(frozen),
                created=created,
                pinned=bool(pinned),
                automatic=bool(automatic),
            )
        except (ValueError, TypeError) as error:
            raise DamagedError(
                f"the catalog {self.path!r} is damaged: snapshot {number} of {app_id!r}: {error}"
            ) from error


def _list(text: str) -> tuple[str, ...]:
    """Return a list of ids from JSON; what is not one raises `ValueError`."""
    found = json.loads(text)
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise ValueError(f"not a list of layers: {text[:40]!r}")
    return tuple(found)
