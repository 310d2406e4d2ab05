-- The log for subscribers: which sync groups each change belongs to.

ALTER TABLE deltas
    ADD COLUMN groups      text[] NOT NULL DEFAULT '{}',
    ADD COLUMN left_groups text[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN deltas.groups IS 'Sync groups of the row after the change; after a DELETE, those that it was in.';
COMMENT ON COLUMN deltas.left_groups IS 'Sync groups that the row left by the change.';

CREATE TABLE row_groups (
    org_id text   NOT NULL,
    model  text   NOT NULL,
    row_id text   NOT NULL COLLATE "C",
    groups text[] NOT NULL,
    PRIMARY KEY (org_id, model, row_id)
) WITH (fillfactor = 80);
COMMENT ON TABLE row_groups IS 'Sync groups of rows that live in a Data Source, to tell which ones a row leaves: the row itself is not kept. Only rows that are, or were, in one.';
COMMENT ON COLUMN row_groups.org_id IS 'Whose row it is.';
COMMENT ON COLUMN row_groups.model IS 'Its model.';
COMMENT ON COLUMN row_groups.row_id IS 'Its id.';
COMMENT ON COLUMN row_groups.groups IS 'The groups after its last change.';
