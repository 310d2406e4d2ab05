-- append
-- Moves the head and writes what a batch decided, if the head still has the version that was read.
-- Otherwise it writes nothing: every part below joins `head`. Locks the head first, then the rows of
-- each part in key order. $1 organization, $2 version read, $3 time of the batch. Parts that also serve
-- several organizations go by the place of each (`heads`); here it is 0.
WITH head AS (
    UPDATE heads
    SET version = version + 1, last_sync_id = $4, schema_version = $5
    WHERE org_id = $1 AND version = $2
    RETURNING org_id, log_epoch, 0 AS place, 1::bigint AS places, ARRAY[org_id] AS org_ids,
              ARRAY[$3::timestamptz] AS nows
)
