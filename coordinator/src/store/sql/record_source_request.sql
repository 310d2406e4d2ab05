-- record_source_request: what the last requests of kind $3 to the source $2 came to: one succeeded
-- if $4; one failed if $5 (its class) is not null, with the message $6 and the HTTP status $7.
-- Writes nothing when the source has been deleted.
-- Locks: the row of this source and kind.
INSERT INTO source_requests AS known (
    org_id,
    source_id,
    kind,
    last_success_at,
    last_error_at,
    last_error_class,
    last_error_message,
    last_error_status
)
SELECT
    data_sources.org_id,
    data_sources.source_id,
    $3,
    CASE WHEN $4 THEN clock_timestamp() END,
    CASE WHEN $5::text IS NOT NULL THEN clock_timestamp() END,
    $5::text,
    $6::text,
    $7::int
FROM data_sources
WHERE data_sources.org_id = $1
    AND data_sources.source_id = $2
ON CONFLICT (org_id, source_id, kind) DO UPDATE SET
    last_success_at = coalesce(EXCLUDED.last_success_at, known.last_success_at),
    last_error_at = coalesce(EXCLUDED.last_error_at, known.last_error_at),
    last_error_class = coalesce(EXCLUDED.last_error_class, known.last_error_class),
    last_error_message = coalesce(EXCLUDED.last_error_message, known.last_error_message),
    last_error_status = coalesce(EXCLUDED.last_error_status, known.last_error_status)
