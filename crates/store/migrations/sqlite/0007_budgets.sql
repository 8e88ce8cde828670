-- Money is billionths of a US dollar; a limit that is null is none. '*' is everybody together.
CREATE TABLE domain_budgets (
    api_key_id TEXT NOT NULL PRIMARY KEY,
    daily_limit_nano BIGINT,
    weekly_limit_nano BIGINT,
    monthly_limit_nano BIGINT,
    total_limit_nano BIGINT,
    warning_permille BIGINT NOT NULL,
    reset_interval TEXT NOT NULL,
    reset_minute BIGINT NOT NULL,
    hard_stop BOOLEAN NOT NULL,
    block_unpriced BOOLEAN NOT NULL
);

CREATE TABLE domain_budget_reset_logs (
    id INTEGER PRIMARY KEY,
    api_key_id TEXT NOT NULL,
    reset_interval TEXT NOT NULL,
    previous_spend_nano BIGINT NOT NULL,
    reset_at BIGINT NOT NULL,
    next_reset_at BIGINT NOT NULL,
    period_start BIGINT NOT NULL,
    period_end BIGINT NOT NULL
);

-- One row per billed attempt, never changed. The sums are what was spent; an amount that is null is not known. Rows of
-- old days become one per key and day, with the same sum.
CREATE TABLE cost_ledger (
    id INTEGER PRIMARY KEY,
    request_id TEXT NOT NULL,
    attempt BIGINT NOT NULL,
    api_key_id TEXT,
    kind TEXT NOT NULL,
    amount_nano BIGINT,
    price_source TEXT,
    price_version TEXT,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    estimated BOOLEAN NOT NULL,
    tokens TEXT,
    timestamp BIGINT NOT NULL
);
CREATE INDEX cost_ledger_key ON cost_ledger (api_key_id, timestamp);
CREATE INDEX cost_ledger_timestamp ON cost_ledger (timestamp);
