-- Settled commits leave the inbox, payload and all. Found by key first (LIMIT 1: see `read`).
DELETE FROM inbox
USING head
CROSS JOIN unnest(?::text[], ?::bigint[]) AS done (source_id, sequence)
CROSS JOIN LATERAL (
    SELECT ctid FROM inbox
    WHERE org_id = $1 AND source_id = done.source_id AND sequence = done.sequence
    LIMIT 1
) AS found
WHERE inbox.ctid = found.ctid
