-- pending_places: where unsettled commits of a source stand in its inbox, by their callers' names
-- (LIMIT 1: see `read`). Locks: none.
SELECT found.client_tx_id, found.inbox_sequence
FROM unnest($3::text[]) AS wanted (client_tx_id)
CROSS JOIN LATERAL (
    SELECT client_tx_id, source_id, state, inbox_sequence
    FROM commits
    WHERE org_id = $1 AND client_tx_id = wanted.client_tx_id
    LIMIT 1
) AS found
WHERE found.source_id = $2 AND found.state = 'queued' AND found.inbox_sequence IS NOT NULL
