-- Sync groups of rows that live in Data Sources, after the batch.
INSERT INTO row_groups (org_id, model, row_id, groups)
SELECT head.org_id, put.model, put.row_id, put.groups::text[]
FROM head
CROSS JOIN unnest(?::text[], ?::text[], ?::text[]) AS put (model, row_id, groups)
ON CONFLICT (org_id, model, row_id) DO UPDATE
SET groups = excluded.groups
