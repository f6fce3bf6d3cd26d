-- The flow engine at rest. JSON stands in TEXT columns; times end in _ms.

-- What engine step a job belongs to (JSON), and whether that step has taken its end in.
ALTER TABLE jobs ADD COLUMN purpose TEXT;
ALTER TABLE jobs ADD COLUMN settled INTEGER NOT NULL DEFAULT 0;
CREATE INDEX jobs_unsettled ON jobs (seq) WHERE purpose IS NOT NULL AND settled = 0;
CREATE INDEX jobs_by_component ON jobs (json_extract(purpose, '$.component'), seq)
    WHERE purpose IS NOT NULL;

-- What a bundle says about itself, by the digest of its code. Neither schema nor
-- error: it is being asked.
CREATE TABLE schemas (
    digest TEXT PRIMARY KEY,
    schema TEXT,
    error TEXT
) STRICT;

CREATE TABLE installations (
    id TEXT PRIMARY KEY,
    project TEXT NOT NULL,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    digest TEXT NOT NULL,
    pool TEXT NOT NULL,
    config TEXT NOT NULL,
    style TEXT,
    -- A person's wish that waits: to confirm once the schema is known, to delete
    -- once its blocks are gone.
    confirm_wanted INTEGER NOT NULL DEFAULT 0,
    delete_wanted INTEGER NOT NULL DEFAULT 0,
    created_ms INTEGER NOT NULL,
    UNIQUE (project, name)
) STRICT;

CREATE TABLE flows (
    id TEXT PRIMARY KEY,
    project TEXT NOT NULL,
    name TEXT NOT NULL,
    definition TEXT NOT NULL,
    -- Another value with each change of the definition or of a schema it uses.
    revision TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    UNIQUE (project, name)
) STRICT;

-- What has a life: an installation (flow is null) or a block.
CREATE TABLE components (
    id TEXT PRIMARY KEY,
    project TEXT NOT NULL,
    flow TEXT,
    installation TEXT,
    -- Key of the block type in its app, or the core block's name.
    type TEXT,
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    -- Evaluated config, checked and filled; null before the first time.
    vals TEXT,
    config_number INTEGER NOT NULL DEFAULT 0,
    config_busy INTEGER NOT NULL DEFAULT 0,
    config_error TEXT,
    -- The last run that was given a job.
    started_run INTEGER NOT NULL DEFAULT 0,
    signals TEXT NOT NULL DEFAULT '{}',
    outputs TEXT NOT NULL DEFAULT '{}',
    widget TEXT,
    created_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX components_by_flow ON components (flow) WHERE flow IS NOT NULL;
CREATE INDEX components_by_installation ON components (installation) WHERE installation IS NOT NULL;

CREATE TABLE prompts (
    component TEXT NOT NULL,
    key TEXT NOT NULL,
    prompt TEXT NOT NULL,
    PRIMARY KEY (component, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE events (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    flow TEXT NOT NULL,
    -- Null for one that came from outside.
    block TEXT,
    output TEXT,
    body TEXT NOT NULL,
    parent TEXT,
    secondary TEXT,
    lineage TEXT NOT NULL,
    echo INTEGER NOT NULL,
    -- customizing, customized or sent; failed with an error.
    state TEXT NOT NULL,
    error TEXT,
    job INTEGER,
    fingerprint TEXT,
    created_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX events_by_flow ON events (flow, seq);
CREATE INDEX events_by_time ON events (created_ms);
CREATE INDEX events_by_job ON events (job, fingerprint) WHERE job IS NOT NULL;
CREATE INDEX events_on_hold ON events (block, output, seq) WHERE state IN ('customizing', 'customized');

-- An event at the input of a block.
CREATE TABLE deliveries (
    seq INTEGER PRIMARY KEY,
    event TEXT NOT NULL,
    flow TEXT NOT NULL,
    block TEXT NOT NULL,
    input TEXT NOT NULL,
    -- evaluating, ready, started, waiting, done or failed.
    state TEXT NOT NULL,
    error TEXT,
    job INTEGER,
    -- Evaluated fields, constants left out.
    config TEXT,
    tries INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    ended_ms INTEGER
) STRICT;
CREATE INDEX deliveries_by_event ON deliveries (event);
CREATE INDEX deliveries_by_end ON deliveries (flow, ended_ms) WHERE ended_ms IS NOT NULL;
CREATE INDEX deliveries_on_hold ON deliveries (block, input, seq) WHERE state IN ('evaluating', 'ready');
CREATE INDEX deliveries_open ON deliveries (flow) WHERE state NOT IN ('done', 'failed');

-- How often a later attempt of a job has said what an earlier one may have said.
CREATE TABLE repeats (
    job INTEGER NOT NULL,
    dispatch INTEGER NOT NULL,
    delivery INTEGER NOT NULL,
    fingerprint TEXT NOT NULL,
    said INTEGER NOT NULL,
    PRIMARY KEY (job, dispatch, delivery, fingerprint)
) STRICT, WITHOUT ROWID;

CREATE TABLE pendings (
    id TEXT PRIMARY KEY,
    flow TEXT NOT NULL,
    block TEXT NOT NULL,
    pending TEXT NOT NULL,
    open INTEGER NOT NULL,
    job INTEGER,
    fingerprint TEXT,
    created_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX pendings_by_flow ON pendings (flow, id);
CREATE INDEX pendings_by_job ON pendings (job, fingerprint) WHERE job IS NOT NULL;

CREATE TABLE timers (
    id TEXT PRIMARY KEY,
    component TEXT NOT NULL,
    -- JSON: what is due.
    due TEXT NOT NULL,
    due_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX timers_by_time ON timers (due_ms);
CREATE INDEX timers_by_component ON timers (component);

CREATE TABLE secrets (
    project TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    updated_ms INTEGER NOT NULL,
    PRIMARY KEY (project, key)
) STRICT, WITHOUT ROWID;
