-- What the operator forbids, limits or prefers; who else has a model; names of models that mean a combo. Lists and
-- objects are JSON text.
CREATE TABLE policies (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    type TEXT NOT NULL,
    enabled BOOLEAN NOT NULL DEFAULT TRUE,
    priority BIGINT NOT NULL DEFAULT 100,
    conditions TEXT NOT NULL DEFAULT '{}',
    actions TEXT NOT NULL DEFAULT '{}',
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE TABLE domain_fallback_chains (
    model TEXT NOT NULL PRIMARY KEY,
    chain TEXT NOT NULL
);

CREATE TABLE model_combo_mappings (
    id TEXT NOT NULL PRIMARY KEY,
    pattern TEXT NOT NULL UNIQUE,
    combo_id TEXT NOT NULL REFERENCES combos (id) ON DELETE CASCADE,
    priority BIGINT NOT NULL DEFAULT 100,
    enabled BOOLEAN NOT NULL DEFAULT TRUE,
    description TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX model_combo_mappings_combo ON model_combo_mappings (combo_id);

-- Combos, times and choices of a key.
ALTER TABLE api_keys ADD COLUMN rights TEXT NOT NULL DEFAULT '{}';
