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
    """
    ALTER TABLE bases ADD COLUMN slot TEXT NOT NULL DEFAULT '';
    ALTER TABLE bases ADD COLUMN version INTEGER NOT NULL DEFAULT 1;
    ALTER TABLE bases ADD COLUMN pinned INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE bases ADD COLUMN origin TEXT NOT NULL DEFAULT '{}';
    UPDATE bases SET slot = name, name = name || '@1';
    CREATE UNIQUE INDEX bases_by_slot ON bases (slot, version);
    CREATE TABLE slots (
        name TEXT PRIMARY KEY,
        current TEXT NOT NULL REFERENCES bases(id) ON DELETE RESTRICT,
        staged TEXT REFERENCES bases(id) ON DELETE SET NULL,
        last_version INTEGER NOT NULL,
        keep INTEGER NOT NULL DEFAULT 3,
        health TEXT NOT NULL DEFAULT '[]',
        failed TEXT NOT NULL DEFAULT '',
        pending TEXT REFERENCES bases(id) ON DELETE SET NULL
    );
    INSERT INTO slots (name, current, last_version) SELECT slot, id, 1 FROM bases;
    CREATE TABLE moves (
        slot TEXT NOT NULL REFERENCES slots(name) ON DELETE CASCADE,
        number INTEGER NOT NULL,
        at TEXT NOT NULL,
        what TEXT NOT NULL,
        version INTEGER NOT NULL,
        earlier INTEGER,
        note TEXT NOT NULL DEFAULT '',
        PRIMARY KEY (slot, number)
    );
    CREATE TABLE trials (
        app_id TEXT PRIMARY KEY REFERENCES apps(id) ON DELETE CASCADE,
        base_id TEXT NOT NULL REFERENCES bases(id) ON DELETE CASCADE,
        layers TEXT NOT NULL,
        failures INTEGER NOT NULL DEFAULT 0,
        since TEXT NOT NULL,
        fallen INTEGER NOT NULL DEFAULT 0
    );
    CREATE TABLE mounted (
        base_id TEXT NOT NULL REFERENCES bases(id) ON DELETE CASCADE,
        app_id TEXT NOT NULL REFERENCES apps(id) ON DELETE CASCADE,
        PRIMARY KEY (base_id, app_id)
    );
    CREATE TABLE fits (
        app_id TEXT NOT NULL REFERENCES apps(id) ON DELETE CASCADE,
        base_id TEXT NOT NULL REFERENCES bases(id) ON DELETE CASCADE,
        layers TEXT NOT NULL,
        PRIMARY KEY (app_id, base_id)
    );
    ALTER TABLE layers ADD COLUMN digest TEXT;
    ALTER TABLE layers ADD COLUMN entries INTEGER;
    ALTER TABLE layers ADD COLUMN size INTEGER;
    ALTER TABLE layers ADD COLUMN origin TEXT NOT NULL DEFAULT '{}';
    CREATE TABLE steps (
        key TEXT PRIMARY KEY,
        layer_id TEXT REFERENCES layers(id) ON DELETE CASCADE,
        used TEXT NOT NULL
    );
    CREATE TABLE recipes (
        app_id TEXT PRIMARY KEY REFERENCES apps(id) ON DELETE CASCADE,
        recipe TEXT NOT NULL,
        built TEXT NOT NULL
    );
    CREATE TABLE blobs (
        digest TEXT PRIMARY KEY,
        diff_id TEXT NOT NULL,
        size INTEGER NOT NULL,
        media_type TEXT NOT NULL,
        tree TEXT NOT NULL
    );
    CREATE INDEX blobs_by_tree ON blobs (tree);
    CREATE TABLE places (
        digest TEXT NOT NULL,
        repository TEXT NOT NULL,
        PRIMARY KEY (digest, repository)
    );
    CREATE TABLE channels (
        slot TEXT PRIMARY KEY,
        url TEXT NOT NULL,
        checked TEXT NOT NULL DEFAULT '',
        state TEXT NOT NULL DEFAULT '{}'
    );
    """,
    """
    ALTER TABLE slots ADD COLUMN tries INTEGER NOT NULL DEFAULT 3;
    ALTER TABLE trials ADD COLUMN tries INTEGER NOT NULL DEFAULT 3;
    CREATE TABLE pulls (
        app_id TEXT PRIMARY KEY REFERENCES apps(id) ON DELETE CASCADE,
        reference TEXT NOT NULL,
        digest TEXT NOT NULL,
        layers INTEGER NOT NULL,
        pulled TEXT NOT NULL
    );
    """,
)
SCHEMA = len(MIGRATIONS)
