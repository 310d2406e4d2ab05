-- list_schemas: a page of an organization's schema versions before $2, newest first, without their
-- documents. Locks: none.
SELECT
    schemas.version,
    '' AS document,
    schemas.created_at,
    schemas.version = heads.schema_version AS active
FROM heads
JOIN schemas ON schemas.org_id = heads.org_id
WHERE heads.org_id = $1 AND ($2::int IS NULL OR schemas.version < $2)
ORDER BY schemas.version DESC
LIMIT $3
