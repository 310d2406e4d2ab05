-- create_organization: adds a tenant together with its head, so that neither is ever seen alone.
-- A taken id is a unique violation. Locks: the two new rows.
WITH organization AS (
    INSERT INTO organizations (org_id, display_name, mode)
    VALUES ($1, $2, $3)
    RETURNING org_id, display_name, mode, created_at
), head AS (
    INSERT INTO heads (org_id)
    SELECT org_id FROM organization
)
SELECT org_id, display_name, mode, created_at
FROM organization
