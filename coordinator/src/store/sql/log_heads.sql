-- log_heads
-- Where the logs of the organizations $1 stand. Locks nothing. LIMIT 1: see `read`.
SELECT h.org_id, h.last_sync_id AS head_position, h.log_epoch
FROM unnest($1::text[]) AS wanted (org_id)
CROSS JOIN LATERAL (
    SELECT * FROM heads WHERE org_id = wanted.org_id LIMIT 1
) AS h
