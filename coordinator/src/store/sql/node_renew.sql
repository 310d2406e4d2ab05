-- node_renew
-- Takes or renews a node's lease, by the clock of the database, and forgets nodes that are long
-- gone. $2 is its length in milliseconds.
WITH gone AS (
    DELETE FROM nodes WHERE expires_at < clock_timestamp() - interval '1 day'
)
INSERT INTO nodes (node_id, expires_at)
VALUES ($1, clock_timestamp() + $2 * interval '1 millisecond')
ON CONFLICT (node_id) DO UPDATE SET expires_at = excluded.expires_at
