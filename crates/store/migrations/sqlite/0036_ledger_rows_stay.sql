-- What was spent is added to and summed up, never rewritten: rows may come and, of old days, go.
CREATE TRIGGER cost_ledger_stays BEFORE UPDATE ON cost_ledger
BEGIN
    SELECT RAISE(ABORT, 'rows of cost_ledger are never changed; what was wrong is put right by another row');
END;
-- Nobody reads these any more.
DELETE FROM key_value WHERE namespace = 'errorsCleared';
