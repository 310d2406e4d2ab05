-- Managed rows that were there, as they stand after the batch. Each is found where it stood when it was
-- read, which saves the way through the index; by key when that is not known or holds it no more, as
-- after the append before or VACUUM FULL (LIMIT 1: see `read`). That it is there still, the head says.
UPDATE managed_rows
SET row = put.row::jsonb, sync_id = put.sync_id,
    archived_at = CASE WHEN put.archived THEN coalesce(managed_rows.archived_at, put.now) END
FROM (
    SELECT head.org_ids[new.place + 1] AS org_id, head.nows[new.place + 1] AS now, new.*
    FROM head
    JOIN unnest(?::int[], ?::text[], ?::text[], ?::text[], ?::bigint[], ?::boolean[], ?::text[])
        AS new (place, model, row_id, row, sync_id, archived, stood_at)
        ON head.places >> new.place & 1 = 1
) AS put
CROSS JOIN LATERAL (
    SELECT coalesce(
        (
            SELECT ctid FROM managed_rows
            WHERE ctid = put.stood_at::tid
              AND org_id = put.org_id AND model = put.model AND row_id = put.row_id
        ),
        (
            SELECT ctid FROM managed_rows
            WHERE org_id = put.org_id AND model = put.model AND row_id = put.row_id
            LIMIT 1
        )
    ) AS at
) AS found
WHERE managed_rows.ctid = found.at
