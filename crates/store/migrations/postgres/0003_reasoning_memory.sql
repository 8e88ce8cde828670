-- What models thought, for clients that do not bring it back: encrypted texts, bounded by bytes and by age.
CREATE TABLE reasoning_memory (
    tenant TEXT NOT NULL,
    key TEXT NOT NULL,
    parts TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (tenant, key)
);
CREATE INDEX reasoning_memory_expires ON reasoning_memory (expires_at);
