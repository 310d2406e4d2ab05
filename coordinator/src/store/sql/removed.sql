-- removed
-- When managed rows that are not there were removed, by position; where the log holds no removal,
-- the newest position that it has dropped: 0 while it holds everything. Locks nothing.
SELECT wanted.model, wanted.row_id, coalesce(gone.sync_id, floor.sync_id - 1, head.last_sync_id)
FROM heads AS head
CROSS JOIN unnest($2::text[], $3::text[]) AS wanted (model, row_id)
LEFT JOIN LATERAL (
    SELECT sync_id FROM deltas
    WHERE org_id = $1 AND model = wanted.model AND row_id = wanted.row_id AND kind = 'DELETE'
    ORDER BY sync_id DESC
    LIMIT 1
) AS gone ON true
LEFT JOIN LATERAL (
    SELECT sync_id FROM deltas WHERE org_id = $1 ORDER BY sync_id LIMIT 1
) AS floor ON true
WHERE head.org_id = $1
