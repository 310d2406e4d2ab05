-- orphans
-- Sources that nobody delivers to: never claimed, released, or owned by another node whose lease is over.
-- Not the asking node's own ($2): it may look before its own renewal, and would fence itself.
-- In no order, so that nodes share them out. The one look across organizations: it finds keys, and each source is then claimed on its own.
SELECT s.org_id, s.source_id, s.owner
FROM data_sources AS s
WHERE s.owner IS NULL
   OR s.owner <> $2 AND NOT EXISTS (
       SELECT FROM nodes AS n WHERE n.node_id = s.owner AND n.expires_at > clock_timestamp()
   )
ORDER BY random()
LIMIT $1
