-- list_pending: a page of a source's unsettled commits after the sequence $3, in the order of
-- acceptance; {filter} stands for a condition. Locks: none.
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
    NULL::text AS blocked_by
FROM inbox
JOIN commits
    ON commits.org_id = inbox.org_id AND commits.client_tx_id = inbox.client_tx_id
WHERE inbox.org_id = $1 AND inbox.source_id = $2 AND inbox.sequence > $3 AND {filter}
ORDER BY inbox.sequence
LIMIT $4
