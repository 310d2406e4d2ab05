-- authenticate: whose live key has this SHA-256. Locks: none.
SELECT organizations.org_id, organizations.mode, api_keys.key_id
FROM api_keys
JOIN organizations ON organizations.org_id = api_keys.org_id
WHERE api_keys.sha256 = $1 AND api_keys.revoked_at IS NULL
