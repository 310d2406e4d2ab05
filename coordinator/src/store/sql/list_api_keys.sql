-- list_api_keys: a page of an organization's keys before ($2, $3), newest first, each with the
-- sources that took it when they were last verified, and took no newer live one. Locks: none.
SELECT
    key_id,
    prefix,
    display_name,
    created_at,
    revoked_at,
    ARRAY(
        SELECT taken.source_id
        FROM source_keys AS taken
        WHERE taken.org_id = keys.org_id
            AND taken.key_id = keys.key_id
            AND taken.accepted
            AND keys.revoked_at IS NULL
            AND NOT EXISTS (
                SELECT FROM source_keys AS other
                JOIN api_keys AS newer
                    ON newer.org_id = other.org_id AND newer.key_id = other.key_id
                WHERE other.org_id = taken.org_id
                    AND other.source_id = taken.source_id
                    AND other.accepted
                    AND newer.revoked_at IS NULL
                    AND (newer.created_at, newer.key_id) > (keys.created_at, keys.key_id)
            )
        ORDER BY taken.source_id
    ) AS needed_by
FROM api_keys AS keys
WHERE org_id = $1 AND ($2::timestamptz IS NULL OR (created_at, key_id) < ($2, $3))
ORDER BY created_at DESC, key_id DESC
LIMIT $4
