-- log_page
-- Changes of the log of $1 behind position $2, in order, at most $3 of them and rows of at most $4
-- bytes (one always fits), with the head of the same snapshot: what it shows are the positions up to
-- that head, all of them. Partitions that end before $5 are not looked at. Locks nothing.
SELECT h.last_sync_id AS head_position, h.log_epoch,
       d.sync_id, d.created_at, d.client_tx_id, d.operation, d.kind, d.model, d.row_id, d.row,
       d.transaction_id, d.participant_id, d.participant_kind, d.stale, d.groups, d.left_groups
FROM heads AS h
LEFT JOIN LATERAL (
    SELECT *
    FROM (
        SELECT *, sum(coalesce(octet_length(row), 0)) OVER (ORDER BY sync_id)
                  - coalesce(octet_length(row), 0) AS bytes_before
        FROM (
            SELECT * FROM deltas
            WHERE org_id = $1 AND sync_id > $2 AND created_at >= coalesce($5, '-infinity'::timestamptz)
            ORDER BY sync_id
            LIMIT $3
        ) AS next
    ) AS weighed
    WHERE bytes_before < $4
) AS d ON true
WHERE h.org_id = $1
ORDER BY d.sync_id
