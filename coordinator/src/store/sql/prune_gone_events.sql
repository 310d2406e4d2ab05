-- prune_gone_events: deletes from {events} what is of sources that were deleted within the last $1
-- days, at most $2; what is older goes by its age. Locks: those rows.
DELETE FROM {events}
WHERE ctid = ANY (ARRAY(
    SELECT event.ctid
    FROM (
        SELECT DISTINCT org_id, source_id FROM operator_actions
        WHERE verb = 'delete' AND acted_at >= now() - make_interval(days => $1)
    ) AS gone
    CROSS JOIN LATERAL (
        SELECT ctid FROM {events}
        WHERE org_id = gone.org_id AND source_id = gone.source_id
        LIMIT $2
    ) AS event
    WHERE NOT EXISTS (
        SELECT FROM data_sources WHERE org_id = gone.org_id AND source_id = gone.source_id
    )
    LIMIT $2
))
