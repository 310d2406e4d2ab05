-- Attempts that may leave once this is durable.
INSERT INTO attempts (
    org_id, source_id, started_at, commit_id, number, client_tx_id, cause, node, deadline
)
SELECT head.org_id, new.source_id, $3, new.commit_id, new.number, new.client_tx_id, new.cause,
       new.node, new.deadline
FROM head
CROSS JOIN unnest(
    ?::text[], ?::uuid[], ?::int[], ?::text[], ?::text[], ?::uuid[], ?::timestamptz[]
) AS new (source_id, commit_id, number, client_tx_id, cause, node, deadline)
