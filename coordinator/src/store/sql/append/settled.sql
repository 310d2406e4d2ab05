-- Ledger entries that are settled now, or dead, or recovered. Found by key first (LIMIT 1: see `read`).
UPDATE commits
SET state = changed.state, dead = changed.dead, first_sync_id = changed.first_sync_id,
    last_sync_id = changed.last_sync_id, error_code = changed.error_code,
    error_message = changed.error_message, attempts = changed.attempts,
    reentered_at = changed.reentered_at, inbox_sequence = changed.inbox_sequence,
    settled_at = CASE WHEN changed.state <> 'queued' THEN $3 END
FROM head
CROSS JOIN unnest(
    ?::text[], ?::text[], ?::boolean[], ?::bigint[], ?::bigint[], ?::text[], ?::text[], ?::int[], ?::timestamptz[],
    ?::bigint[]
) AS changed (
    client_tx_id, state, dead, first_sync_id, last_sync_id, error_code, error_message, attempts,
    reentered_at, inbox_sequence
)
CROSS JOIN LATERAL (
    SELECT ctid FROM commits WHERE org_id = $1 AND client_tx_id = changed.client_tx_id LIMIT 1
) AS found
WHERE commits.ctid = found.ctid
