-- Usage by kind of request ('chat', 'embedding', 'image', …), with what is billed beside tokens: one row for each minute, hour
-- and day, told apart by the length of the step.
CREATE TABLE kind_usage_summary (
    step_ms BIGINT NOT NULL,
    bucket BIGINT NOT NULL,
    request_type TEXT NOT NULL,
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
    images BIGINT NOT NULL,
    millis_in BIGINT NOT NULL,
    millis_out BIGINT NOT NULL,
    characters BIGINT NOT NULL,
    queries BIGINT NOT NULL,
    PRIMARY KEY (step_ms, bucket, request_type)
);

-- What the log still knows of earlier requests.
INSERT INTO kind_usage_summary (step_ms, bucket, request_type, requests, successes, tokens_input, tokens_output, tokens_cache_read, tokens_cache_creation, tokens_reasoning, estimated, cost_nano, unpriced, latency_sum_ms, last_used_at, images, millis_in, millis_out, characters, queries)
SELECT
    step_ms,
    timestamp - timestamp % step_ms,
    COALESCE(request_type, 'chat'),
    COUNT(*),
    SUM(CASE WHEN status < 400 AND error_summary IS NULL AND error_code IS NULL THEN 1 ELSE 0 END),
    COALESCE(SUM(tokens_in), 0),
    COALESCE(SUM(tokens_out), 0),
    COALESCE(SUM(tokens_cache_read), 0),
    COALESCE(SUM(tokens_cache_creation), 0),
    COALESCE(SUM(tokens_reasoning), 0),
    SUM(CASE WHEN estimated THEN 1 ELSE 0 END),
    COALESCE(SUM(cost_nano), 0),
    SUM(CASE WHEN cost_nano IS NULL THEN 1 ELSE 0 END),
    SUM(duration),
    MAX(timestamp),
    COALESCE(SUM(json_extract(units, '$.images')), 0),
    COALESCE(SUM(json_extract(units, '$.millisIn')), 0),
    COALESCE(SUM(json_extract(units, '$.millisOut')), 0),
    COALESCE(SUM(json_extract(units, '$.characters')), 0),
    COALESCE(SUM(json_extract(units, '$.queries')), 0)
FROM call_logs CROSS JOIN (SELECT 60000 AS step_ms UNION ALL SELECT 3600000 UNION ALL SELECT 86400000) AS steps
WHERE provider IS NOT NULL
GROUP BY 1, 2, 3;
