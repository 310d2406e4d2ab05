-- Commits that their Data Source has yet to apply.
INSERT INTO inbox (
    org_id, source_id, sequence, client_tx_id, commit_id, body, lanes, positions,
    flagged, due_at, traceparent, accepted_at
)
SELECT head.org_id, new.source_id, new.sequence, new.client_tx_id, new.commit_id, new.body,
       new.lanes::bigint[], new.positions::smallint[], new.flagged::smallint[], $3, new.traceparent, $3
FROM head
CROSS JOIN unnest(
    ?::text[], ?::bigint[], ?::text[], ?::uuid[], ?::bytea[], ?::text[], ?::text[], ?::text[],
    ?::text[]
) AS new (source_id, sequence, client_tx_id, commit_id, body, lanes, positions, flagged, traceparent)
