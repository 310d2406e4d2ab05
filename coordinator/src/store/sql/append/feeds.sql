-- Feeds as they stand after the batch. A feed may be noted as read to its end beside the log's head,
-- so the later time stays.
INSERT INTO feeds (
    org_id, source_id, state, newest_cursor, durable_cursor, trail_cursors, trail_seen_at,
    last_event_at, caught_up_at, largest_lateness_ms, taken_count, duplicate_count, echo_count,
    quarantined_count
)
SELECT head.org_id, put.source_id, put.state, put.newest_cursor, put.durable_cursor,
       ARRAY(
           SELECT cursor
           FROM json_array_elements_text(put.trail_cursors::json) WITH ORDINALITY AS one (cursor, place)
           ORDER BY place
       ),
       ARRAY(
           SELECT 'epoch'::timestamptz + micros * interval '1 microsecond'
           FROM unnest(put.trail_seen_at::bigint[]) WITH ORDINALITY AS one (micros, place)
           ORDER BY place
       ),
       put.last_event_at, put.caught_up_at, put.largest_lateness_ms, put.taken_count,
       put.duplicate_count, put.echo_count, put.quarantined_count
FROM head
CROSS JOIN unnest(
    ?::text[], ?::text[], ?::text[], ?::text[], ?::text[], ?::text[], ?::timestamptz[],
    ?::timestamptz[], ?::bigint[], ?::bigint[], ?::bigint[], ?::bigint[], ?::bigint[]
) AS put (
    source_id, state, newest_cursor, durable_cursor, trail_cursors, trail_seen_at, last_event_at,
    caught_up_at, largest_lateness_ms, taken_count, duplicate_count, echo_count, quarantined_count
)
ON CONFLICT (org_id, source_id) DO UPDATE
SET state = excluded.state, newest_cursor = excluded.newest_cursor,
    durable_cursor = excluded.durable_cursor, trail_cursors = excluded.trail_cursors,
    trail_seen_at = excluded.trail_seen_at, last_event_at = excluded.last_event_at,
    caught_up_at = greatest(feeds.caught_up_at, excluded.caught_up_at),
    largest_lateness_ms = excluded.largest_lateness_ms, taken_count = excluded.taken_count,
    duplicate_count = excluded.duplicate_count, echo_count = excluded.echo_count,
    quarantined_count = excluded.quarantined_count
