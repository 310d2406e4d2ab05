-- row_in_log
-- What the newest change of a row in a Data Source left of it: null after a DELETE. Nothing when the log does not have
-- that change. Locks nothing.
SELECT d.row
FROM row_versions AS v
JOIN deltas AS d ON d.org_id = v.org_id AND d.sync_id = v.sync_id
WHERE v.org_id = $1 AND v.model = $2 AND v.row_id = $3 AND v.sync_id > 0
