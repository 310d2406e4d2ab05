-- Attempts that ended. Found by key first (LIMIT 1: see `read`). The bounds, the earliest start and
-- the latest, leave out most partitions before the statement runs; without them each is opened.
UPDATE attempts
SET duration_ms = closed.duration_ms, http_status = closed.http_status, outcome = closed.outcome,
    error_class = closed.error_class, message = closed.message,
    response_excerpt = closed.response_excerpt, next_attempt_at = closed.next_attempt_at
FROM head
CROSS JOIN unnest(
    ?::text[], ?::text[], ?::uuid[], ?::int[], ?::timestamptz[], ?::int[], ?::int[], ?::text[],
    ?::text[], ?::text[], ?::text[], ?::timestamptz[]
) AS closed (
    source_id, client_tx_id, commit_id, number, started_at, duration_ms, http_status, outcome, error_class,
    message, response_excerpt, next_attempt_at
)
CROSS JOIN LATERAL (
    SELECT tableoid, ctid FROM attempts
    WHERE org_id = $1 AND source_id = closed.source_id AND client_tx_id = closed.client_tx_id
      AND started_at = closed.started_at
      AND started_at BETWEEN ?::timestamptz AND ?::timestamptz
      AND commit_id = closed.commit_id AND number = closed.number
    LIMIT 1
) AS found
WHERE attempts.tableoid = found.tableoid AND attempts.ctid = found.ctid
  AND attempts.started_at = closed.started_at
  AND attempts.started_at BETWEEN ?::timestamptz AND ?::timestamptz
