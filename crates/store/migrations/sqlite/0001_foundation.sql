-- Times are milliseconds since the epoch, money is billionths of a US dollar, lists and objects are JSON text.

CREATE TABLE db_meta (
    key TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);
INSERT INTO db_meta (key, value) VALUES ('revision', '1');

CREATE TABLE provider_connections (
    id TEXT NOT NULL PRIMARY KEY,
    provider TEXT NOT NULL,
    auth_type TEXT NOT NULL,
    name TEXT NOT NULL,
    display_name TEXT,
    email TEXT,
    priority BIGINT NOT NULL DEFAULT 0,
    global_priority BIGINT,
    is_active BOOLEAN NOT NULL DEFAULT TRUE,
    api_key TEXT,
    key_hmac TEXT,
    expires_at BIGINT,
    provider_specific_data TEXT NOT NULL DEFAULT '{}',
    default_model TEXT,
    rate_limit_protection BOOLEAN NOT NULL DEFAULT FALSE,
    max_concurrent BIGINT,
    health_check_interval BIGINT,
    "group" TEXT,
    tags TEXT NOT NULL DEFAULT '[]',
    test_status TEXT NOT NULL DEFAULT 'unknown',
    last_tested BIGINT,
    last_used_at BIGINT,
    last_error TEXT,
    last_error_at BIGINT,
    last_error_type TEXT,
    last_error_source TEXT,
    error_code BIGINT,
    backoff_level BIGINT NOT NULL DEFAULT 0,
    rate_limited_until BIGINT,
    consecutive_use_count BIGINT NOT NULL DEFAULT 0,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX provider_connections_order ON provider_connections (provider, priority);
CREATE UNIQUE INDEX provider_connections_name ON provider_connections (provider, name);
CREATE UNIQUE INDEX provider_connections_key ON provider_connections (provider, key_hmac);

CREATE TABLE provider_nodes (
    id TEXT NOT NULL PRIMARY KEY,
    type TEXT NOT NULL,
    name TEXT NOT NULL,
    prefix TEXT NOT NULL UNIQUE,
    api_type TEXT,
    base_url TEXT NOT NULL,
    chat_path TEXT,
    models_path TEXT,
    headers TEXT NOT NULL DEFAULT '{}',
    allow_private BOOLEAN NOT NULL DEFAULT FALSE,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE TABLE key_value (
    namespace TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (namespace, key)
);

CREATE TABLE api_keys (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    key_hash TEXT NOT NULL UNIQUE,
    key_prefix TEXT NOT NULL,
    is_active BOOLEAN NOT NULL DEFAULT TRUE,
    no_log BOOLEAN NOT NULL DEFAULT FALSE,
    allowed_models TEXT NOT NULL DEFAULT '[]',
    denied_models TEXT NOT NULL DEFAULT '[]',
    allowed_connections TEXT NOT NULL DEFAULT '[]',
    allowed_endpoints TEXT NOT NULL DEFAULT '[]',
    scopes TEXT NOT NULL DEFAULT '[]',
    ip_allowlist TEXT NOT NULL DEFAULT '[]',
    max_requests_per_minute BIGINT,
    max_requests_per_day BIGINT,
    max_tokens_per_minute BIGINT,
    max_concurrent BIGINT,
    strict BOOLEAN NOT NULL DEFAULT FALSE,
    expires_at BIGINT,
    revoked_at BIGINT,
    last_used_at BIGINT,
    created_at BIGINT NOT NULL
);

-- The same columns three times: one row per minute, per hour and per day. No part of the key is ever null; absent
-- is ''. Single requests are rows of call_logs, which says all that is known of one and of its attempts.
CREATE TABLE minute_usage_summary (
    bucket BIGINT NOT NULL,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    connection_id TEXT NOT NULL,
    api_key_id TEXT NOT NULL,
    connection_name TEXT NOT NULL,
    api_key_name TEXT NOT NULL,
    requests BIGINT NOT NULL,
    successes BIGINT NOT NULL,
    tokens_input BIGINT NOT NULL,
    tokens_output BIGINT NOT NULL,
    tokens_cache_read BIGINT NOT NULL,
    tokens_cache_creation BIGINT NOT NULL,
    tokens_reasoning BIGINT NOT NULL,
    estimated BIGINT NOT NULL,
    cost_nano BIGINT NOT NULL,
    unpriced BIGINT NOT NULL,
    latency_sum_ms BIGINT NOT NULL,
    last_used_at BIGINT NOT NULL,
    PRIMARY KEY (bucket, provider, model, connection_id, api_key_id)
);

CREATE TABLE hourly_usage_summary (
    bucket BIGINT NOT NULL,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    connection_id TEXT NOT NULL,
    api_key_id TEXT NOT NULL,
    connection_name TEXT NOT NULL,
    api_key_name TEXT NOT NULL,
    requests BIGINT NOT NULL,
    successes BIGINT NOT NULL,
    tokens_input BIGINT NOT NULL,
    tokens_output BIGINT NOT NULL,
    tokens_cache_read BIGINT NOT NULL,
    tokens_cache_creation BIGINT NOT NULL,
    tokens_reasoning BIGINT NOT NULL,
    estimated BIGINT NOT NULL,
    cost_nano BIGINT NOT NULL,
    unpriced BIGINT NOT NULL,
    latency_sum_ms BIGINT NOT NULL,
    last_used_at BIGINT NOT NULL,
    PRIMARY KEY (bucket, provider, model, connection_id, api_key_id)
);

CREATE TABLE daily_usage_summary (
    bucket BIGINT NOT NULL,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    connection_id TEXT NOT NULL,
    api_key_id TEXT NOT NULL,
    connection_name TEXT NOT NULL,
    api_key_name TEXT NOT NULL,
    requests BIGINT NOT NULL,
    successes BIGINT NOT NULL,
    tokens_input BIGINT NOT NULL,
    tokens_output BIGINT NOT NULL,
    tokens_cache_read BIGINT NOT NULL,
    tokens_cache_creation BIGINT NOT NULL,
    tokens_reasoning BIGINT NOT NULL,
    estimated BIGINT NOT NULL,
    cost_nano BIGINT NOT NULL,
    unpriced BIGINT NOT NULL,
    latency_sum_ms BIGINT NOT NULL,
    last_used_at BIGINT NOT NULL,
    PRIMARY KEY (bucket, provider, model, connection_id, api_key_id)
);

-- Written for every request, so there is one small index only: of the time, which an id contains. Rows are appended.
CREATE TABLE call_logs (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    timestamp BIGINT NOT NULL,
    request_id TEXT NOT NULL,
    method TEXT NOT NULL,
    path TEXT NOT NULL,
    status BIGINT NOT NULL,
    model TEXT NOT NULL,
    requested_model TEXT NOT NULL,
    provider TEXT,
    account TEXT,
    connection_id TEXT,
    api_key_id TEXT,
    api_key_name TEXT,
    source_format TEXT NOT NULL,
    target_format TEXT,
    stream BOOLEAN NOT NULL,
    duration BIGINT NOT NULL,
    ttft BIGINT,
    overhead_us BIGINT NOT NULL,
    tokens_in BIGINT,
    tokens_out BIGINT,
    tokens_cache_read BIGINT,
    tokens_cache_creation BIGINT,
    tokens_reasoning BIGINT,
    estimated BOOLEAN NOT NULL,
    cost_nano BIGINT,
    price_source TEXT,
    price_version TEXT,
    attempts BIGINT NOT NULL,
    attempt_details TEXT,
    error_summary TEXT,
    error_code TEXT,
    losses TEXT
);
CREATE INDEX call_logs_timestamp ON call_logs (timestamp);

CREATE TABLE revoked_tokens (
    jti TEXT NOT NULL PRIMARY KEY,
    expires_at BIGINT NOT NULL
);

CREATE TABLE domain_lockout_state (
    identifier TEXT NOT NULL PRIMARY KEY,
    attempts TEXT NOT NULL DEFAULT '[]',
    locked_until BIGINT,
    updated_at BIGINT NOT NULL
);

CREATE TABLE audit_log (
    id INTEGER PRIMARY KEY,
    timestamp BIGINT NOT NULL,
    action TEXT NOT NULL,
    actor TEXT NOT NULL,
    target TEXT,
    resource_type TEXT,
    status TEXT NOT NULL,
    details TEXT,
    ip_address TEXT,
    request_id TEXT
);
CREATE INDEX audit_log_timestamp ON audit_log (timestamp);
