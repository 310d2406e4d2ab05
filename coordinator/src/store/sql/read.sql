-- read
-- What a batch of commands touches, in one snapshot: the head, and by key the ledger's entries,
-- managed rows, versions of rows in Data Sources, sources, inbox entries, the use of models, events
-- that were dealt with, feeds, and sync groups of rows in Data Sources.
-- The sections share one set of columns; `section` says which a row belongs to. Takes no locks.
-- Events that were dealt with before their source was made are another's, of that name.
-- LIMIT 1 keeps each look-up by itself: joined with the table, it was planned while that was empty,
-- as one scan of all the organization's rows, and stayed so.
SELECT 1 AS section, NULL::text AS k1, NULL::text AS k2,
       NULL::text AS t1, NULL::text AS t2, NULL::text AS t3, NULL::text AS t4, NULL::text AS t5, NULL::text AS t6,
       version AS n1, last_sync_id AS n2, schema_version::bigint AS n3, NULL::bigint AS n4, NULL::bigint AS n5,
       NULL::bigint AS n6, NULL::bigint AS n7, NULL::bigint AS n8, NULL::bigint AS n9, NULL::bigint AS n10,
       NULL::bigint AS n11, NULL::bigint AS n12, NULL::bigint AS n13,
       EXISTS (SELECT FROM row_groups WHERE org_id = $1) AS f1, NULL::uuid AS u1, NULL::bytea AS b1,
       clock_timestamp() AS ts1, NULL::timestamptz AS ts2, NULL::timestamptz AS ts3,
       NULL::timestamptz AS ts4, NULL::timestamptz AS ts5, NULL::timestamptz AS ts6,
       NULL::timestamptz AS ts7, NULL::timestamptz AS ts8, NULL::timestamptz AS ts9, NULL::timestamptz AS ts10,
       NULL::bigint[] AS a1, NULL::bigint[] AS a2, NULL::bigint[] AS a3
FROM heads
WHERE org_id = $1

UNION ALL
SELECT 2, c.client_tx_id, NULL,
       c.state, c.source_id, c.error_code, c.error_message, c.participant_id, c.participant_kind,
       c.first_sync_id, c.last_sync_id, c.attempts, c.schema_version, c.inbox_sequence, NULL, NULL, NULL,
       NULL, NULL, NULL, NULL, NULL,
       c.dead, c.commit_id, c.fingerprint,
       c.accepted_at, c.settled_at, c.reentered_at, c.feed_read_at, NULL, NULL,
       NULL, NULL, NULL, NULL,
       c.assigned::bigint[], NULL, NULL
FROM unnest($2::text[]) AS wanted (client_tx_id)
CROSS JOIN LATERAL (
    SELECT * FROM commits WHERE org_id = $1 AND client_tx_id = wanted.client_tx_id LIMIT 1
) AS c

UNION ALL
SELECT 3, r.model, r.row_id,
       r.row::text, r.ctid::text, NULL, NULL, NULL, NULL,
       r.sync_id, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
       NULL, NULL, NULL, NULL, NULL,
       r.archived_at IS NOT NULL, NULL, NULL,
       NULL, NULL, NULL, NULL, NULL, NULL,
       NULL, NULL, NULL, NULL,
       NULL, NULL, NULL
FROM unnest($3::text[], $4::text[]) AS wanted (model, row_id)
CROSS JOIN LATERAL (
    SELECT *, ctid FROM managed_rows
    WHERE org_id = $1 AND model = wanted.model AND row_id = wanted.row_id
    LIMIT 1
) AS r

UNION ALL
SELECT 4, v.model, v.row_id,
       NULL, NULL, NULL, NULL, NULL, NULL,
       v.sync_id, v.unsettled, NULL, NULL, NULL, NULL, NULL, NULL,
       NULL, NULL, NULL, NULL, NULL,
       NULL, NULL, NULL,
       NULL, NULL, NULL, NULL, NULL, NULL,
       NULL, NULL, NULL, NULL,
       NULL, NULL, NULL
FROM unnest($5::text[], $6::text[]) AS wanted (model, row_id)
CROSS JOIN LATERAL (
    SELECT * FROM row_versions
    WHERE org_id = $1 AND model = wanted.model AND row_id = wanted.row_id
    LIMIT 1
) AS v

UNION ALL
SELECT 5, s.source_id, NULL,
       s.state, s.state_reason, s.url, NULL, NULL, NULL,
       s.epoch, s.inbox_sequence, s.pending_count, s.dead_count, s.consecutive_failures,
       s.request_timeout_ms, s.max_in_flight, s.backoff_step,
       s.max_per_second, s.max_pending, s.feed_lag_ms, s.recent_outcomes, s.inbox_revision,
       NULL, s.owner, NULL,
       s.backoff_until, s.recovered_at, s.failing_since, s.certificate_expires_at, s.recovered_from, f.caught_up_at,
       NULL, NULL, NULL, NULL,
       s.attempts_by_outcome, s.retries_by_outcome, s.retry_delays_ms
