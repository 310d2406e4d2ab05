-- push_events: events that were pushed for the source $2, in order, all or none: none when the source
-- is gone or $4 wait already. Tells both. Locks: none but of new rows.
WITH target AS (
    SELECT org_id, source_id FROM data_sources WHERE org_id = $1 AND source_id = $2
), room AS (
    SELECT NOT EXISTS (
        SELECT FROM pushed_events WHERE org_id = $1 AND source_id = $2 OFFSET $4::bigint - 1
    ) AS has
), added AS (
    INSERT INTO pushed_events (org_id, source_id, event)
    SELECT target.org_id, target.source_id, new.event
    FROM target, room, unnest($3::text[]) WITH ORDINALITY AS new (event, place)
    WHERE room.has
    ORDER BY new.place
    RETURNING 1
)
SELECT (SELECT count(*) FROM target) = 1 AS found, room.has FROM room
