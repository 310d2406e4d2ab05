-- list_attempts: a page of a source's attempts before ($3, $4, $5), newest first. Locks: none.
SELECT
    client_tx_id, commit_id, number, cause, started_at, duration_ms, http_status, outcome,
    error_class, message, response_excerpt, next_attempt_at
FROM attempts
WHERE org_id = $1
    AND source_id = $2
    AND started_at >= (SELECT created_at FROM data_sources WHERE org_id = $1 AND source_id = $2)
    AND ($3::timestamptz IS NULL OR (started_at, commit_id, number) < ($3, $4, $5))
ORDER BY started_at DESC, commit_id DESC, number DESC
LIMIT $6
