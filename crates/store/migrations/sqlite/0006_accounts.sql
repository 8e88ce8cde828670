-- What vendors said of their limits, model by model, for the time after a restart.
CREATE TABLE learned_limits (
    connection_id TEXT NOT NULL,
    model TEXT NOT NULL,
    limits TEXT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (connection_id, model)
);
CREATE INDEX learned_limits_updated ON learned_limits (updated_at);

-- Which account a conversation stays with.
CREATE TABLE session_account_affinity (
    api_key_id TEXT NOT NULL,
    session_key TEXT NOT NULL,
    provider TEXT NOT NULL,
    connection_id TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    last_seen_at BIGINT NOT NULL,
    PRIMARY KEY (api_key_id, session_key, provider)
);
CREATE INDEX session_account_affinity_seen ON session_account_affinity (last_seen_at);

-- Further keys of a connection: an encrypted list.
ALTER TABLE provider_connections ADD COLUMN api_keys TEXT;

-- How many conversations a key may have at once; 0 = as many as it likes.
ALTER TABLE api_keys ADD COLUMN max_sessions BIGINT NOT NULL DEFAULT 0;
