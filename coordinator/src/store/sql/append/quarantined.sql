-- Events that did not fit. One of that id may be left from before its dedupe entry expired, or of a
-- source of that name that is gone.
INSERT INTO quarantined_events (org_id, source_id, event_id, seen_at, reason, message, event)
SELECT head.org_id, new.source_id, new.event_id, $3, new.reason, new.message, new.event
FROM head
CROSS JOIN unnest(?::text[], ?::text[], ?::text[], ?::text[], ?::text[])
    AS new (source_id, event_id, reason, message, event)
ON CONFLICT (org_id, source_id, event_id) DO UPDATE
SET seen_at = excluded.seen_at, reason = excluded.reason, message = excluded.message,
    event = excluded.event
