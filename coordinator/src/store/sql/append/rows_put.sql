-- Managed rows that were there, as they stand after the batch. One may have been removed and made
-- anew in it.
INSERT INTO managed_rows (org_id, model, row_id, row, sync_id, archived_at)
SELECT head.org_id, put.model, put.row_id, put.row::jsonb, put.sync_id, CASE WHEN put.archived THEN head.now END
FROM head
JOIN unnest(?::int[], ?::text[], ?::text[], ?::text[], ?::bigint[], ?::boolean[])
    AS put (place, model, row_id, row, sync_id, archived)
    ON put.place = head.place
ON CONFLICT (org_id, model, row_id) DO UPDATE
SET row = excluded.row, sync_id = excluded.sync_id,
    archived_at = CASE
        WHEN excluded.archived_at IS NOT NULL THEN coalesce(managed_rows.archived_at, excluded.archived_at)
    END
