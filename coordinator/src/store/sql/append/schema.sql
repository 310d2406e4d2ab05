-- A schema that was pushed.
INSERT INTO schemas (org_id, version, document, created_at)
SELECT head.org_id, ?::int, ?::text, $3
FROM head
