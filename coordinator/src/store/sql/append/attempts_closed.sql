-- Attempts that ended. Each was recorded when it began, so this always finds it and updates. Written as
-- an INSERT because that finds its partition by the row, where an UPDATE plans and opens every one;
-- the cause, node and deadline that it would insert are never written. Where no node ran for so long
-- that retention has dropped the partition, the attempt is not on record any more.
INSERT INTO attempts (
    org_id, source_id, started_at, commit_id, number, client_tx_id, cause, node, deadline,
    duration_ms, http_status, outcome, error_class, message, response_excerpt, next_attempt_at
)
SELECT head.org_id, closed.source_id, closed.started_at, closed.commit_id, closed.number,
       closed.client_tx_id, 'accept', closed.commit_id, closed.started_at, closed.duration_ms,
       closed.http_status, closed.outcome, closed.error_class, closed.message,
       closed.response_excerpt, closed.next_attempt_at
FROM head
CROSS JOIN unnest(
    ?::text[], ?::text[], ?::uuid[], ?::int[], ?::timestamptz[], ?::int[], ?::int[], ?::text[],
    ?::text[], ?::text[], ?::text[], ?::timestamptz[]
) AS closed (
    source_id, client_tx_id, commit_id, number, started_at, duration_ms, http_status, outcome, error_class,
    message, response_excerpt, next_attempt_at
)
WHERE to_regclass('attempts_' || to_char(closed.started_at AT TIME ZONE 'UTC', 'YYYYMMDD')) IS NOT NULL
ON CONFLICT (org_id, source_id, started_at, commit_id, number) DO UPDATE
SET duration_ms = excluded.duration_ms, http_status = excluded.http_status,
    outcome = excluded.outcome, error_class = excluded.error_class, message = excluded.message,
    response_excerpt = excluded.response_excerpt, next_attempt_at = excluded.next_attempt_at
