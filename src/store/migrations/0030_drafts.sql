-- What the CLI says of an app, and versions that may still change.
ALTER TABLE apps ADD COLUMN description TEXT;
ALTER TABLE apps ADD COLUMN style TEXT;
ALTER TABLE versions ADD COLUMN draft INTEGER NOT NULL DEFAULT 0;
