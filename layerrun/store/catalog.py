"""The catalog: the SQLite database that says what exists, the single commit point of every change.

Nothing else imports sqlite3. Two rules of SQLite's locking are kept here: nobody opens
``catalog.db`` by other means while it is connected (closing any descriptor of a file drops all of
a process's POSIX locks on it, fcntl_locking(2)), and a connection is never used after a fork.
"""

from __future__ import annotations

import functools
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from layerrun.errors import DamagedError, ExistsError, StoreError
from layerrun.model import HOST_BASE, App, AppConfig, AppKind, Base, BaseKind, IdMode
from layerrun.store.base_rows import BaseRows
from layerrun.store.blob_rows import BlobRows
from layerrun.store.build_rows import BuildRows
from layerrun.store.channel_rows import ChannelRows
from layerrun.store.commit_rows import CommitRows
from layerrun.store.layer_rows import LayerRows
from layerrun.store.rows import translated
from layerrun.store.schema import MIGRATIONS, SCHEMA
from layerrun.store.slot_rows import SlotRows

__all__ = ["HOST", "SCHEMA", "Catalog"]

APPLICATION_ID = 0x6C796572
BUSY_SECONDS = 10.0

HOST = Base(
    id=HOST_BASE,
    name=HOST_BASE,
    kind=BaseKind.HOST,
    digest=None,
    ids=None,
    source="/",
    created="",
    entries=0,
    size=0,
)


@functools.lru_cache(maxsize=64)
def _config(text: str) -> AppConfig:
    """Return a configuration; of a thousand apps most have one of a few."""
    return AppConfig.from_json(json.loads(text))


