-- Managed rows that are gone. Found by key first (LIMIT 1: see `read`).
DELETE FROM managed_rows
USING head
CROSS JOIN unnest(?::text[], ?::text[]) AS gone (model, row_id)
CROSS JOIN LATERAL (
    SELECT ctid FROM managed_rows
    WHERE org_id = $1 AND model = gone.model AND row_id = gone.row_id
    LIMIT 1
) AS found
WHERE managed_rows.ctid = found.ctid
