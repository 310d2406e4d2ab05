-- Inbox entries after a start or a failed attempt. Found by key first (LIMIT 1: see `read`).
UPDATE inbox
SET dead = changed.dead, attempts = changed.attempts, spent = changed.spent,
    due_at = changed.due_at, failed_at = changed.failed_at,
    open_started_at = changed.open_started_at, open_deadline = changed.open_deadline,
    may_apply_until = changed.may_apply_until,
    last_error_at = coalesce(changed.last_error_at, inbox.last_error_at),
    last_error_class = coalesce(changed.last_error_class, inbox.last_error_class),
    last_error_message = coalesce(changed.last_error_message, inbox.last_error_message),
    last_error_status = coalesce(changed.last_error_status, inbox.last_error_status)
FROM head
CROSS JOIN unnest(
    ?::text[], ?::bigint[], ?::boolean[], ?::int[], ?::int[], ?::timestamptz[], ?::timestamptz[],
    ?::timestamptz[], ?::timestamptz[], ?::timestamptz[],
    ?::timestamptz[], ?::text[], ?::text[], ?::int[]
) AS changed (
    source_id, sequence, dead, attempts, spent, due_at, failed_at,
    open_started_at, open_deadline, may_apply_until,
    last_error_at, last_error_class, last_error_message, last_error_status
)
CROSS JOIN LATERAL (
    SELECT ctid FROM inbox
    WHERE org_id = $1 AND source_id = changed.source_id AND sequence = changed.sequence
    LIMIT 1
) AS found
WHERE inbox.ctid = found.ctid
