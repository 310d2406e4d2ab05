-- receipt
-- One ledger entry with its deltas. The deltas carry the time of settling, so one partition is read.
-- $3 is when the commit was accepted, if that is known: the day before it, and tomorrow, leave out
-- partitions before the statement runs; without them each is opened, for ten times the cost.
-- OFFSET 0 keeps that look-up by itself (see `read`). The inbox knows the attempts of a queued commit.
SELECT c.commit_id, c.source_id, c.state, c.dead, c.first_sync_id, c.error_code, c.error_message,
       c.assigned::bigint[] AS assigned, c.accepted_at, c.settled_at, c.reentered_at, c.feed_read_at,
       coalesce(i.attempts, c.attempts) AS attempts,
       d.sync_id, d.operation, d.kind, d.model, d.row_id, d.row, d.transaction_id, d.stale
FROM commits AS c
LEFT JOIN LATERAL (
    SELECT * FROM deltas
    WHERE org_id = $1 AND sync_id BETWEEN c.first_sync_id AND c.last_sync_id
      AND created_at = c.settled_at
      AND created_at BETWEEN coalesce($3 - interval '1 day', '-infinity') AND now() + interval '1 day'
    OFFSET 0
) AS d ON true
LEFT JOIN LATERAL (
    SELECT attempts FROM inbox
    WHERE org_id = $1 AND source_id = c.source_id AND sequence = c.inbox_sequence
    LIMIT 1
) AS i ON c.state = 'queued'
WHERE c.org_id = $1 AND c.client_tx_id = $2
ORDER BY d.sync_id
