-- What conversations take with them to another account: encrypted summaries, bounded by number and by age.
CREATE TABLE context_handoffs (
    api_key_id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    combo_name TEXT NOT NULL,
    from_account TEXT NOT NULL,
    content TEXT NOT NULL,
    message_count BIGINT NOT NULL,
    opening TEXT NOT NULL,
    model TEXT NOT NULL,
    warning_threshold_pct BIGINT NOT NULL,
    generated_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (api_key_id, session_id, combo_name)
);
CREATE INDEX context_handoffs_expires ON context_handoffs (expires_at);
