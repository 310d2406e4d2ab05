-- list_quarantined: a page of the source $2's events that could not be taken in, before ($3, $4),
-- newest first. Locks: none.
SELECT event_id, seen_at, reason, message, event
FROM quarantined_events
WHERE org_id = $1 AND source_id = $2
    AND ($3::timestamptz IS NULL OR (seen_at, event_id) < ($3, $4))
ORDER BY seen_at DESC, event_id DESC
LIMIT $5
