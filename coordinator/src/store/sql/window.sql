-- window
-- A source as it stands, and the next commits of its inbox, in order, in one snapshot. Dead ones
-- are left out once no attempt of theirs may still apply.
SELECT clock_timestamp() AS now, s.owner, s.epoch, s.state, s.max_in_flight, s.max_per_second,
       s.inbox_sequence, s.backoff_until, s.recovered_at, s.recovered_from, s.inbox_revision,
       (SELECT sum(count) FROM unnest(s.attempts_by_outcome) AS count)::bigint AS settled,
       i.sequence, i.lanes, octet_length(i.body) AS weight, i.dead, i.attempts > 0 AS tried, i.due_at, i.failed_at, i.open_deadline,
       i.may_apply_until, CASE WHEN NOT i.echoed THEN i.expires_at END AS expires_at, i.next_cause,
       CASE WHEN i.attempts = 0 THEN i.guards END AS guards,
       CASE WHEN i.expires_at IS NOT NULL OR i.guards IS NOT NULL THEN i.client_tx_id END AS client_tx_id
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
