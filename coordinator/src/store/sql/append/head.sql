-- append
-- Moves the head and writes what a batch decided, if the head still has the version that was read.
-- Otherwise it writes nothing: every part below joins `head`. Locks the head first, then the rows of
-- each part in key order. $1 organization, $2 version read, $3 time of the batch. `place` is for parts
-- that also serve several organizations (`heads`).
WITH head AS (
    UPDATE heads
    SET version = version + 1, last_sync_id = $4, schema_version = $5
    WHERE org_id = $1 AND version = $2
    RETURNING org_id, 0 AS place, $3::timestamptz AS now
)
