-- Who answered a request: NULL is an upstream. And through which combo it was asked, by which of its steps.
ALTER TABLE call_logs ADD COLUMN cache_source TEXT;
ALTER TABLE call_logs ADD COLUMN combo_name TEXT;
ALTER TABLE call_logs ADD COLUMN combo_step_id TEXT;
