-- What a writer's view of a row is judged by, where the row itself does not tell.

-- A managed row that is gone is found by its last change. Only DELETEs are in the index.
CREATE INDEX deltas_removed ON deltas (org_id, model, row_id, sync_id) WHERE kind = 'DELETE';

ALTER TABLE commits ADD COLUMN feed_read_at timestamptz;
COMMENT ON COLUMN commits.feed_read_at IS 'When it became durable, its source''s feed had last been read to its end at this time: changes made outside later were not counted. Null for managed models, and when no feed was ever read.';