FROM unnest($7::text[]) AS wanted (source_id)
CROSS JOIN LATERAL (
    SELECT * FROM data_sources WHERE org_id = $1 AND source_id = wanted.source_id LIMIT 1
) AS s
LEFT JOIN LATERAL (
    SELECT caught_up_at FROM feeds
    WHERE org_id = $1 AND source_id = wanted.source_id AND state <> 'none'
    LIMIT 1
) AS f ON true

UNION ALL
SELECT 6, i.source_id, i.client_tx_id,
       i.traceparent, i.next_cause, i.read_back, i.last_error_class, i.last_error_message, NULL,
       i.sequence, i.attempts, i.spent, i.last_error_status, i.schema_version, i.echoed::int, NULL, NULL,
       NULL, NULL, NULL, NULL, NULL,
       i.dead, i.commit_id, CASE WHEN wanted.with_body THEN i.body END,
       i.due_at, i.failed_at, i.open_started_at, i.open_deadline, i.may_apply_until, i.accepted_at,
       i.expires_at, i.first_failed_at, i.read_back_at, i.last_error_at,
       i.positions::bigint[], i.flagged::bigint[], i.lanes
FROM unnest($8::text[], $9::bigint[], $10::boolean[]) AS wanted (source_id, sequence, with_body)
CROSS JOIN LATERAL (
    SELECT * FROM inbox
    WHERE org_id = $1 AND source_id = wanted.source_id AND sequence = wanted.sequence
    LIMIT 1
) AS i

UNION ALL
SELECT 7, wanted.model, NULL,
       NULL, NULL, NULL, NULL, NULL, NULL,
       NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
       NULL, NULL, NULL, NULL, NULL,
       EXISTS (SELECT FROM managed_rows WHERE org_id = $1 AND model = wanted.model)
           OR EXISTS (SELECT FROM row_versions WHERE org_id = $1 AND model = wanted.model AND sync_id > 0),
       NULL, NULL,
       NULL, NULL, NULL, NULL, NULL, NULL,
       NULL, NULL, NULL, NULL,
       NULL, NULL, NULL
FROM unnest($11::text[]) AS wanted (model)

UNION ALL
SELECT 8, e.source_id, e.event_id,
       NULL, NULL, NULL, NULL, NULL, NULL,
       NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
       NULL, NULL, NULL, NULL, NULL,
       NULL, NULL, NULL,
       e.seen_at, NULL, NULL, NULL, NULL, NULL,
       NULL, NULL, NULL, NULL,
       NULL, NULL, NULL
FROM unnest($12::text[], $13::text[]) AS wanted (source_id, event_id)
CROSS JOIN LATERAL (
    SELECT * FROM feed_events
    WHERE org_id = $1 AND source_id = wanted.source_id AND event_id = wanted.event_id
      AND seen_at > (
          SELECT created_at FROM data_sources WHERE org_id = $1 AND source_id = wanted.source_id
      )
    LIMIT 1
) AS e

UNION ALL
SELECT 9, f.source_id, NULL,
       f.state, f.newest_cursor, f.durable_cursor, to_json(f.trail_cursors)::text, NULL, NULL,
       f.largest_lateness_ms, f.taken_count, f.duplicate_count, f.echo_count, f.quarantined_count,
       NULL, NULL, NULL,
       NULL, NULL, NULL, NULL, NULL,
       NULL, NULL, NULL,
       f.last_event_at, f.caught_up_at, NULL, NULL, NULL, NULL,
       NULL, NULL, NULL, NULL,
       ARRAY(
           SELECT (extract(epoch FROM at) * 1000000)::bigint
           FROM unnest(f.trail_seen_at) WITH ORDINALITY AS seen (at, place)
           ORDER BY place
       ),
       NULL, NULL
FROM unnest($14::text[]) AS wanted (source_id)
CROSS JOIN LATERAL (
    SELECT * FROM feeds WHERE org_id = $1 AND source_id = wanted.source_id LIMIT 1
) AS f

UNION ALL
SELECT 10, g.model, g.row_id,
       array_to_json(g.groups)::text, NULL, NULL, NULL, NULL, NULL,
       NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
       NULL, NULL, NULL, NULL, NULL,
       NULL, NULL, NULL,
       NULL, NULL, NULL, NULL, NULL, NULL,
       NULL, NULL, NULL, NULL,
       NULL, NULL, NULL
FROM unnest($15::text[], $16::text[]) AS wanted (model, row_id)
CROSS JOIN LATERAL (
    SELECT * FROM row_groups
    WHERE org_id = $1 AND model = wanted.model AND row_id = wanted.row_id
    LIMIT 1
) AS g
