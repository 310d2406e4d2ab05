-- source_endpoint: where to ask the source $2 for rows, and the log's position from before.
-- Locks: none.
SELECT
    heads.last_sync_id,
    data_sources.url,
    data_sources.request_timeout_ms,
    data_sources.state
FROM heads
JOIN data_sources ON data_sources.org_id = heads.org_id
WHERE heads.org_id = $1
    AND data_sources.source_id = $2
