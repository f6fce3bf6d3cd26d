CREATE TABLE data_tables (
    id TEXT PRIMARY KEY,
    project TEXT NOT NULL,
    name TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    UNIQUE (project, name)
) STRICT;

CREATE TABLE data_table_columns (
    id TEXT PRIMARY KEY,
    data_table TEXT NOT NULL,
    name TEXT NOT NULL,
    type TEXT NOT NULL,
    -- The table whose rows a column of type row_ref names.
    ref_table TEXT,
    created_ms INTEGER NOT NULL,
    UNIQUE (data_table, name)
) STRICT;
CREATE INDEX data_table_columns_by_ref ON data_table_columns (ref_table) WHERE ref_table IS NOT NULL;

CREATE TABLE data_table_flows (
    data_table TEXT NOT NULL,
    flow TEXT NOT NULL,
    PRIMARY KEY (data_table, flow)
) STRICT, WITHOUT ROWID;
