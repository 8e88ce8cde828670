-- Of a purse it is known what is in it, but not of how much.
ALTER TABLE quota_snapshots ALTER COLUMN remaining_percentage DROP NOT NULL;
