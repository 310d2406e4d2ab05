-- Managed rows that are gone. Found by key first (LIMIT 1: see `read`).
DELETE FROM managed_rows
USING head
JOIN unnest(?::int[], ?::text[], ?::text[]) AS gone (place, model, row_id)
    ON head.places >> gone.place & 1 = 1
CROSS JOIN LATERAL (
    SELECT ctid FROM managed_rows
    WHERE org_id = head.org_ids[gone.place + 1] AND model = gone.model AND row_id = gone.row_id
    LIMIT 1
) AS found
WHERE managed_rows.ctid = found.ctid
