-- Candidates in the order in which they are asked stand on a page of names too: thousands of decisions have the same.
ALTER TABLE routing_names ADD COLUMN list TEXT;
