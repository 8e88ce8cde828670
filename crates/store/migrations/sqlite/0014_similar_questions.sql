-- Questions that were answered, with their vectors, so that others that are close to them are found. Their answers are in
-- semantic_cache, under the same signature. Text and vector are encrypted. A bucket is what may be compared with each other.
CREATE TABLE similar_questions (
    signature TEXT NOT NULL PRIMARY KEY,
    api_key_scope TEXT NOT NULL,
    bucket TEXT NOT NULL,
    model TEXT NOT NULL,
    content TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX similar_questions_created ON similar_questions (created_at);
CREATE INDEX similar_questions_expires ON similar_questions (expires_at);
CREATE INDEX similar_questions_scope ON similar_questions (api_key_scope, created_at);

-- How close a question is to the one whose answer it got, or would have got.
ALTER TABLE call_logs ADD COLUMN cache_similarity DOUBLE PRECISION;
