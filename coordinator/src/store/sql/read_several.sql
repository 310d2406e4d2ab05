-- read of several
-- What commits on managed rows touch, for several organizations in one snapshot, with names for columns
-- and each look-up by itself as in `read`. $1 organizations; $2 whose, $3 which commits; $4 whose, $5 and
-- $6 which rows.
SELECT 1 AS section, h.org_id, NULL::text AS k1, NULL::text AS k2,
       NULL::text AS t1, NULL::text AS t2, NULL::text AS t3, NULL::text AS t4, NULL::text AS t5, NULL::text AS t6,
       h.version AS n1, h.last_sync_id AS n2, h.schema_version::bigint AS n3, NULL::bigint AS n4, NULL::bigint AS n5,
       NULL::boolean AS f1, NULL::uuid AS u1, NULL::bytea AS b1,
       clock_timestamp() AS ts1, NULL::timestamptz AS ts2, NULL::timestamptz AS ts3, NULL::timestamptz AS ts4,
       NULL::bigint[] AS a1
FROM unnest($1::text[]) AS wanted (org_id)
CROSS JOIN LATERAL (SELECT * FROM heads WHERE org_id = wanted.org_id LIMIT 1) AS h

UNION ALL
SELECT 2, c.org_id, c.client_tx_id, NULL,
       c.state, c.source_id, c.error_code, c.error_message, c.participant_id, c.participant_kind,
       c.first_sync_id, c.last_sync_id, c.attempts, c.schema_version, c.inbox_sequence,
       c.dead, c.commit_id, c.fingerprint,
       c.accepted_at, c.settled_at, c.reentered_at, c.feed_read_at,
       c.assigned::bigint[]
FROM unnest($2::text[], $3::text[]) AS wanted (org_id, client_tx_id)
CROSS JOIN LATERAL (
    SELECT * FROM commits WHERE org_id = wanted.org_id AND client_tx_id = wanted.client_tx_id LIMIT 1
) AS c

UNION ALL
SELECT 3, r.org_id, r.model, r.row_id,
       r.row::text, r.ctid::text, NULL, NULL, NULL, NULL,
       r.sync_id, NULL, NULL, NULL, NULL,
       r.archived_at IS NOT NULL, NULL, NULL,
       NULL, NULL, NULL, NULL,
       NULL
FROM unnest($4::text[], $5::text[], $6::text[]) AS wanted (org_id, model, row_id)
CROSS JOIN LATERAL (
    SELECT *, ctid FROM managed_rows
    WHERE org_id = wanted.org_id AND model = wanted.model AND row_id = wanted.row_id
    LIMIT 1
) AS r
