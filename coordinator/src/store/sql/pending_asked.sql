-- pending_asked: what an unsettled commit of a source asks of its endpoint, by its caller's name
-- (LIMIT 1: see `read`). Locks: none.
SELECT waits.body, found.schema_version
FROM (
    SELECT inbox_sequence, schema_version, source_id
    FROM commits
    WHERE org_id = $1 AND client_tx_id = $3
    LIMIT 1
) AS found
CROSS JOIN LATERAL (
    SELECT client_tx_id, body
    FROM inbox
    WHERE org_id = $1 AND source_id = $2 AND sequence = found.inbox_sequence
    LIMIT 1
) AS waits
WHERE found.source_id = $2 AND waits.client_tx_id = $3
