-- What vendors left of their quotas, from time to time and whenever one ran out.
CREATE TABLE quota_snapshots (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    provider TEXT NOT NULL,
    connection_id TEXT NOT NULL,
    window_key TEXT NOT NULL,
    remaining_percentage DOUBLE PRECISION NOT NULL,
    is_exhausted BOOLEAN NOT NULL,
    next_reset_at BIGINT,
    raw_data TEXT,
    created_at BIGINT NOT NULL
);
CREATE INDEX quota_snapshots_created ON quota_snapshots (created_at);
CREATE INDEX quota_snapshots_connection ON quota_snapshots (connection_id, created_at);
