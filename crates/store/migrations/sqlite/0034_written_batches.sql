-- The last batch that each process wrote: one whose commit was not acknowledged is not written again.
CREATE TABLE written_batches (
    writer TEXT NOT NULL PRIMARY KEY,
    number BIGINT NOT NULL,
    written_at BIGINT NOT NULL
);
