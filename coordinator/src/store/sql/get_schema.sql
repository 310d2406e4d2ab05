-- get_schema: the version $2 of an organization's schema, or the active one when $2 is 0.
-- Locks: none.
SELECT
    schemas.version,
    schemas.document,
    schemas.created_at,
    schemas.version = heads.schema_version AS active
FROM heads
JOIN schemas ON schemas.org_id = heads.org_id
WHERE heads.org_id = $1
    AND schemas.version = CASE $2 WHEN 0 THEN heads.schema_version ELSE $2 END
