-- pending_newest: sequence of a source's newest commit. Locks: none.
SELECT inbox_sequence FROM data_sources WHERE org_id = $1 AND source_id = $2
