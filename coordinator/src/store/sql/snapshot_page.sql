-- snapshot_page
-- Rows of the managed model $2 of $1 behind the id $3, at most $4 of them and of at most $5 bytes
-- (one always fits), with the log's head of the same snapshot. Locks nothing.
SELECT h.last_sync_id AS head_position, h.log_epoch, r.row_id, r.row, r.archived, r.sync_id
FROM heads AS h
LEFT JOIN LATERAL (
    SELECT *
    FROM (
        SELECT row_id, row, archived, sync_id,
               sum(octet_length(row)) OVER (ORDER BY row_id) - octet_length(row) AS bytes_before
        FROM (
            SELECT row_id, row::text AS row, archived_at IS NOT NULL AS archived, sync_id
            FROM managed_rows
            WHERE org_id = $1 AND model = $2 AND row_id > $3
            ORDER BY row_id
            LIMIT $4
        ) AS next
    ) AS weighed
    WHERE bytes_before < $5
) AS r ON true
WHERE h.org_id = $1
ORDER BY r.row_id
