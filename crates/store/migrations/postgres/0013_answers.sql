-- Answers for whoever asks for the same: encrypted, bounded by bytes and by age. A signature is whose it is, a point and the
-- digest of what was asked.
CREATE TABLE semantic_cache (
    signature TEXT NOT NULL PRIMARY KEY,
    api_key_scope TEXT NOT NULL,
    prompt_hash TEXT NOT NULL,
    model TEXT NOT NULL,
    provider TEXT NOT NULL,
    upstream_model TEXT NOT NULL,
    dialect TEXT NOT NULL,
    response TEXT NOT NULL,
    tokens_saved BIGINT NOT NULL,
    cost_saved_nano BIGINT,
    hit_count BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX semantic_cache_expires ON semantic_cache (expires_at);
CREATE INDEX semantic_cache_scope ON semantic_cache (api_key_scope);

-- What an answer from there would have cost.
ALTER TABLE call_logs ADD COLUMN saved_nano BIGINT;
