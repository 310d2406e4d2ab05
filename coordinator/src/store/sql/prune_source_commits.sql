-- prune_source_commits: deletes settled ledger entries of Data Sources older than $1 days, at most $2.
-- Locks: those rows.
DELETE FROM commits
WHERE ctid = ANY (ARRAY(
    SELECT ctid
    FROM commits
    WHERE accepted_at < now() - make_interval(days => $1)
        AND settled_at < now() - make_interval(days => $1)
        AND source_id IS NOT NULL
    LIMIT $2
))
