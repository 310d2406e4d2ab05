-- feed: a source and its feed as the reader of the feed needs them, in one snapshot. Locks: none.
SELECT clock_timestamp() AS now, h.last_sync_id, o.mode, s.owner, s.epoch, s.state AS source_state, s.url,
       s.request_timeout_ms, s.feed_lag_ms, f.state, f.newest_cursor, f.durable_cursor,
       to_json(f.trail_cursors)::text AS trail_cursors,
       ARRAY(
           SELECT (extract(epoch FROM at) * 1000000)::bigint
           FROM unnest(f.trail_seen_at) WITH ORDINALITY AS seen (at, place)
           ORDER BY place
       ) AS trail_seen_at,
       f.last_event_at, f.caught_up_at, f.largest_lateness_ms, f.taken_count, f.duplicate_count,
       f.echo_count, f.quarantined_count,
       EXISTS (SELECT FROM pushed_events WHERE org_id = $1 AND source_id = $2) AS pushed,
       EXISTS (SELECT FROM rereads WHERE org_id = $1 AND source_id = $2) AS rereads
FROM data_sources AS s
JOIN heads AS h ON h.org_id = s.org_id
JOIN organizations AS o ON o.org_id = s.org_id
LEFT JOIN feeds AS f ON f.org_id = s.org_id AND f.source_id = s.source_id
WHERE s.org_id = $1 AND s.source_id = $2
