-- sealed_samples: one live key per master key in use, over all organizations: at start, each must
-- open. Locks: none.
SELECT DISTINCT ON (sealed_under) org_id, key_id, sealed, sealed_under
FROM api_keys
WHERE revoked_at IS NULL
ORDER BY sealed_under, created_at DESC
