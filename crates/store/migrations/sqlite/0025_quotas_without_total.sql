-- Of a purse it is known what is in it, but not of how much. A column cannot be made to take nothing, so another takes its name.
ALTER TABLE quota_snapshots ADD COLUMN remaining_share REAL;
UPDATE quota_snapshots SET remaining_share = remaining_percentage;
ALTER TABLE quota_snapshots DROP COLUMN remaining_percentage;
ALTER TABLE quota_snapshots RENAME COLUMN remaining_share TO remaining_percentage;
