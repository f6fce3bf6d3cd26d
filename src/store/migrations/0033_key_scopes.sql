-- What an API key is good for, as words with spaces between; null for everything,
-- which is what keys had before there were scopes.
ALTER TABLE api_keys ADD COLUMN scopes TEXT;
