-- What failures taught about the single keys of accounts that have several, so that a restart does not ask those again at once
-- that are banned, spent or cooling down. A key is known by what tells it from the others, not by its place.
CREATE TABLE connection_key_states (
    connection_id TEXT NOT NULL,
    key_hash TEXT NOT NULL,
    test_status TEXT NOT NULL,
    last_tested BIGINT,
    last_used_at BIGINT,
    last_error TEXT,
    last_error_at BIGINT,
    last_error_type TEXT,
    last_error_source TEXT,
    error_code BIGINT,
    backoff_level BIGINT NOT NULL,
    rate_limited_until BIGINT,
    PRIMARY KEY (connection_id, key_hash)
);
