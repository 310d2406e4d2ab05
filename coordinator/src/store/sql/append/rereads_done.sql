-- Rows that were read again. Found by key first (LIMIT 1: see `read`).
DELETE FROM rereads
USING head
CROSS JOIN unnest(?::text[], ?::bigint[]) AS done (source_id, position)
CROSS JOIN LATERAL (
    SELECT ctid FROM rereads
    WHERE org_id = $1 AND source_id = done.source_id AND position = done.position
    LIMIT 1
) AS found
WHERE rereads.ctid = found.ctid
