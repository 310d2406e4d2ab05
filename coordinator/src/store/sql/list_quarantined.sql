-- list_quarantined: a page of the source $2's events that could not be taken in, before ($3, $4),
-- newest first; none from before the source was made. Locks: none.
SELECT event_id, seen_at, reason, message, event
FROM quarantined_events
WHERE org_id = $1 AND source_id = $2
    AND seen_at > (SELECT created_at FROM data_sources WHERE org_id = $1 AND source_id = $2)
    AND ($3::timestamptz IS NULL OR (seen_at, event_id) < ($3, $4))
ORDER BY seen_at DESC, event_id DESC
LIMIT $5
