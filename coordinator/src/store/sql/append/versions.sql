-- When rows that live in Data Sources last changed, and which commits on them were accepted and
-- settled. Told without having been read: each column only moves up, but for a newly accepted
-- commit, which begins to count anew (a source that was made again starts at 1).
INSERT INTO row_versions (org_id, model, row_id, sync_id, accepted_sequence, settled_sequence)
SELECT head.org_id, put.model, put.row_id, put.sync_id, put.accepted_sequence, put.settled_sequence
FROM head
CROSS JOIN unnest(?::text[], ?::text[], ?::bigint[], ?::bigint[], ?::bigint[])
    AS put (model, row_id, sync_id, accepted_sequence, settled_sequence)
ON CONFLICT (org_id, model, row_id) DO UPDATE
SET sync_id = greatest(row_versions.sync_id, excluded.sync_id),
    accepted_sequence = CASE
        WHEN excluded.accepted_sequence > 0 THEN excluded.accepted_sequence
        ELSE row_versions.accepted_sequence
    END,
    settled_sequence = CASE
        WHEN excluded.accepted_sequence > 0 THEN excluded.settled_sequence
        ELSE greatest(row_versions.settled_sequence, excluded.settled_sequence)
    END
