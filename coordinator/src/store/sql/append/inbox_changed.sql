-- Inbox entries after a start, a failed attempt or an operator's verb, which may have moved them to
-- another place. Found by key first (LIMIT 1: see `read`).
UPDATE inbox
SET sequence = changed.moved_to, dead = changed.dead, flagged = changed.flagged::smallint[],
    attempts = changed.attempts, spent = changed.spent,
    due_at = changed.due_at, failed_at = changed.failed_at,
    open_started_at = changed.open_started_at, open_deadline = changed.open_deadline,
    may_apply_until = changed.may_apply_until,
    last_error_at = coalesce(changed.last_error_at, inbox.last_error_at),
    last_error_class = coalesce(changed.last_error_class, inbox.last_error_class),
    last_error_message = coalesce(changed.last_error_message, inbox.last_error_message),
    last_error_status = coalesce(changed.last_error_status, inbox.last_error_status),
    next_cause = changed.next_cause, echoed = changed.echoed, first_failed_at = changed.first_failed_at,
    read_back_at = changed.read_back_at, read_back = changed.read_back
FROM head
CROSS JOIN unnest(
    ?::text[], ?::bigint[], ?::boolean[], ?::int[], ?::int[], ?::timestamptz[], ?::timestamptz[],
    ?::timestamptz[], ?::timestamptz[], ?::timestamptz[],
    ?::timestamptz[], ?::text[], ?::text[], ?::int[],
    ?::text[], ?::boolean[], ?::timestamptz[], ?::timestamptz[], ?::text[], ?::text[], ?::bigint[]
) AS changed (
    source_id, sequence, dead, attempts, spent, due_at, failed_at,
    open_started_at, open_deadline, may_apply_until,
    last_error_at, last_error_class, last_error_message, last_error_status,
    next_cause, echoed, first_failed_at, read_back_at, read_back, flagged, moved_to
)
CROSS JOIN LATERAL (
    SELECT ctid FROM inbox
    WHERE org_id = $1 AND source_id = changed.source_id AND sequence = changed.sequence
    LIMIT 1
) AS found
WHERE inbox.ctid = found.ctid
