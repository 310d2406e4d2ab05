-- pending_failed: commits of a source that are dead or failing, whose last attempt failed at $3 or
-- later, and that nobody asked to retry yet; in order, after the sequence $4 up to $5. Locks: none.
SELECT client_tx_id, sequence
FROM inbox
WHERE org_id = $1 AND source_id = $2
    AND (dead OR first_failed_at IS NOT NULL)
    AND next_cause IS NULL
    AND ($3::timestamptz IS NULL OR last_error_at >= $3)
    AND sequence > $4 AND sequence <= $5
ORDER BY sequence
LIMIT $6
