-- revoke_api_key: ends a key, unless it is the last live one and signs commits that are pending.
-- What was counted holds because the head moves from the very version that this snapshot shows: a
-- commit accepted in between makes the statement move nothing, and its caller asks again.
-- Answers one row: the key as it stood (null columns when there is none), the other live keys, the
-- pending commits, and when it was revoked now. Locks: the head's row, the key's row.
WITH head AS MATERIALIZED (
    SELECT version FROM heads WHERE org_id = $1
), target AS MATERIALIZED (
    SELECT key_id, prefix, display_name, created_at, revoked_at
    FROM api_keys
    WHERE org_id = $1 AND key_id = $2
), others AS MATERIALIZED (
    SELECT count(*) AS keys
    FROM api_keys
    WHERE org_id = $1 AND key_id <> $2 AND revoked_at IS NULL
), pending AS MATERIALIZED (
    SELECT coalesce(sum(pending_count), 0)::bigint AS commits
    FROM data_sources
    WHERE org_id = $1
), moved AS (
    UPDATE heads
    SET version = heads.version + 1
    FROM head, target, others, pending
    WHERE heads.org_id = $1
        AND heads.version = head.version
        AND target.revoked_at IS NULL
        AND (others.keys > 0 OR pending.commits = 0)
    RETURNING heads.org_id
), ended AS (
    UPDATE api_keys
    SET revoked_at = now()
    FROM moved
    WHERE api_keys.org_id = moved.org_id AND api_keys.key_id = $2
    RETURNING api_keys.revoked_at
)
SELECT
    target.key_id,
    target.prefix,
    target.display_name,
    target.created_at,
    coalesce(target.revoked_at, (SELECT revoked_at FROM ended)) AS revoked_at,
    others.keys AS other_keys,
    pending.commits AS pending_commits
FROM target, others, pending
