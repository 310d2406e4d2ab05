-- Managed rows that were not there when they were read, under a head that stands still since.
INSERT INTO managed_rows (org_id, model, row_id, row, sync_id, archived_at)
SELECT head.org_ids[new.place + 1], new.model, new.row_id, new.row::jsonb, new.sync_id,
       CASE WHEN new.archived THEN head.nows[new.place + 1] END
FROM head
JOIN unnest(?::int[], ?::text[], ?::text[], ?::text[], ?::bigint[], ?::boolean[])
    AS new (place, model, row_id, row, sync_id, archived)
    ON head.places >> new.place & 1 = 1
