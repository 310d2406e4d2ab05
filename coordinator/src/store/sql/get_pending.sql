-- get_pending: one unsettled commit of a source by its caller's name, with the first commit before
-- it that holds one of its rows. It is looked for among as many as a courier reads ahead: beyond
-- these, a commit waits for room. Locks: none.
SELECT
    inbox.sequence,
    inbox.client_tx_id,
    inbox.commit_id,
    inbox.dead,
    inbox.attempts,
    inbox.due_at,
    inbox.last_error_at,
    inbox.last_error_class,
    inbox.last_error_message,
    inbox.last_error_status,
    inbox.first_failed_at,
    CASE WHEN NOT inbox.echoed THEN inbox.expires_at END AS expires_at,
    inbox.open_deadline,
    inbox.may_apply_until,
    inbox.read_back_at,
    inbox.read_back,
    inbox.accepted_at,
    commits.participant_id,
    commits.participant_kind,
    before.client_tx_id AS blocked_by
FROM commits
JOIN inbox
    ON inbox.org_id = commits.org_id
    AND inbox.source_id = commits.source_id
    AND inbox.sequence = commits.inbox_sequence
LEFT JOIN LATERAL (
    SELECT first.client_tx_id
    FROM (
        SELECT ahead.sequence, ahead.client_tx_id, ahead.lanes, ahead.dead, ahead.may_apply_until
        FROM inbox AS ahead
        WHERE ahead.org_id = $1 AND ahead.source_id = $2 AND ahead.sequence < inbox.sequence
        ORDER BY ahead.sequence
        LIMIT 100000
    ) AS first
    WHERE first.lanes && inbox.lanes
        AND (NOT first.dead OR first.may_apply_until > clock_timestamp())
    ORDER BY first.sequence
    LIMIT 1
) AS before ON NOT inbox.dead
WHERE commits.org_id = $1 AND commits.source_id = $2 AND commits.client_tx_id = $3
    AND inbox.client_tx_id = $3
