-- Rows that a settled commit did not change, and that others did or will. Found by key first (LIMIT
-- 1: see `read`); `versions_dropped` has the rest.
UPDATE row_versions
SET unsettled = greatest(row_versions.unsettled + done.more, 0)
FROM head
CROSS JOIN unnest(?::text[], ?::text[], ?::bigint[]) AS done (model, row_id, more)
CROSS JOIN LATERAL (
    SELECT ctid FROM row_versions
    WHERE org_id = $1 AND model = done.model AND row_id = done.row_id
      AND (sync_id > 0 OR unsettled + done.more > 0)
    LIMIT 1
) AS found
WHERE row_versions.ctid = found.ctid
