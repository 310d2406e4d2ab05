-- Sources as they stand after the batch.
INSERT INTO data_sources (
    org_id, source_id, url, retry_delays_ms, request_timeout_ms, max_in_flight, state,
    state_reason, owner, epoch, inbox_sequence, pending_count, dead_count, consecutive_failures,
    backoff_until, backoff_step, recovered_at, recovered_from, attempts_by_outcome,
    retries_by_outcome, max_per_second, max_pending, feed_lag_ms, failing_since, recent_outcomes,
    certificate_expires_at, inbox_revision, created_at, updated_at
)
SELECT head.org_id, put.source_id, put.url, put.retry_delays_ms::bigint[], put.request_timeout_ms,
       put.max_in_flight, put.state, put.state_reason, put.owner, put.epoch, put.inbox_sequence,
       put.pending_count, put.dead_count, put.consecutive_failures, put.backoff_until,
       put.backoff_step, put.recovered_at, put.recovered_from,
       put.attempts_by_outcome::bigint[], put.retries_by_outcome::bigint[],
       put.max_per_second, put.max_pending, put.feed_lag_ms, put.failing_since, put.recent_outcomes,
       put.certificate_expires_at, put.inbox_revision, $3, coalesce(put.updated_at, '-infinity')
FROM head
CROSS JOIN unnest(
    ?::text[], ?::text[], ?::text[], ?::bigint[], ?::int[], ?::text[], ?::text[], ?::uuid[],
    ?::bigint[], ?::bigint[], ?::bigint[], ?::bigint[], ?::int[], ?::timestamptz[], ?::int[],
    ?::timestamptz[], ?::timestamptz[], ?::text[], ?::text[], ?::int[], ?::bigint[], ?::bigint[],
    ?::timestamptz[], ?::bigint[], ?::timestamptz[], ?::timestamptz[], ?::bigint[]
) AS put (
    source_id, url, retry_delays_ms, request_timeout_ms, max_in_flight, state, state_reason, owner,
    epoch, inbox_sequence, pending_count, dead_count, consecutive_failures, backoff_until,
    backoff_step, recovered_at, recovered_from, attempts_by_outcome, retries_by_outcome,
    max_per_second, max_pending, feed_lag_ms, failing_since, recent_outcomes,
    certificate_expires_at, updated_at, inbox_revision
)
ON CONFLICT (org_id, source_id) DO UPDATE
SET url = excluded.url, retry_delays_ms = excluded.retry_delays_ms,
    request_timeout_ms = excluded.request_timeout_ms, max_in_flight = excluded.max_in_flight,
    state = excluded.state, state_reason = excluded.state_reason, owner = excluded.owner,
    epoch = excluded.epoch, inbox_sequence = excluded.inbox_sequence,
    pending_count = excluded.pending_count, dead_count = excluded.dead_count,
    consecutive_failures = excluded.consecutive_failures, backoff_until = excluded.backoff_until, backoff_step = excluded.backoff_step,
    recovered_at = excluded.recovered_at, recovered_from = excluded.recovered_from,
    attempts_by_outcome = excluded.attempts_by_outcome,
    retries_by_outcome = excluded.retries_by_outcome,
    max_per_second = excluded.max_per_second, max_pending = excluded.max_pending,
    feed_lag_ms = excluded.feed_lag_ms, failing_since = excluded.failing_since,
    recent_outcomes = excluded.recent_outcomes,
    certificate_expires_at = excluded.certificate_expires_at,
    inbox_revision = excluded.inbox_revision,
    updated_at = greatest(data_sources.updated_at, excluded.updated_at)
