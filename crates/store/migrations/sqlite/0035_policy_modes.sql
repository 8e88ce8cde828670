-- Whether a policy is carried out (`enforce`), or only noted what it would do (`observe`).
ALTER TABLE policies ADD COLUMN mode TEXT NOT NULL DEFAULT 'enforce';
