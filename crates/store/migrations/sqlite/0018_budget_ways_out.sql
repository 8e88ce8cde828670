-- What becomes of requests that a budget has no room for: 'block', 'free-only', or 'downgrade:' and the name of a combo.
ALTER TABLE domain_budgets ADD COLUMN on_exceeded TEXT NOT NULL DEFAULT 'block';
