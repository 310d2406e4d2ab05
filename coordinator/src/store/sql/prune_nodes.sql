-- prune_nodes: forgets nodes whose lease has been over for $1 days and that own nothing, at most $2.
-- Locks: those rows.
DELETE FROM nodes
WHERE ctid = ANY (ARRAY(
    SELECT ctid
    FROM nodes
    WHERE expires_at < clock_timestamp() - make_interval(days => $1)
        AND NOT EXISTS (SELECT FROM data_sources WHERE owner = node_id)
    LIMIT $2
))
