-- What operators did, on record with what it changed.
INSERT INTO operator_actions (
    org_id, acted_at, action_id, source_id, verb, client_tx_id, key_id, actor, detail
)
SELECT head.org_id, $3, new.action_id, new.source_id, new.verb, new.client_tx_id, new.key_id,
       new.actor, new.detail
FROM head
CROSS JOIN unnest(
    ?::uuid[], ?::text[], ?::text[], ?::text[], ?::uuid[], ?::text[], ?::text[]
) AS new (action_id, source_id, verb, client_tx_id, key_id, actor, detail)
