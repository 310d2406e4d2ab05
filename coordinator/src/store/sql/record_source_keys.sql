-- record_source_keys: whether the source $2 took each of the keys $3, as $4 says. Writes nothing
-- when the source has been deleted. Locks: the rows of this source and these keys.
INSERT INTO source_keys AS known (org_id, source_id, key_id, accepted, checked_at)
SELECT data_sources.org_id, data_sources.source_id, seen.key_id, seen.accepted, clock_timestamp()
FROM data_sources
CROSS JOIN unnest($3::uuid[], $4::boolean[]) AS seen (key_id, accepted)
WHERE data_sources.org_id = $1 AND data_sources.source_id = $2
ON CONFLICT (org_id, source_id, key_id) DO UPDATE SET
    accepted = EXCLUDED.accepted,
    checked_at = EXCLUDED.checked_at
