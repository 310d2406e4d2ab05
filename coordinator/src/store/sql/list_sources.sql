-- list_sources: a page of an organization's sources after the id $2, by id. Locks: none.
SELECT
    source_id, url, retry_delays_ms, request_timeout_ms, max_in_flight, max_per_second, max_pending, feed_lag_ms, state, state_reason, created_at,
    updated_at
FROM data_sources
WHERE org_id = $1 AND ($2::text IS NULL OR source_id > $2)
ORDER BY source_id
LIMIT $3
