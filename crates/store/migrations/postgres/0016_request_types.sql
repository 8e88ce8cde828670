-- What was asked for: NULL is a conversation. And what it used beside tokens, as an object of numbers.
ALTER TABLE call_logs ADD COLUMN request_type TEXT;
ALTER TABLE call_logs ADD COLUMN units TEXT;
