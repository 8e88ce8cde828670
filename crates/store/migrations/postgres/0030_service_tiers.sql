-- The tier of service in which a request was answered, where that was not the usual one.
ALTER TABLE call_logs ADD COLUMN service_tier TEXT;
