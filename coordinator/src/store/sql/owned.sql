-- owned
-- What a node needs to see that a source of its own has news: behind the wake-ups, which may be lost.
SELECT org_id, source_id, epoch, inbox_sequence, inbox_revision, updated_at
FROM data_sources WHERE owner = $1
