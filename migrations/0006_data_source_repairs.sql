-- Data Sources: unsettled commits are counted per row, rows to be read again outlive their owner, and
-- a source is deleted without waiting for its events to be.

-- A node of before this does not count: a commit that it takes or settles while newer nodes run leaves
-- its rows' counts off by one.
ALTER TABLE row_versions ADD COLUMN unsettled bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN row_versions.unsettled IS 'Commits on the row that are neither confirmed nor rejected, dead ones too.';
COMMENT ON COLUMN row_versions.accepted_sequence IS 'Of no use any more; kept for older programs that run.';
COMMENT ON COLUMN row_versions.settled_sequence IS 'Of no use any more; kept for older programs that run.';
INSERT INTO row_versions (org_id, model, row_id, sync_id, unsettled)
SELECT org_id, operation ->> 'model', operation ->> 'id', 0, count(DISTINCT (source_id, sequence))
FROM inbox
CROSS JOIN LATERAL json_array_elements(convert_from(body, 'UTF8')::json -> 'operations') AS operation
GROUP BY 1, 2, 3
ON CONFLICT (org_id, model, row_id) DO UPDATE SET unsettled = excluded.unsettled;

CREATE TABLE rereads (
    org_id    text   NOT NULL,
    source_id text   NOT NULL,
    position  bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    model     text   NOT NULL,
    row_id    text   NOT NULL,
    PRIMARY KEY (org_id, source_id, position),
    FOREIGN KEY (org_id, source_id) REFERENCES data_sources ON DELETE CASCADE
);
COMMENT ON TABLE rereads IS 'Rows whose last change in the log may not be what their source holds: its owner reads them again, which deletes them.';
COMMENT ON COLUMN rereads.org_id IS 'Whose source it is.';
COMMENT ON COLUMN rereads.source_id IS 'The source.';
COMMENT ON COLUMN rereads.position IS 'Tells apart that one row is to be read again, and again.';
COMMENT ON COLUMN rereads.model IS 'The row''s model.';
COMMENT ON COLUMN rereads.row_id IS 'The row''s id.';

-- They may be too many to be deleted with their source, in one statement. What is left of a source
-- that is gone is no source's of that name that is made later: see data_sources.created_at.
ALTER TABLE feed_events DROP CONSTRAINT feed_events_org_id_source_id_fkey;
ALTER TABLE quarantined_events DROP CONSTRAINT quarantined_events_org_id_source_id_fkey;
COMMENT ON COLUMN feed_events.source_id IS 'The source; it may be gone by now.';
COMMENT ON COLUMN quarantined_events.source_id IS 'The source; it may be gone by now.';
COMMENT ON COLUMN data_sources.created_at IS 'When it was registered. Events from before were another source''s of that name.';
