-- Events that were dealt with. One of that id may be left of a source of that name that is gone.
INSERT INTO feed_events (org_id, source_id, event_id, seen_at)
SELECT head.org_id, new.source_id, new.event_id, $3
FROM head
CROSS JOIN unnest(?::text[], ?::text[]) AS new (source_id, event_id)
ON CONFLICT (org_id, source_id, event_id) DO UPDATE SET seen_at = excluded.seen_at
