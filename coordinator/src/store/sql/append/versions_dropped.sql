-- Rows of which nothing is known any more: no commit changed them, and none is unsettled. Found by key
-- first (LIMIT 1: see `read`).
DELETE FROM row_versions
USING head
CROSS JOIN unnest(?::text[], ?::text[], ?::bigint[]) AS done (model, row_id, more)
CROSS JOIN LATERAL (
    SELECT ctid FROM row_versions
    WHERE org_id = $1 AND model = done.model AND row_id = done.row_id
      AND sync_id = 0 AND unsettled + done.more <= 0
    LIMIT 1
) AS found
WHERE row_versions.ctid = found.ctid
