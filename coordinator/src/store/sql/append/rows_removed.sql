-- Managed rows that are gone. Found by key first (LIMIT 1: see `read`).
DELETE FROM managed_rows
USING head
JOIN unnest(?::int[], ?::text[], ?::text[]) AS gone (place, model, row_id)
    ON gone.place = head.place
CROSS JOIN LATERAL (
    SELECT ctid FROM managed_rows
    WHERE org_id = head.org_id AND model = gone.model AND row_id = gone.row_id
    LIMIT 1
) AS found
WHERE managed_rows.ctid = found.ctid
