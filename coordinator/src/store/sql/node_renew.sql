-- node_renew
-- Takes or renews a node's lease, by the clock of the database, and tells the time of that clock.
-- $2 is the lease's length in milliseconds.
INSERT INTO nodes (node_id, expires_at)
VALUES ($1, clock_timestamp() + $2 * interval '1 millisecond')
ON CONFLICT (node_id) DO UPDATE SET expires_at = excluded.expires_at
RETURNING clock_timestamp()
