-- list_actions: a page of what operators did to a source and its commits, before ($3, $4), newest
-- first. Locks: none.
SELECT acted_at, action_id, verb, client_tx_id, key_id, actor, detail
FROM operator_actions
WHERE org_id = $1
    AND source_id = $2
    AND ($3::timestamptz IS NULL OR (acted_at, action_id) < ($3, $4))
ORDER BY acted_at DESC, action_id DESC
LIMIT $5
