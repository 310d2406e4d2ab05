-- Managed rows that were not there when they were read, under a head that stands still since.
INSERT INTO managed_rows (org_id, model, row_id, row, sync_id, archived_at)
SELECT head.org_id, put.model, put.row_id, put.row::jsonb, put.sync_id, CASE WHEN put.archived THEN head.now END
FROM head
JOIN unnest(?::int[], ?::text[], ?::text[], ?::text[], ?::bigint[], ?::boolean[])
    AS put (place, model, row_id, row, sync_id, archived)
    ON put.place = head.place
