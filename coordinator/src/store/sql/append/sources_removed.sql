-- Sources that are gone. What their feeds brought stays for retention to delete: it may be a lot.
DELETE FROM data_sources
USING head
CROSS JOIN unnest(?::text[]) AS gone (source_id)
WHERE data_sources.org_id = $1 AND data_sources.source_id = gone.source_id
