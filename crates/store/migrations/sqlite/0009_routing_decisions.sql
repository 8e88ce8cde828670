-- How requests were routed: which targets and accounts were weighed, in which order, and why each other one was not asked.
-- A row has the id and the time of the request's row in call_logs.
CREATE TABLE routing_decisions (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    request_id TEXT NOT NULL,
    task_type TEXT,
    combo_id TEXT,
    provider_selected TEXT,
    model_selected TEXT,
    score DOUBLE PRECISION,
    factors_json TEXT NOT NULL,
    fallbacks_triggered BIGINT NOT NULL,
    success BOOLEAN NOT NULL,
    latency_ms BIGINT NOT NULL,
    cost_nano BIGINT,
    created_at BIGINT NOT NULL
);
CREATE INDEX routing_decisions_created ON routing_decisions (created_at);
