-- What a call says, of calls whose effect must not come twice: a later attempt of
-- the job that says the same gets the same answer. Null: nothing to recognise.
ALTER TABLE calls ADD COLUMN said TEXT;
CREATE INDEX calls_by_said ON calls (job, said) WHERE said IS NOT NULL;
