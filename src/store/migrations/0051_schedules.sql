-- What a person has decided about a schedule that its app lets be customized.
CREATE TABLE custom_schedules (
    component TEXT NOT NULL,
    key TEXT NOT NULL,
    -- JSON, as the app would have written it.
    definition TEXT NOT NULL,
    PRIMARY KEY (component, key)
) STRICT, WITHOUT ROWID;
