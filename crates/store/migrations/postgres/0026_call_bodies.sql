-- What became of what was said in a request: NULL where nothing was to be kept. And which process has it, in a file.
ALTER TABLE call_logs ADD COLUMN bodies TEXT;
ALTER TABLE call_logs ADD COLUMN bodies_at TEXT;
