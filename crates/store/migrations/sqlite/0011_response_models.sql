-- Which model made an answer that the vendor keeps, under the name that was asked for and under the account's.
ALTER TABLE response_owners ADD COLUMN asked_model TEXT NOT NULL DEFAULT '';
ALTER TABLE response_owners ADD COLUMN model TEXT NOT NULL DEFAULT '';
