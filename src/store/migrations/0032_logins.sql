-- What a person let a client do with an API key. Tokens are stored as SHA-256 alone.
CREATE TABLE logins (
    id TEXT PRIMARY KEY,
    -- SHA-256 of the client's id.
    client TEXT NOT NULL,
    -- Id of the API key by which the person proved who they are.
    api_key TEXT NOT NULL,
    scopes TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    -- However often its tokens are renewed.
    until_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX logins_by_key ON logins (api_key, created_ms);

-- A refresh token that is spent stays known, so that its second use is seen.
CREATE TABLE login_tokens (
    hash TEXT PRIMARY KEY,
    login TEXT NOT NULL,
    kind TEXT NOT NULL,
    spent INTEGER NOT NULL DEFAULT 0,
    until_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX login_tokens_by_login ON login_tokens (login);
CREATE INDEX login_tokens_by_end ON login_tokens (until_ms);
