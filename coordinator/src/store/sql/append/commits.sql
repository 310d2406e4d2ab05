-- New ledger entries.
INSERT INTO commits (
    org_id, client_tx_id, commit_id, fingerprint, participant_id, participant_kind, source_id,
    schema_version, state, first_sync_id, last_sync_id, assigned, accepted_at, settled_at,
    inbox_sequence, feed_read_at
)
SELECT head.org_ids[new.place + 1], new.client_tx_id, new.commit_id, new.fingerprint, new.participant_id,
       new.participant_kind, new.source_id, new.schema_version, new.state, new.first_sync_id, new.last_sync_id,
       new.assigned::smallint[], head.nows[new.place + 1],
       CASE WHEN new.state <> 'queued' THEN head.nows[new.place + 1] END,
       new.inbox_sequence, new.feed_read_at
FROM head
JOIN unnest(
    ?::int[], ?::text[], ?::uuid[], ?::bytea[], ?::text[], ?::text[], ?::text[],
    ?::int[], ?::text[], ?::bigint[], ?::bigint[], ?::text[],
    ?::bigint[], ?::timestamptz[]
) AS new (
    place, client_tx_id, commit_id, fingerprint, participant_id, participant_kind, source_id,
    schema_version, state, first_sync_id, last_sync_id, assigned, inbox_sequence, feed_read_at
) ON head.places >> new.place & 1 = 1
