-- waiting_feeds: the sources of the node $1 that pushed events or rows to be read again wait for. Steps
-- from source to source, so that a long queue costs no more than a short one. Locks: none.
WITH RECURSIVE waiting AS (
    (
        SELECT org_id, source_id
        FROM (
            SELECT org_id, source_id FROM pushed_events
            UNION ALL
            SELECT org_id, source_id FROM rereads
        ) AS first
        ORDER BY org_id, source_id
        LIMIT 1
    )
    UNION ALL
    SELECT next.org_id, next.source_id
    FROM waiting
    CROSS JOIN LATERAL (
        SELECT org_id, source_id
        FROM (
            SELECT org_id, source_id FROM pushed_events
            UNION ALL
            SELECT org_id, source_id FROM rereads
        ) AS rest
        WHERE (org_id, source_id) > (waiting.org_id, waiting.source_id)
        ORDER BY org_id, source_id
        LIMIT 1
    ) AS next
)
SELECT waiting.org_id, waiting.source_id
FROM waiting
JOIN data_sources USING (org_id, source_id)
WHERE data_sources.owner = $1
