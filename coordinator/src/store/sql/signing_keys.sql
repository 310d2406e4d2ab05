-- signing_keys: an organization's live keys, sealed, newest first. Locks: none.
SELECT org_id, key_id, sealed, sealed_under
FROM api_keys
WHERE org_id = $1 AND revoked_at IS NULL
ORDER BY created_at DESC, key_id DESC
LIMIT $2
