-- sealed_otherwise: some keys, revoked ones included, that another master key than $1 seals, over
-- all organizations. Locks: none.
SELECT org_id, key_id, sealed, sealed_under
FROM api_keys
WHERE sealed_under <> $1
ORDER BY org_id, key_id
LIMIT $2
