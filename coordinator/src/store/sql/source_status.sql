-- source_status: how a source does, all of one snapshot: a row per kind of request that was ever
-- sent, or one row without a kind. Locks: none.
SELECT
    data_sources.state,
    data_sources.state_reason,
    data_sources.attempts_by_outcome,
    data_sources.retries_by_outcome,
    data_sources.pending_count,
    data_sources.max_pending,
    data_sources.dead_count,
    data_sources.backoff_until,
    data_sources.failing_since,
    (extract(epoch FROM clock_timestamp() - oldest.accepted_at) * 1000)::bigint
        AS oldest_pending_ms,
    data_sources.certificate_expires_at,
    clock_timestamp() AS seen_at,
    source_requests.kind,
    source_requests.last_success_at,
    source_requests.last_error_at,
    source_requests.last_error_class,
    source_requests.last_error_message,
    source_requests.last_error_status,
    feeds.state AS feed_state,
    feeds.newest_cursor,
    feeds.durable_cursor,
    (extract(epoch FROM clock_timestamp() - feeds.caught_up_at) * 1000)::bigint AS feed_lag_ms,
    feeds.last_event_at,
    feeds.largest_lateness_ms,
    feeds.taken_count,
    feeds.duplicate_count,
    feeds.echo_count,
    feeds.quarantined_count,
    (
        SELECT count(*)
        FROM pushed_events
        WHERE pushed_events.org_id = data_sources.org_id
            AND pushed_events.source_id = data_sources.source_id
    ) AS pushed_count
FROM data_sources
LEFT JOIN source_requests
    ON source_requests.org_id = data_sources.org_id
    AND source_requests.source_id = data_sources.source_id
LEFT JOIN feeds
    ON feeds.org_id = data_sources.org_id
    AND feeds.source_id = data_sources.source_id
LEFT JOIN LATERAL (
    SELECT inbox.accepted_at
    FROM inbox
    WHERE inbox.org_id = data_sources.org_id
        AND inbox.source_id = data_sources.source_id
        AND NOT inbox.dead
    ORDER BY inbox.sequence
    LIMIT 1
) AS oldest ON true
WHERE data_sources.org_id = $1 AND data_sources.source_id = $2
ORDER BY source_requests.kind
