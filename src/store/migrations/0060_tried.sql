-- Attempts that had started and did not end their job: where each ran, and since when.
CREATE TABLE tried (
    job        INTEGER NOT NULL,
    dispatch   INTEGER NOT NULL,
    delivery   INTEGER NOT NULL,
    started_us INTEGER NOT NULL,
    worker     TEXT,
    container  TEXT,
    origin     TEXT,
    PRIMARY KEY (job, dispatch, delivery)
) WITHOUT ROWID;
