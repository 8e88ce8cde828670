-- Which account made an answer that the vendor keeps, so that requests which name it go there.
CREATE TABLE response_owners (
    response_id TEXT NOT NULL,
    api_key_id TEXT NOT NULL,
    connection_id TEXT NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (api_key_id, response_id)
);
CREATE INDEX response_owners_expires ON response_owners (expires_at);
