-- settled
-- Whether a commit is settled or dead.
SELECT state <> 'queued' OR dead FROM commits WHERE org_id = $1 AND client_tx_id = $2
