-- pushed_batch: the first of the source $2's pushed events, at most $3 of them and, but for the first,
-- at most $4 bytes. Locks: none.
SELECT position, event, received_at, clock_timestamp() AS now
FROM (
    SELECT position, event, received_at,
           sum(octet_length(event)) OVER (ORDER BY position) AS bytes,
           row_number() OVER (ORDER BY position) AS place
    FROM (
        SELECT position, event, received_at FROM pushed_events
        WHERE org_id = $1 AND source_id = $2
        ORDER BY position
        LIMIT $3
    ) AS first
) AS counted
WHERE place = 1 OR bytes <= $4::bigint
ORDER BY position
