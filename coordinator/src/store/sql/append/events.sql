-- Events that were dealt with.
INSERT INTO feed_events (org_id, source_id, event_id, seen_at)
SELECT head.org_id, new.source_id, new.event_id, $3
FROM head
CROSS JOIN unnest(?::text[], ?::text[]) AS new (source_id, event_id)
