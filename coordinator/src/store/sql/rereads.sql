-- rereads: the first $3 rows of the source $2 that are to be read again. Locks: none.
SELECT position, model, row_id
FROM rereads
WHERE org_id = $1 AND source_id = $2
ORDER BY position
LIMIT $3
