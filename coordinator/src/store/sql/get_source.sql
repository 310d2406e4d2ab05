-- get_source: one source and its settings. Locks: none.
SELECT
    source_id, url, retry_delays_ms, request_timeout_ms, max_in_flight, max_per_second, max_pending, feed_lag_ms, state, state_reason, created_at,
    updated_at
FROM data_sources
WHERE org_id = $1 AND source_id = $2
