-- load_managed_row: the row $3 of the managed model $2, and the log's position, of one snapshot.
-- Answers without a row when there is none; not at all when there is no such organization.
-- Locks: none.
SELECT
    heads.last_sync_id,
    managed_rows.row::text AS row,
    managed_rows.archived_at IS NOT NULL AS archived
FROM heads
LEFT JOIN managed_rows
    ON managed_rows.org_id = heads.org_id
    AND managed_rows.model = $2
    AND managed_rows.row_id = $3
WHERE heads.org_id = $1
