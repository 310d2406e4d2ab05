-- When rows that live in Data Sources last changed, and how many commits on them are unsettled. Told
-- without having been read: positions only move up, counts by as much as the batch settled or took.
INSERT INTO row_versions (org_id, model, row_id, sync_id, unsettled)
SELECT head.org_id, put.model, put.row_id, put.sync_id, put.unsettled
FROM head
CROSS JOIN unnest(?::text[], ?::text[], ?::bigint[], ?::bigint[])
    AS put (model, row_id, sync_id, unsettled)
ON CONFLICT (org_id, model, row_id) DO UPDATE
SET sync_id = greatest(row_versions.sync_id, excluded.sync_id),
    unsettled = greatest(row_versions.unsettled + excluded.unsettled, 0)
