-- log_floor
-- Position of the oldest change of $1 that is kept; one beyond the head when none is. Locks nothing.
SELECT coalesce(
    (SELECT sync_id FROM deltas WHERE org_id = $1 ORDER BY sync_id LIMIT 1),
    (SELECT last_sync_id + 1 FROM heads WHERE org_id = $1)
)
