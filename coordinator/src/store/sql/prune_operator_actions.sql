-- prune_operator_actions: deletes what operators did older than $1 days, at most $2.
-- Locks: those rows.
DELETE FROM operator_actions
WHERE ctid = ANY (ARRAY(
    SELECT ctid
    FROM operator_actions
    WHERE acted_at < now() - make_interval(days => $1)
    LIMIT $2
))
