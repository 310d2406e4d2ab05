-- list_organizations: a page of the tenants after the id $1, by id. Locks: none.
SELECT org_id, display_name, mode, created_at
FROM organizations
WHERE $1::text IS NULL OR org_id > $1
ORDER BY org_id
LIMIT $2
