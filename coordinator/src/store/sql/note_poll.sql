-- note_poll: a poll of the source $2's feed succeeded and brought nothing; it ended the feed if $3.
-- Tells the log's position. Locks: the rows of this source's feed and of its events requests.
WITH noted AS (
    INSERT INTO source_requests (org_id, source_id, kind, last_success_at)
    SELECT org_id, source_id, 'events', clock_timestamp()
    FROM data_sources
    WHERE org_id = $1 AND source_id = $2
    ON CONFLICT (org_id, source_id, kind) DO UPDATE SET last_success_at = excluded.last_success_at
), ended AS (
    UPDATE feeds SET caught_up_at = clock_timestamp()
    WHERE org_id = $1 AND source_id = $2 AND $3::boolean
)
SELECT clock_timestamp() AS now, last_sync_id FROM heads WHERE org_id = $1
