"""The catalog's rows of what becomes of bases: which version is current, what happened, which apps go along."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from layerrun.errors import DamagedError
from layerrun.model import AppKind, Base, Move, Trial
from layerrun.store.rows import Rows

__all__ = ["SlotRows"]

# Apps of a slot: those that say its name, or said so until they went back by themselves; and the profiles of both.
_FALLEN = "SELECT app_id FROM trials JOIN bases ON bases.id = trials.base_id WHERE fallen AND bases.slot = ?1"
_NAMED = (
    f"SELECT id FROM apps WHERE kind = 'app' AND (json_extract(config, '$.base') = ?1 OR id IN ({_FALLEN}))"
)
_OF_SLOT = f"{_NAMED} UNION SELECT id FROM apps WHERE parent IN ({_NAMED})"
_TRIAL = "app_id, base_id, layers, failures, since, fallen, tries"


class SlotRows(Rows):
    """What `layerrun.store.catalog.Catalog` has of updates; within it alone."""

    # Slots

    def set_slot(self, name: str, **values: Any) -> None:
        """Set ``staged``, ``pending`` ``keep``, ``health``, ``failed``, ``tries``; within a transaction."""
        assert values.keys() <= {"staged", "pending", "keep", "health", "failed", "tries"}
        for key, value in values.items():
            stored = json.dumps(list(value)) if key == "health" else value
            self._db.execute(f"UPDATE slots SET {key} = ? WHERE name = ?", (stored, name))

    def pin_base(self, id_: str, pinned: bool) -> None:
        """Pin a version, or take that back; within a transaction."""
        self._db.execute("UPDATE bases SET pinned = ? WHERE id = ?", (int(pinned), id_))

    def pending_versions(self) -> list[tuple[str, str]]:
        """Return (slot, id of the version) of updates that are under way, or were cut short."""
        return [tuple(row) for row in self._rows("SELECT name, pending FROM slots WHERE pending IS NOT NULL")]

    def switch(self, old: Base, new: Base) -> list[str]:
        """Make another version of a base the current one, for all its apps; within a transaction.

        Apps that run have the old one mounted for as long as they do; that is noted. Throwaways stay on the old one,
        for what they changed was changed there; so do spares, under names by which no start finds them.
        What is staged is so no more if it is not a later version: the next start would undo this.
        Return the names of the apps whose plans hold no longer, and of the spares as they were called before.
        """
        slot, was = old.name, old.full_name
        self._db.execute(
            "UPDATE apps SET config = json_set(config, '$.base', ?1) WHERE kind = 'app' AND id IN"
            " (SELECT app_id FROM trials WHERE fallen) AND base_id IN (SELECT id FROM bases WHERE slot = ?1)",
            (slot,),
        )
        self._db.execute("DELETE FROM trials WHERE base_id IN (SELECT id FROM bases WHERE slot = ?)", (slot,))
        moved = self._rows(f"SELECT id, name FROM apps WHERE id IN ({_OF_SLOT})", slot)
        self._db.executemany(
            "INSERT OR IGNORE INTO mounted (base_id, app_id) SELECT base_id, id FROM apps"
            " WHERE id = ? AND base_id IS NOT NULL",
            [(id_,) for id_, _ in moved],
        )
        self._db.executemany("UPDATE apps SET base_id = ? WHERE id = ?", [(new.id, id_) for id_, _ in moved])
        stay = "kind IN ('throwaway', 'spare') AND json_extract(config, '$.base') = ?"
        spares = self._rows(f"SELECT name FROM apps WHERE kind = 'spare' AND {stay}", slot)
        self._db.execute(
            f"UPDATE apps SET name = '.try@' || ? || substr(name, ?) WHERE kind = 'spare' AND {stay}",
            (was, len(f".try@{slot}") + 1, slot),
        )
        self._db.execute(f"UPDATE apps SET config = json_set(config, '$.base', ?) WHERE {stay}", (was, slot))
        self._db.execute(
            "UPDATE slots SET current = ?1, failed = '', pending = NULL,"
            " staged = (SELECT id FROM bases WHERE id = staged AND version > ?3) WHERE name = ?2",
            (new.id, slot, new.version),
        )
        return [name for _, name in moved] + [name for (name,) in spares]

    def slot_apps(self, slot: str) -> list[str]:
        """Return the ids of the apps, with their profiles, that go along with a base."""
        return [row[0] for row in self._rows(_OF_SLOT, slot)]

    def standing(self, slot: str) -> dict[str, str]:
        """Return the versions that these stand on, by their ids: another than the current one after a fall-back."""
        query = f"SELECT id, base_id FROM apps WHERE id IN ({_OF_SLOT}) AND base_id IS NOT NULL"
        return dict(self._rows(query, slot))

    # History

    def add_move(
        self, slot: str, at: str, what: str, version: int, *, earlier: int | None = None, note: str = ""
    ) -> None:
        """Note what happened to a base; within a transaction."""
        self._db.execute(
            "INSERT INTO moves (slot, number, at, what, version, earlier, note) SELECT ?1,"
            " coalesce(max(number), 0) + 1, ?2, ?3, ?4, ?5, ?6 FROM moves WHERE slot = ?1",
            (slot, at, what, version, earlier, note),
        )

    def moves(self, slot: str) -> list[Move]:
        """Return what happened to a base, the first thing first."""
        query = (
            "SELECT slot, number, at, what, version, earlier, note FROM moves WHERE slot = ? ORDER BY number"
        )
        return [Move(*row) for row in self._rows(query, slot)]

    # Versions that something has mounted

    def users_of_base(self, id_: str) -> list[str]:
        """Return the ids of apps that may have a version mounted, though they stand on another one now."""
        return [row[0] for row in self._rows("SELECT app_id FROM mounted WHERE base_id = ?", id_)]

    def forget_user(self, id_: str, app_id: str) -> None:
        """Forget that an app had a version mounted; within a transaction."""
        self._db.execute("DELETE FROM mounted WHERE base_id = ? AND app_id = ?", (id_, app_id))

    def apps_on(self, id_: str) -> list[tuple[str, AppKind]]:
        """Return name and kind of what stands on a version, profiles not counted."""
        query = "SELECT name, kind FROM apps WHERE base_id = ? AND parent IS NULL ORDER BY name"
        return [(name, AppKind(kind)) for name, kind in self._rows(query, id_)]

    def add_trials(
        self, stood: Mapping[str, str], since: str, layers: Mapping[str, tuple[str, ...]], tries: int
    ) -> None:
        """Begin the trial of every app that has just been moved, profiles not counted; within a transaction.

        ``stood``: the ids of what each stood on, by its own; ``layers``: those that its configuration had, where that
        has changed as well; ``tries``: how many starts of each may fail.
        """
        rows = self._rows(
            "SELECT id, json_extract(config, '$.layers') FROM apps WHERE kind = 'app' AND parent IS NULL"
            " AND NOT ephemeral"
        )
        self._db.executemany(
            f"INSERT OR REPLACE INTO trials ({_TRIAL}) VALUES (?, ?, ?, 0, ?, 0, ?)",
            [
                (id_, stood[id_], json.dumps(layers[id_]) if id_ in layers else now or "[]", since, tries)
                for id_, now in rows
                if id_ in stood
            ],
        )

    def trials(self) -> list[Trial]:
        """Return all trials, and what came of those in which an app went back."""
        return [self._trial(row) for row in self._rows(f"SELECT {_TRIAL} FROM trials ORDER BY app_id")]

    def trial(self, app_id: str) -> Trial | None:
        """Return the trial of an app, if there is one."""
        rows = self._rows(f"SELECT {_TRIAL} FROM trials WHERE app_id = ?", app_id)
        return self._trial(rows[0]) if rows else None

    def set_failures(self, app_id: str, failures: int) -> None:
        """Set how often an app on trial did not start; within a transaction."""
        self._db.execute("UPDATE trials SET failures = ? WHERE app_id = ?", (failures, app_id))

    def end_trial(self, app_id: str) -> None:
        """End a trial that went well; within a transaction."""
        self._db.execute("DELETE FROM trials WHERE app_id = ? AND NOT fallen", (app_id,))

    def fall_back(self, trial: Trial, to: str, layers: Sequence[str]) -> list[str]:
        """Let an app and its profiles stand on an earlier version, called ``to``, with layers; within a transaction.

        Return their names: their plans hold no longer.
        """
        self._db.execute(
            "INSERT OR IGNORE INTO mounted (base_id, app_id) SELECT base_id, id FROM apps WHERE id = ?1 OR parent = ?1",
            (trial.app_id,),
        )
        self._db.execute(
            "UPDATE apps SET config = json_set(config, '$.base', ?, '$.layers', json(?)) WHERE id = ?",
            (to, json.dumps(list(layers)), trial.app_id),
        )
        self._db.execute(
            "UPDATE apps SET base_id = ?1 WHERE id = ?2 OR parent = ?2", (trial.base_id, trial.app_id)
        )
        self._db.execute("UPDATE trials SET fallen = 1 WHERE app_id = ?", (trial.app_id,))
        rows = self._rows("SELECT name FROM apps WHERE id = ?1 OR parent = ?1", trial.app_id)
        return [row[0] for row in rows]

    # Layers that were built for a version

    def set_fit(self, app_id: str, base_id: str, layers: Sequence[str]) -> None:
        """Note which layers an app has over a version; within a transaction."""
        self._db.execute(
            "INSERT OR REPLACE INTO fits (app_id, base_id, layers) VALUES (?, ?, ?)",
            (app_id, base_id, json.dumps(list(layers))),
        )

    def delete_fit(self, app_id: str, base_id: str) -> None:
        """Forget which layers an app has over a version; within a transaction."""
        self._db.execute("DELETE FROM fits WHERE app_id = ? AND base_id = ?", (app_id, base_id))

    def fits(self, base_id: str) -> dict[str, tuple[str, ...]]:
        """Return the layers that were noted for a version, by the app's id."""
        rows: Iterable[tuple[Any, ...]] = self._rows(
            "SELECT app_id, layers FROM fits WHERE base_id = ?", base_id
        )
        return {app_id: tuple(json.loads(layers)) for app_id, layers in rows}

    def set_layers(self, app_id: str, layers: Sequence[str]) -> None:
        """Give an app's configuration other layers, though it may run; within a transaction."""
        self._db.execute(
            "UPDATE apps SET config = json_set(config, '$.layers', json(?)) WHERE id = ?",
            (json.dumps(list(layers)), app_id),
        )

    def _trial(self, row: tuple[Any, ...]) -> Trial:
        app_id, base_id, layers, failures, since, fallen, tries = row
        try:
            return Trial(app_id, base_id, tuple(json.loads(layers)), failures, since, bool(fallen), tries)
        except (ValueError, TypeError) as error:
            raise DamagedError(f"the catalog {self.path!r} is damaged: trial {app_id!r}: {error}") from error
