-- The log's new entries.
INSERT INTO deltas (
    org_id, sync_id, created_at, client_tx_id, operation, kind, model, row_id, row,
    transaction_id, participant_id, participant_kind, stale, groups, left_groups
)
SELECT head.org_ids[new.place + 1], new.sync_id, head.nows[new.place + 1], new.client_tx_id,
       new.operation::smallint, new.kind, new.model,
       new.row_id, new.row, new.transaction_id, new.participant_id, new.participant_kind, new.stale,
       new.groups::text[], new.left_groups::text[]
FROM head
JOIN unnest(
    ?::int[], ?::bigint[], ?::text[], ?::int[], ?::text[], ?::text[], ?::text[], ?::text[],
    ?::text[], ?::text[], ?::text[], ?::boolean[], ?::text[], ?::text[]
) AS new (
    place, sync_id, client_tx_id, operation, kind, model, row_id, row,
    transaction_id, participant_id, participant_kind, stale, groups, left_groups
) ON head.places >> new.place & 1 = 1
