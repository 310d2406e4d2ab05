-- active_schema: which version of the schema is active, 0 for none; its document as well, unless
-- it is the version $2, which the caller has.
-- Locks: none.
SELECT
    heads.schema_version,
    schemas.document
FROM heads
LEFT JOIN schemas
    ON schemas.org_id = heads.org_id
    AND schemas.version = heads.schema_version
    AND schemas.version <> $2
WHERE heads.org_id = $1
