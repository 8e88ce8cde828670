-- The names in decisions: provider, model and account of a candidate. They are alike from request to request, so each stands
-- here once, and a decision tells the page and the places. A page is filled by one process, for a day at most.
CREATE TABLE routing_names (
    page TEXT NOT NULL,
    place BIGINT NOT NULL,
    provider TEXT,
    model TEXT NOT NULL,
    connection_id TEXT,
    connection_name TEXT,
    dialect TEXT,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (page, place)
);
-- Without a page the names stand in the decision itself.
ALTER TABLE routing_decisions ADD COLUMN names_page TEXT;
