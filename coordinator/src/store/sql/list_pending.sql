-- list_pending: a page of a source's unsettled commits after the sequence $3, in the order of
-- acceptance. Locks: none.
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
    inbox.accepted_at,
    commits.participant_id,
    commits.participant_kind
FROM inbox
JOIN commits
    ON commits.org_id = inbox.org_id AND commits.client_tx_id = inbox.client_tx_id
WHERE inbox.org_id = $1 AND inbox.source_id = $2 AND inbox.sequence > $3
ORDER BY inbox.sequence
LIMIT $4
