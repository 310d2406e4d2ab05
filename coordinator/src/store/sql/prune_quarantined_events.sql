-- prune_quarantined_events: deletes events that could not be taken in older than $1 days, at most $2.
-- Locks: those rows.
DELETE FROM quarantined_events
WHERE ctid = ANY (ARRAY(
    SELECT ctid
    FROM quarantined_events
    WHERE seen_at < now() - make_interval(days => $1)
    LIMIT $2
))
