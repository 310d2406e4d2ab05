-- list_api_keys: a page of an organization's keys before ($2, $3), newest first. Locks: none.
SELECT key_id, prefix, display_name, created_at, revoked_at
FROM api_keys
WHERE org_id = $1 AND ($2::timestamptz IS NULL OR (created_at, key_id) < ($2, $3))
ORDER BY created_at DESC, key_id DESC
LIMIT $4
