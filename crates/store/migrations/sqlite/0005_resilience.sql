-- What failures taught about providers and models, so that a restart does not ask again at once.
CREATE TABLE domain_circuit_breakers (
    name TEXT NOT NULL PRIMARY KEY,
    state TEXT NOT NULL,
    failure_count BIGINT NOT NULL,
    last_failure_time BIGINT,
    options TEXT NOT NULL,
    changed_at BIGINT NOT NULL
);

CREATE TABLE model_lockouts (
    provider TEXT NOT NULL,
    connection_id TEXT NOT NULL,
    model TEXT NOT NULL,
    reason TEXT NOT NULL,
    until BIGINT NOT NULL,
    failure_count BIGINT NOT NULL,
    locked_at BIGINT NOT NULL,
    PRIMARY KEY (connection_id, model)
);
CREATE INDEX model_lockouts_until ON model_lockouts (until);
