-- receipt
-- One ledger entry with its deltas. The deltas carry the time of settling, so one partition is read.
-- OFFSET 0 keeps that look-up by itself (see `read`). Attempts of a queued commit are counted.
SELECT c.commit_id, c.source_id, c.state, c.dead, c.first_sync_id, c.error_code, c.error_message,
       c.assigned::bigint[] AS assigned, c.accepted_at, c.settled_at,
       CASE
           WHEN c.state = 'queued' THEN (
               SELECT count(*) FROM attempts AS a
               WHERE a.org_id = c.org_id AND a.source_id = c.source_id
                 AND a.client_tx_id = c.client_tx_id AND a.started_at >= c.accepted_at
           )::int
           ELSE c.attempts
       END AS attempts,
       d.sync_id, d.operation, d.kind, d.model, d.row_id, d.row, d.transaction_id, d.stale
FROM commits AS c
LEFT JOIN LATERAL (
    SELECT * FROM deltas
    WHERE org_id = $1 AND sync_id BETWEEN c.first_sync_id AND c.last_sync_id
      AND created_at = c.settled_at
    OFFSET 0
) AS d ON true
WHERE c.org_id = $1 AND c.client_tx_id = $2
ORDER BY d.sync_id
