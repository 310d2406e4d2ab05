-- prune_managed_commits: deletes ledger entries of managed models older than $1 days, at most $2.
-- Locks: those rows.
DELETE FROM commits
WHERE ctid = ANY (ARRAY(
    SELECT ctid
    FROM commits
    WHERE accepted_at < now() - make_interval(days => $1)
        AND settled_at < now() - make_interval(days => $1)
        AND source_id IS NULL
    LIMIT $2
))
