-- Of a purse it is known what is in it, but not of how much.
ALTER TABLE quota_snapshots RENAME TO quota_snapshots_before;
DROP INDEX quota_snapshots_created;
DROP INDEX quota_snapshots_connection;
CREATE TABLE quota_snapshots (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    provider TEXT NOT NULL,
    connection_id TEXT NOT NULL,
    window_key TEXT NOT NULL,
    remaining_percentage REAL,
    is_exhausted BOOLEAN NOT NULL,
    next_reset_at BIGINT,
    raw_data TEXT,
    created_at BIGINT NOT NULL
);
INSERT INTO quota_snapshots (id, provider, connection_id, window_key, remaining_percentage, is_exhausted, next_reset_at,
    raw_data, created_at)
SELECT id, provider, connection_id, window_key, remaining_percentage, is_exhausted, next_reset_at, raw_data, created_at
FROM quota_snapshots_before;
DROP TABLE quota_snapshots_before;
CREATE INDEX quota_snapshots_created ON quota_snapshots (created_at);
CREATE INDEX quota_snapshots_connection ON quota_snapshots (connection_id, created_at);