class Catalog(BaseRows, BlobRows, BuildRows, ChannelRows, CommitRows, LayerRows, SlotRows):
    """One connection to the database at ``path``; rows in, model values out."""

    def __init__(self, path: str) -> None:
        self.path = path
        if not os.path.lexists(path):
            raise DamagedError(
                f"the catalog {path!r} is missing",
                hint="restore it from a backup; the apps' data is still there",
            )
        with translated(path):
            self._db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
            try:
                self._prepare()
            except BaseException:
                self._db.close()
                raise

    @classmethod
    def create(cls, path: str) -> None:
        """Make an empty database at ``path``, or finish one whose making was interrupted."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        os.close(fd)
        cls(path).close()

    def _prepare(self) -> None:
        self._db.execute("PRAGMA foreign_keys=ON")
        version = self._version()
        if version == 0:
            self._db.execute("PRAGMA journal_mode=WAL")
        # FULL: in WAL mode, NORMAL may lose the last commits when the power goes; a row guards deletions.
        self._db.execute("PRAGMA synchronous=FULL")
        if version != SCHEMA:
            self._migrate()

    def _version(self) -> int:
        version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        if version > SCHEMA:
            raise StoreError(
                f"the catalog {self.path!r} has schema {version}, and this layerrun knows {SCHEMA}",
                hint="a newer layerrun made it: use that one",
            )
        if version == 0 and self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise StoreError(f"{self.path!r} is a database, but not a catalog of layerrun")
        return version

    def _migrate(self) -> None:
        with self.transaction():
            for number in range(self._version(), SCHEMA):
                for statement in MIGRATIONS[number].split(";"):
                    if statement.strip():
                        self._db.execute(statement)
            self._db.execute(f"PRAGMA application_id={APPLICATION_ID}")
            self._db.execute(f"PRAGMA user_version={SCHEMA}")

    def close(self) -> None:
        """Close the connection."""
        # What was committed is safe; a checkpoint that finds no room may be left to the next one.
        with suppress(sqlite3.Error):
            self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Do what is within as one transaction, which takes the write lock at once (BEGIN IMMEDIATE)."""
        with translated(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    # Apps

    def apps(self, kind: AppKind | None = None) -> list[App]:
        """Return the apps, or those of one kind, by name, the profiles of each behind it."""
        order = " ORDER BY coalesce(above.name, apps.name), apps.profile"
        if kind is None:
            return [self._app(row) for row in self._rows(_APPS + order)]
        return [self._app(row) for row in self._rows(_APPS + " WHERE apps.kind = ?" + order, kind.value)]

    def app(self, name: str) -> App | None:
        """Return the app with this name."""
        rows = self._rows(f"{_APPS} WHERE apps.name = ?", name)
        return self._app(rows[0]) if rows else None

    def app_by_id(self, id_: str) -> App | None:
        """Return the app with this id."""
        rows = self._rows(f"{_APPS} WHERE apps.id = ?", id_)
        return self._app(rows[0]) if rows else None

    def profiles(self, id_: str) -> list[App]:
        """Return the profiles of the app with this id, by name."""
        return [
            self._app(row) for row in self._rows(f"{_APPS} WHERE apps.parent = ? ORDER BY apps.name", id_)
        ]

    def spares(self) -> list[App]:
        """Return the spares, by name; theirs alone begin with a dot."""
        return [self._app(row) for row in self._rows(f"{_APPS} WHERE apps.name > '.' AND apps.name < '/'")]

    def ephemeral(self) -> list[str]:
        """Return the ids of the apps that are to go at the end of their only start."""
        return [row[0] for row in self._rows("SELECT id FROM apps WHERE ephemeral")]

    def add_app(self, app: App, base_id: str | None) -> None:
        """Record an app; within a transaction. Raises `ExistsError` when the name is taken.

        Of a profile no configuration is recorded: its app's is its own.
        """
        if self.app(app.name) is not None:
            raise ExistsError(
                f"the name {app.name!r} is taken", hint="choose another, or remove that one first"
            )
        self._db.execute(
            f"INSERT INTO apps ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                app.id,
                app.name,
                app.kind.value,
                base_id,
                "{}" if app.parent else json.dumps(app.config.to_json()),
                app.ids.value,
                app.uid_start,
                app.created,
                app.generation,
                app.parent,
                app.profile,
                int(app.ephemeral),
                json.dumps(app.frozen),
            ),
        )

    def rename_app(self, id_: str, name: str) -> None:
        """Give an app another name, and with it its profiles theirs; within a transaction."""
        self._db.execute("UPDATE apps SET name = ? WHERE id = ?", (name, id_))
        self._db.execute("UPDATE apps SET name = ? || '@' || profile WHERE parent = ?", (name, id_))

    def rename_profile(self, id_: str, name: str, profile: str) -> None:
        """Give a profile, whose app keeps its own, another name; within a transaction."""
        self._db.execute("UPDATE apps SET name = ?, profile = ? WHERE id = ?", (name, profile, id_))

    def configure_app(self, id_: str, config: AppConfig, base_id: str | None) -> None:
        """Give an app and its profiles another configuration, which is another generation; within a transaction.

        If that moves it to another base, or another version, its trial is over.
        """
        self._db.execute(
            "DELETE FROM trials WHERE app_id IN (SELECT id FROM apps WHERE id = ? AND base_id IS NOT ?)",
            (id_, base_id),
        )
        self._db.execute("UPDATE apps SET config = ? WHERE id = ?", (json.dumps(config.to_json()), id_))
        self._db.execute(
            "UPDATE apps SET base_id = ?, generation = generation + 1 WHERE id = ? OR parent = ?",
            (base_id, id_, id_),
        )

    def advance_app(self, id_: str, generation: int) -> None:
        """Move an app that was reset from ``generation`` to the next, if it is still there; within a transaction.

        What was frozen of it is no part of it any more.
        """
        self._db.execute(
            "UPDATE apps SET generation = generation + 1, frozen = '[]' WHERE id = ? AND generation = ?",
            (id_, generation),
        )

    def adopt_app(self, id_: str, name: str, created: str) -> None:
        """Make a spare a throwaway with a name, made at that time; within a transaction."""
        self._db.execute(
            "UPDATE apps SET kind = ?, name = ?, created = ? WHERE id = ? AND kind = ?",
            (AppKind.THROWAWAY.value, name, created, id_, AppKind.SPARE.value),
        )

    def delete_app(self, id_: str) -> None:
        """Forget an app; within a transaction."""
        self._db.execute("DELETE FROM apps WHERE id = ?", (id_,))

    def uid_starts(self) -> list[int]:
        """Return the first uids of all ranges in use."""
        return [row[0] for row in self._rows("SELECT uid_start FROM apps WHERE uid_start IS NOT NULL")]

    def _app(self, row: tuple[Any, ...]) -> App:
        id_, name, kind, config, ids, uid_start, created, generation, parent, profile, *rest = row
        ephemeral, frozen, base_id = rest
        try:
            return App(
                id=id_,
                name=name,
                kind=AppKind(kind),
                config=_config(config),
                ids=IdMode(ids),
                uid_start=uid_start,
                created=created,
                generation=generation,
                parent=parent,
                profile=profile,
                ephemeral=bool(ephemeral),
                frozen=tuple(json.loads(frozen)),
                base_id=base_id,
            )
        except (ValueError, TypeError, AttributeError) as error:
            raise DamagedError(f"the catalog {self.path!r} is damaged: app {name!r}: {error}") from error


_COLUMNS = (
    "id, name, kind, base_id, config, ids, uid_start, created, generation, parent, profile, ephemeral, frozen"
)
# A profile has the configuration of its app.
_APPS = (
    "SELECT apps.id, apps.name, apps.kind, coalesce(above.config, apps.config), apps.ids, apps.uid_start,"
    " apps.created, apps.generation, apps.parent, apps.profile, apps.ephemeral, apps.frozen, apps.base_id"
    " FROM apps LEFT JOIN apps AS above ON above.id = apps.parent"
)
