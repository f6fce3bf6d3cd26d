-- Times end in _us (microseconds) or _ms (milliseconds since the Unix epoch).
-- Tokens and keys are stored as SHA-256 alone.

CREATE TABLE organizations (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    created_us INTEGER NOT NULL
) STRICT;

CREATE TABLE projects (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    created_us INTEGER NOT NULL
) STRICT;

CREATE TABLE pools (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    is_default INTEGER NOT NULL,
    created_us INTEGER NOT NULL
) STRICT;

-- A pool's tokens: the current one has no end, one that was rotated out has.
CREATE TABLE pool_tokens (
    hash TEXT PRIMARY KEY,
    pool TEXT NOT NULL,
    valid_until_ms INTEGER,
    revoked INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE exposures (
    pool TEXT NOT NULL,
    project TEXT NOT NULL,
    PRIMARY KEY (pool, project)
) STRICT, WITHOUT ROWID;

-- projects is a JSON list of project ids, or null for an admin key.
CREATE TABLE api_keys (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    hash TEXT NOT NULL UNIQUE,
    projects TEXT,
    expires_ms INTEGER,
    created_us INTEGER NOT NULL
) STRICT;

CREATE TABLE apps (
    id TEXT PRIMARY KEY,
    project TEXT NOT NULL,
    name TEXT NOT NULL,
    created_us INTEGER NOT NULL
) STRICT;

CREATE TABLE versions (
    id TEXT PRIMARY KEY,
    app TEXT NOT NULL,
    version TEXT NOT NULL,
    digest TEXT NOT NULL,
    code_bytes INTEGER NOT NULL,
    ui_digest TEXT,
    created_us INTEGER NOT NULL,
    UNIQUE (app, version)
) STRICT;

-- What changes while a job lives stands apart from what is large, so that an
-- update rewrites a small row.
CREATE TABLE jobs (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    pool TEXT NOT NULL,
    project TEXT NOT NULL,
    kind TEXT NOT NULL,
    high INTEGER NOT NULL,
    identity TEXT NOT NULL,
    block TEXT,
    timeout_ms INTEGER NOT NULL,
    expires_ms INTEGER,
    created_us INTEGER NOT NULL,
    state TEXT NOT NULL,
    dispatch INTEGER NOT NULL,
    delivery INTEGER NOT NULL,
    agent TEXT,
    worker TEXT,
    container TEXT,
    origin TEXT,
    dispatched_us INTEGER,
    accepted_us INTEGER,
    started_us INTEGER,
    finished_us INTEGER,
    cancel_reason TEXT,
    cancel_us INTEGER
) STRICT;

CREATE TABLE payloads (
    seq INTEGER PRIMARY KEY,
    payload BLOB NOT NULL
) STRICT;

CREATE TABLE endings (
    seq INTEGER PRIMARY KEY,
    outcome BLOB NOT NULL,
    hops TEXT NOT NULL,
    log_bytes_dropped INTEGER NOT NULL,
    sdk_calls INTEGER NOT NULL
) STRICT;

-- The key makes a line that is reported twice one line.
CREATE TABLE logs (
    job INTEGER NOT NULL,
    dispatch INTEGER NOT NULL,
    delivery INTEGER NOT NULL,
    line INTEGER NOT NULL,
    at_us INTEGER NOT NULL,
    level TEXT NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (job, dispatch, delivery, line)
) STRICT, WITHOUT ROWID;

-- The key makes a call that is sent twice one call.
CREATE TABLE calls (
    job INTEGER NOT NULL,
    dispatch INTEGER NOT NULL,
    delivery INTEGER NOT NULL,
    number INTEGER NOT NULL,
    at_us INTEGER NOT NULL,
    method TEXT NOT NULL,
    args TEXT,
    answer TEXT,
    error TEXT,
    PRIMARY KEY (job, dispatch, delivery, number)
) STRICT, WITHOUT ROWID;

-- scope is `app:INSTALLATION` or `block:INSTALLATION:BLOCK`.
CREATE TABLE kv (
    scope TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT,
    updated_ms INTEGER NOT NULL,
    expires_ms INTEGER,
    lock_id TEXT,
    lock_until_ms INTEGER,
    PRIMARY KEY (scope, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX kv_by_end ON kv (expires_ms) WHERE expires_ms IS NOT NULL;
