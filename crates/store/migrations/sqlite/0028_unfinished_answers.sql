-- What was billed of an answer that was not finished when its request ended; null once the rest is billed too.
ALTER TABLE response_owners ADD COLUMN billed_input BIGINT;
ALTER TABLE response_owners ADD COLUMN billed_output BIGINT;
