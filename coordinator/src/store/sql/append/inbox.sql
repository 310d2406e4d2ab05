-- Commits that their Data Source has yet to apply.
INSERT INTO inbox (
    org_id, source_id, sequence, client_tx_id, commit_id, body, lanes, positions,
    flagged, due_at, traceparent, accepted_at, expires_at, guards, schema_version,
    attempts, open_started_at, open_deadline
)
SELECT head.org_id, new.source_id, new.sequence, new.client_tx_id, new.commit_id, new.body,
       new.lanes::bigint[], new.positions::smallint[], new.flagged::smallint[], $3, new.traceparent, $3,
       new.expires_at, new.guards, new.schema_version,
       new.attempts, new.open_started_at, new.open_deadline
FROM head
CROSS JOIN unnest(
    ?::text[], ?::bigint[], ?::text[], ?::uuid[], ?::bytea[], ?::text[], ?::text[], ?::text[],
    ?::text[], ?::timestamptz[], ?::text[], ?::int[],
    ?::int[], ?::timestamptz[], ?::timestamptz[]
) AS new (
    source_id, sequence, client_tx_id, commit_id, body, lanes, positions, flagged, traceparent,
    expires_at, guards, schema_version, attempts, open_started_at, open_deadline
)
