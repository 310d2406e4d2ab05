-- create_api_key: adds a key unless the organization has $8 live ones already. The count holds
-- because the head moves from the very version that this snapshot shows: of two statements that
-- counted at the same time one moves nothing, and its caller asks again.
-- Answers one row: whether the organization exists, its live keys before, and when the key was made
-- (null when it was not). Locks: the head's row, the new row.
WITH head AS MATERIALIZED (
    SELECT version FROM heads WHERE org_id = $1
), live AS MATERIALIZED (
    SELECT count(*) AS keys FROM api_keys WHERE org_id = $1 AND revoked_at IS NULL
), moved AS (
    UPDATE heads
    SET version = heads.version + 1
    FROM head, live
    WHERE heads.org_id = $1 AND heads.version = head.version AND live.keys < $8
    RETURNING heads.org_id
), made AS (
    INSERT INTO api_keys (org_id, key_id, sha256, sealed, sealed_under, prefix, display_name)
    SELECT org_id, $2, $3, $4, $5, $6, $7 FROM moved
    RETURNING created_at
)
SELECT
    EXISTS (SELECT FROM head) AS found,
    (SELECT keys FROM live) AS live_keys,
    (SELECT created_at FROM made) AS created_at
