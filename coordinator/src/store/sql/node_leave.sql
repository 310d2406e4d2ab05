-- node_leave
-- Ends a node's lease.
DELETE FROM nodes WHERE node_id = $1
