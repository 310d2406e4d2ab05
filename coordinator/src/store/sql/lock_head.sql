-- lock_head
-- Takes an organization's head for one round, where races for it were lost. Locks that row until the
-- transaction ends; a client that falls silent meanwhile loses it after 250 ms.
SELECT set_config('idle_in_transaction_session_timeout', '250ms', true)
FROM heads
WHERE org_id = $1
FOR UPDATE
