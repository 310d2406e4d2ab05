-- The log's new entries.
INSERT INTO deltas (
    org_id, sync_id, created_at, client_tx_id, operation, kind, model, row_id, row,
    transaction_id, participant_id, participant_kind, stale, groups, left_groups
)
SELECT head.org_id, new.sync_id, head.now, new.client_tx_id, new.operation::smallint, new.kind, new.model,
       new.row_id, new.row, new.transaction_id, new.participant_id, new.participant_kind, new.stale,
       new.groups::text[], new.left_groups::text[]
FROM head
JOIN unnest(
    ?::int[], ?::bigint[], ?::text[], ?::int[], ?::text[], ?::text[], ?::text[], ?::text[],
    ?::text[], ?::text[], ?::text[], ?::boolean[], ?::text[], ?::text[]
) AS new (
    place, sync_id, client_tx_id, operation, kind, model, row_id, row,
    transaction_id, participant_id, participant_kind, stale, groups, left_groups
) ON new.place = head.place
