-- prune_feed_events: deletes names of events older than $1 days, at most $2.
-- Locks: those rows.
DELETE FROM feed_events
WHERE ctid = ANY (ARRAY(
    SELECT ctid
    FROM feed_events
    WHERE seen_at < now() - make_interval(days => $1)
    LIMIT $2
))
