-- Pushed events that were dealt with. Found by key first (LIMIT 1: see `read`).
DELETE FROM pushed_events
USING head
CROSS JOIN unnest(?::text[], ?::bigint[]) AS done (source_id, position)
CROSS JOIN LATERAL (
    SELECT ctid FROM pushed_events
    WHERE org_id = $1 AND source_id = done.source_id AND position = done.position
    LIMIT 1
) AS found
WHERE pushed_events.ctid = found.ctid
