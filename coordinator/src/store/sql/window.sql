-- window
-- A source as it stands, and the next commits of its inbox, in order, in one snapshot. Dead ones
-- are left out once no attempt of theirs may still apply.
SELECT clock_timestamp() AS now, s.owner, s.epoch, s.state, s.max_in_flight, s.inbox_sequence,
       s.backoff_until, s.recovered_at,
       (SELECT sum(count) FROM unnest(s.attempts_by_outcome) AS count)::bigint AS settled,
       i.sequence, i.lanes, i.dead, i.due_at, i.failed_at, i.open_deadline, i.may_apply_until
FROM data_sources AS s
LEFT JOIN LATERAL (
    SELECT * FROM inbox
    WHERE org_id = $1 AND source_id = $2 AND sequence > $3
      AND (NOT dead OR may_apply_until > clock_timestamp())
    ORDER BY sequence
    LIMIT $4
) AS i ON true
WHERE s.org_id = $1 AND s.source_id = $2
ORDER BY i.sequence
