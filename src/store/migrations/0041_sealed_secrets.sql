-- Which key a secret's value is sealed with; null: none yet, it is plain.
ALTER TABLE secrets ADD COLUMN sealed_by TEXT;
