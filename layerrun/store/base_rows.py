"""The catalog's rows of bases: their versions, and the slots that say which of them is current."""

from __future__ import annotations

import json
from typing import Any

import attrs

from layerrun.errors import BaseInUseError, BusyError, DamagedError, ExistsError, NotFoundError
from layerrun.model import AppKind, Base, BaseKind, IdMode, Slot
from layerrun.store.rows import Rows

__all__ = ["BaseRows"]

_FIELDS = "id, slot, kind, digest, ids, source, created, entries, size, version, pinned, origin"
_BASE = ", ".join(f"bases.{field}" for field in _FIELDS.split(", "))
_SLOT = "name, current, last_version, staged, keep, health, failed, pending, tries"


class BaseRows(Rows):
    """What `layerrun.store.catalog.Catalog` has of bases; within it alone."""

    def bases(self) -> list[Base]:
        """Return the current version of each base, by name; the host is not among them."""
        return self._bases("JOIN slots ON slots.current = bases.id ORDER BY slots.name")

    def versions(self, name: str | None = None) -> list[Base]:
        """Return every version of a base, or of all of them, by name and number."""
        if name is None:
            return self._bases("ORDER BY slot, version")
        return self._bases("WHERE slot = ? ORDER BY version", name)

    def base(self, name: str) -> Base | None:
        """Return the current version of the base NAME, or the one called NAME@VERSION."""
        if "@" in name:
            found = self._bases("WHERE bases.name = ?", name)
        else:
            found = self._bases("JOIN slots ON slots.current = bases.id WHERE slots.name = ?", name)
        return found[0] if found else None

    def base_by_id(self, id_: str) -> Base | None:
        """Return the version with this id."""
        found = self._bases("WHERE bases.id = ?", id_)
        return found[0] if found else None

    def slots(self) -> list[Slot]:
        """Return the slots, by name."""
        return [self._slot(row) for row in self._rows(f"SELECT {_SLOT} FROM slots ORDER BY name")]

    def slot(self, name: str) -> Slot | None:
        """Return the slot with this name."""
        rows = self._rows(f"SELECT {_SLOT} FROM slots WHERE name = ?", name)
        return self._slot(rows[0]) if rows else None

    def add_base(self, base: Base) -> None:
        """Record the first version of a new base; within a transaction. Raises `ExistsError` when the name is taken."""
        if self.slot(base.name) is not None:
            raise ExistsError(
                f"there is a base {base.name!r} already", hint="choose another name, or remove it first"
            )
        self.add_version(base)
        self._db.execute(
            "INSERT INTO slots (name, current, last_version) VALUES (?, ?, ?)",
            (base.name, base.id, base.version),
        )

    def add_version(self, base: Base) -> None:
        """Record a version of a base, which does not become the current one; within a transaction."""
        assert base.ids is not None
        self._db.execute(
            f"INSERT INTO bases (name, {_FIELDS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                base.full_name,
                base.id,
                base.name,
                base.kind.value,
                base.digest,
                base.ids.value,
                base.source,
                base.created,
                base.entries,
                base.size,
                base.version,
                int(base.pinned),
                json.dumps(dict(base.origin)),
            ),
        )
        self._db.execute(
            "UPDATE slots SET last_version = max(last_version, ?) WHERE name = ?", (base.version, base.name)
        )

    def add_next_version(self, base: Base) -> Base:
        """Record the next version of a base, which an update is looking at, and return it; within a transaction."""
        slot = self.slot(base.name)
        if slot is None:
            raise NotFoundError(
                f"there is no base {base.name!r}", hint=f"layerrun base import {base.name} SRC"
            )
        made = attrs.evolve(base, version=slot.last_version + 1)
        self.add_version(made)
        self._db.execute("UPDATE slots SET pending = ? WHERE name = ?", (made.id, base.name))
        return made

    def free_version(self, base: Base) -> None:
        """Give the number of a version that is gone, and was the last, again; within a transaction."""
        self._db.execute(
            "UPDATE slots SET last_version = last_version - 1 WHERE name = ? AND last_version = ?",
            (base.name, base.version),
        )

    def delete_base(self, base: Base) -> None:
        """Forget a version, and the base with its last; within a transaction.

        Raises `BaseInUseError` naming the apps that stand on it, `BusyError` where it is the current one of several.
        """
        users = [
            "a `try` that runs" if row[1] == AppKind.SPARE.value else row[0]
            for row in self._rows(
                "SELECT name, kind FROM apps WHERE base_id = ? AND parent IS NULL ORDER BY name", base.id
            )
        ]
        if users:
            shown_name = base.name if base.version == 1 else base.full_name
            shown = ", ".join(users[:5]) + (f" and {len(users) - 5} more" if len(users) > 5 else "")
            raise BaseInUseError(f"base {shown_name!r} is in use by {shown}", hint="remove those first")
        slot = self.slot(base.name)
        if len(self.versions(base.name)) > 1:
            if slot is not None and slot.current == base.id:  # since the caller looked
                raise BusyError(
                    f"the versions of base {base.name!r} were changed meanwhile", hint="try again"
                )
        else:
            self._db.execute("DELETE FROM slots WHERE name = ?", (base.name,))
        self._db.execute("DELETE FROM bases WHERE id = ?", (base.id,))

    def _bases(self, rest: str, *values: Any) -> list[Base]:
        return [self._base(row) for row in self._rows(f"SELECT {_BASE} FROM bases {rest}", *values)]

    def _base(self, row: tuple[Any, ...]) -> Base:
        id_, name, kind, digest, ids, source, created, entries, size, version, pinned, origin = row
        try:
            return Base(
                id=id_,
                name=name,
                kind=BaseKind(kind),
                digest=digest,
                ids=IdMode(ids),
                source=source,
                created=created,
                entries=entries,
                size=size,
                version=version,
                pinned=bool(pinned),
                origin=json.loads(origin),
            )
        except (ValueError, TypeError) as error:
            raise DamagedError(f"the catalog {self.path!r} is damaged: base {name!r}: {error}") from error

    def _slot(self, row: tuple[Any, ...]) -> Slot:
        name, current, last_version, staged, keep, health, failed, pending, tries = row
        try:
            checks = tuple(json.loads(health))
            return Slot(name, current, last_version, staged, keep, checks, failed, pending, tries)
        except (ValueError, TypeError) as error:
            raise DamagedError(f"the catalog {self.path!r} is damaged: base {name!r}: {error}") from error
