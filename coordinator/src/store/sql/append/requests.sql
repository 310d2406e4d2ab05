-- Last success and last error of requests to sources.
INSERT INTO source_requests (
    org_id, source_id, kind, last_success_at, last_error_at, last_error_class, last_error_message,
    last_error_status
)
SELECT head.org_id, note.source_id, note.kind, note.success_at, note.error_at, note.error_class,
       note.error_message, note.error_status
FROM head
CROSS JOIN unnest(
    ?::text[], ?::text[], ?::timestamptz[], ?::timestamptz[], ?::text[], ?::text[], ?::int[]
) AS note (source_id, kind, success_at, error_at, error_class, error_message, error_status)
ON CONFLICT (org_id, source_id, kind) DO UPDATE
SET last_success_at = coalesce(excluded.last_success_at, source_requests.last_success_at),
    last_error_at = coalesce(excluded.last_error_at, source_requests.last_error_at),
    last_error_class = coalesce(excluded.last_error_class, source_requests.last_error_class),
    last_error_message = coalesce(excluded.last_error_message, source_requests.last_error_message),
    last_error_status = coalesce(excluded.last_error_status, source_requests.last_error_status)
