-- When an entry was added: of patterns of aliases that are equally specific the oldest counts. Unknown of those from before.
ALTER TABLE key_value ADD COLUMN created_at BIGINT;
