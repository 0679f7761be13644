"""The catalog's schema, version by version. docs/store.md says what the columns mean."""

from __future__ import annotations

__all__ = ["MIGRATIONS", "SCHEMA"]

# One script a schema version; a script is never changed once released, only followed by another.
MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE bases (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        kind TEXT NOT NULL,
        digest TEXT NOT NULL,
        ids TEXT NOT NULL,
        source TEXT NOT NULL,
        created TEXT NOT NULL,
        entries INTEGER NOT NULL,
        size INTEGER NOT NULL
    );
    CREATE TABLE apps (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        kind TEXT NOT NULL,
        base_id TEXT REFERENCES bases(id) ON DELETE RESTRICT,
        config TEXT NOT NULL,
        ids TEXT NOT NULL,
        uid_start INTEGER UNIQUE,
        created TEXT NOT NULL,
        generation INTEGER NOT NULL
    );
    CREATE INDEX apps_by_base ON apps (base_id);
    """,
    """
    ALTER TABLE apps ADD COLUMN parent TEXT REFERENCES apps(id) ON DELETE RESTRICT;
    ALTER TABLE apps ADD COLUMN profile TEXT;
    ALTER TABLE apps ADD COLUMN ephemeral INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX apps_by_parent ON apps (parent) WHERE parent IS NOT NULL;
    CREATE INDEX apps_ephemeral ON apps (id) WHERE ephemeral;
    """,
    """
    ALTER TABLE apps ADD COLUMN frozen TEXT NOT NULL DEFAULT '[]';
    CREATE TABLE layers (
        id TEXT PRIMARY KEY,
        ids TEXT NOT NULL,
        created TEXT NOT NULL
    );
    CREATE TABLE snapshots (
        app_id TEXT NOT NULL REFERENCES apps(id) ON DELETE CASCADE,
        number INTEGER NOT NULL,
        tag TEXT,
        layers TEXT NOT NULL,
        frozen TEXT NOT NULL,
        created TEXT NOT NULL,
        pinned INTEGER NOT NULL DEFAULT 0,
        automatic INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (app_id, number),
        UNIQUE (app_id, tag)
    );
    CREATE TABLE uses (
        layer_id TEXT NOT NULL REFERENCES layers(id) ON DELETE CASCADE,
        app_id TEXT NOT NULL REFERENCES apps(id) ON DELETE CASCADE,
        PRIMARY KEY (layer_id, app_id)
    );
    CREATE TABLE commits (
        id TEXT PRIMARY KEY,
        number INTEGER NOT NULL UNIQUE,
        name TEXT NOT NULL,
        state TEXT NOT NULL,
        created TEXT NOT NULL,
        counts TEXT NOT NULL,
        ended_ns INTEGER,
        command TEXT NOT NULL DEFAULT '[]'
    );
    """,
    """
    ALTER TABLE apps ADD COLUMN last_snapshot INTEGER NOT NULL DEFAULT 0;
    """,
)
SCHEMA = len(MIGRATIONS)
