-- What a writer's view of a row is judged by, where the row itself does not tell.

-- A managed row that is gone is found by its last change. Only DELETEs are in the index.
CREATE INDEX deltas_removed ON deltas (org_id, model, row_id, sync_id) WHERE kind = 'DELETE';
