-- Registries that the organization follows, and what they list. Times end in _ms.

-- An app from a registry belongs to no project (project is '') and to all of them.
ALTER TABLE apps ADD COLUMN registry TEXT;
ALTER TABLE apps ADD COLUMN registry_key TEXT;
CREATE UNIQUE INDEX apps_by_registry ON apps (registry, registry_key) WHERE registry IS NOT NULL;

CREATE TABLE registries (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    url TEXT NOT NULL UNIQUE,
    etag TEXT,
    checked_ms INTEGER,
    error TEXT,
    failures INTEGER NOT NULL DEFAULT 0,
    next_ms INTEGER NOT NULL DEFAULT 0,
    created_ms INTEGER NOT NULL
) STRICT;

-- What a registry lists at present.
CREATE TABLE registry_apps (
    registry TEXT NOT NULL,
    key TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT,
    style TEXT,
    metadata_url TEXT NOT NULL,
    etag TEXT,
    error TEXT,
    PRIMARY KEY (registry, key)
) STRICT, WITHOUT ROWID;

-- Rows stay when a registry lists the app or the version no more, so that a
-- version that comes back is compared with what it was.
CREATE TABLE registry_versions (
    registry TEXT NOT NULL,
    key TEXT NOT NULL,
    version TEXT NOT NULL,
    url TEXT NOT NULL,
    -- As it was first seen.
    checksum TEXT NOT NULL,
    -- As it is listed now; null: it is not.
    listed TEXT,
    seen_ms INTEGER NOT NULL,
    PRIMARY KEY (registry, key, version)
) STRICT, WITHOUT ROWID;
