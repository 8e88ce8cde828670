-- A decision says of its request what the row with the same id in call_logs does not say.
CREATE TABLE decisions_once (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    factors_json TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    names_page TEXT
);
INSERT INTO decisions_once (id, factors_json, created_at, names_page)
    SELECT id, factors_json, created_at, names_page FROM routing_decisions ORDER BY seq;
DROP TABLE routing_decisions;
ALTER TABLE decisions_once RENAME TO routing_decisions;
CREATE INDEX routing_decisions_created ON routing_decisions (created_at);
