-- Rows to be read again.
INSERT INTO rereads (org_id, source_id, model, row_id)
SELECT head.org_id, new.source_id, new.model, new.row_id
FROM head
CROSS JOIN unnest(?::text[], ?::text[], ?::text[]) AS new (source_id, model, row_id)
