-- reseal: replaces a key's seal, unless another node has done so already. Locks: the key's row.
UPDATE api_keys
SET sealed = $3, sealed_under = $4
WHERE org_id = $1 AND key_id = $2 AND sealed = $5
