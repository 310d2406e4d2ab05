-- What feeds showed of commits whose answer was lost, and commits that were recovered many at once.

ALTER TABLE inbox
    ADD COLUMN echoed boolean NOT NULL DEFAULT false,
    DROP CONSTRAINT inbox_next_cause_check,
    ADD CONSTRAINT inbox_next_cause_check CHECK (next_cause IN ('manual', 'echo', 'recovery'));
COMMENT ON COLUMN inbox.echoed IS 'The feed showed that it was applied: its time is never over.';
COMMENT ON COLUMN inbox.next_cause IS 'Who asked for the next attempt, if not the schedule. Manual and echo wait for nothing but an attempt in flight; recovery is many at once, and waits for its source.';
