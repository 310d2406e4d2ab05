-- append of several
-- Moves the heads of several organizations and writes what their batches decided, for each one whose head
-- still has the version that was read; for another it writes nothing: every part below looks at the bit
-- that `head`, always one row, holds for the place of each of its rows. To join the heads that moved
-- would compare each row with each of them. A head that somebody holds is passed over, so that nobody
-- waits for another organization's trouble, nor two statements for each other. Found by key first
-- (LIMIT 1: see `read`).
-- $1 organizations, $2 versions read, $3 times of the batches, $6 places: 0 to 63.
WITH free AS MATERIALIZED (
    SELECT held.at, wanted.last_sync_id, wanted.schema_version, wanted.place
    FROM unnest($1::text[], $2::bigint[], $4::bigint[], $5::int[], $6::int[])
        AS wanted (org_id, version, last_sync_id, schema_version, place)
    CROSS JOIN LATERAL (
        SELECT ctid AS at FROM heads
        WHERE org_id = wanted.org_id AND version = wanted.version
        LIMIT 1
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS held
),
moved AS (
    UPDATE heads
    SET version = heads.version + 1, last_sync_id = free.last_sync_id,
        schema_version = free.schema_version
    FROM free
    WHERE heads.ctid = free.at
    RETURNING free.place, heads.log_epoch
),
head AS (
    SELECT $1::text[] AS org_ids, $3::timestamptz[] AS nows, bit_or(1::bigint << place) AS places
    FROM moved
)
