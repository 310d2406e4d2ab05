-- echoed_commits: of commits that events name (the events' rows beside them, with their lanes), those
-- of the source $2: where they stand, and whether the row is one of theirs. Known of pending commits by
-- their lanes, of confirmed ones by their deltas, of rejected ones not at all. Locks: none.
SELECT wanted.place, c.inbox_sequence AS sequence,
       CASE
           WHEN c.state = 'queued' THEN EXISTS (
               SELECT FROM (
                   SELECT lanes FROM inbox
                   WHERE org_id = $1 AND source_id = $2 AND sequence = c.inbox_sequence
                   LIMIT 1
               ) AS i
               WHERE wanted.lane = ANY (i.lanes)
           )
           WHEN c.state = 'confirmed' THEN EXISTS (
               SELECT FROM (
                   SELECT model, row_id FROM deltas
                   WHERE org_id = $1 AND sync_id BETWEEN c.first_sync_id AND c.last_sync_id
                     AND created_at = c.settled_at
                   OFFSET 0
               ) AS d
               WHERE d.model = wanted.model AND d.row_id = wanted.row_id
           )
       END AS member
FROM unnest($3::text[], $4::text[], $5::text[], $6::bigint[])
    WITH ORDINALITY AS wanted (client_tx_id, model, row_id, lane, place)
CROSS JOIN LATERAL (
    SELECT * FROM commits WHERE org_id = $1 AND client_tx_id = wanted.client_tx_id LIMIT 1
) AS c
WHERE c.source_id = $2
