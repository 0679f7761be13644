"""The catalog's rows of builds: the steps that need not be run again, and the recipes of apps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from layerrun.store.rows import Rows

__all__ = ["BuildRows", "CachedStep"]


class CachedStep(NamedTuple):
    """What a step came to: the id of its layer, ``None`` if it changed nothing. ``used`` is when it was last wanted."""

    key: str
    layer_id: str | None
    used: str


class BuildRows(Rows):
    """What `layerrun.store.catalog.Catalog` has of builds; within it alone."""

    def cached_step(self, key: str) -> CachedStep | None:
        """Return what the step with this key came to, if that is known."""
        rows = self._rows("SELECT key, layer_id, used FROM steps WHERE key = ?", key)
        return CachedStep(*rows[0]) if rows else None

    def cached_steps(self) -> list[CachedStep]:
        """Return all of them, by key."""
        return [CachedStep(*row) for row in self._rows("SELECT key, layer_id, used FROM steps ORDER BY key")]

    def add_step(self, key: str, layer_id: str | None, used: str) -> None:
        """Record what a step came to, in the place of what it came to before; within a transaction."""
        self._db.execute(
            "INSERT OR REPLACE INTO steps (key, layer_id, used) VALUES (?, ?, ?)", (key, layer_id, used)
        )

    def spoil_layer(self, layer_id: str, at: str) -> None:
        """Let no step come to a layer any more that is not what it was; within a transaction."""
        self._db.execute("DELETE FROM steps WHERE layer_id = ?", (layer_id,))
        self._db.execute(
            "UPDATE layers SET origin = json_set(origin, '$.spoilt', ?) WHERE id = ?", (at, layer_id)
        )

    def use_steps(self, keys: Iterable[str], used: str) -> None:
        """Note that steps were wanted again; within a transaction."""
        self._db.executemany("UPDATE steps SET used = ? WHERE key = ?", [(used, key) for key in keys])

    def delete_steps(self, keys: Iterable[str]) -> None:
        """Forget what steps came to; within a transaction."""
        self._db.executemany("DELETE FROM steps WHERE key = ?", [(key,) for key in keys])

    def recipe(self, app_id: str) -> tuple[str, str] | None:
        """Return the recipe that an app was built by, JSON, and when it was built."""
        rows = self._rows("SELECT recipe, built FROM recipes WHERE app_id = ?", app_id)
        return (rows[0][0], rows[0][1]) if rows else None

    def set_recipe(self, app_id: str, recipe: str, built: str) -> None:
        """Record the recipe that an app was built by; within a transaction."""
        self._db.execute(
            "INSERT OR REPLACE INTO recipes (app_id, recipe, built) VALUES (?, ?, ?)", (app_id, recipe, built)
        )

    def copy_recipe(self, app_id: str, other: str) -> None:
        """Record the recipe of an app, if it has one, as that of another with the same layers; within a transaction."""
        self._db.execute(
            "INSERT OR REPLACE INTO recipes (app_id, recipe, built)"
            " SELECT ?, recipe, built FROM recipes WHERE app_id = ?",
            (other, app_id),
        )
