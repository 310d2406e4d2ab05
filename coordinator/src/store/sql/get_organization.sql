-- get_organization: one tenant. Locks: none.
SELECT org_id, display_name, mode, created_at
FROM organizations
WHERE org_id = $1
