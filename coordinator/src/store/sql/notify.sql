-- notify
-- Tells every node $1, one notification each: hints of what was appended, never facts.
SELECT pg_notify('coordinator', news.payload) FROM unnest($1::text[]) AS news (payload)
