-- What was spent is added to and summed up, never rewritten: rows may come and, of old days, go.
CREATE FUNCTION omniroute_ledger_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of cost_ledger are never changed; what was wrong is put right by another row';
END
$$;
CREATE TRIGGER cost_ledger_stays BEFORE UPDATE ON cost_ledger
    FOR EACH ROW EXECUTE FUNCTION omniroute_ledger_stays();
-- Nobody reads these any more.
DELETE FROM key_value WHERE namespace = 'errorsCleared';
