-- When rows that live in Data Sources last changed.
INSERT INTO row_versions (org_id, model, row_id, sync_id)
SELECT head.org_id, put.model, put.row_id, put.sync_id
FROM head
CROSS JOIN unnest(?::text[], ?::text[], ?::bigint[]) AS put (model, row_id, sync_id)
ON CONFLICT (org_id, model, row_id) DO UPDATE
SET sync_id = excluded.sync_id
