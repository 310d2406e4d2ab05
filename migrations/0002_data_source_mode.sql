-- Data Sources in full: flow limits, expiry, read-backs, operators' verbs, feeds of changes made
-- outside, and which keys an endpoint takes.

ALTER TABLE data_sources
    DROP CONSTRAINT data_sources_state_check,
    ADD CONSTRAINT data_sources_state_check CHECK (state IN ('enabled', 'failing', 'paused', 'disabled')),
    ADD COLUMN max_per_second         int    NOT NULL DEFAULT 0 CHECK (max_per_second BETWEEN 0 AND 100000),
    ADD COLUMN max_pending            bigint NOT NULL DEFAULT 1000000 CHECK (max_pending BETWEEN 1 AND 10000000),
    ADD COLUMN feed_lag_ms            bigint NOT NULL DEFAULT 60000 CHECK (feed_lag_ms BETWEEN 1000 AND 3600000),
    ADD COLUMN failing_since          timestamptz,
    ADD COLUMN recovered_from         timestamptz,
    ADD COLUMN recent_outcomes        bigint NOT NULL DEFAULT 1,
    ADD COLUMN certificate_expires_at timestamptz,
    ADD COLUMN inbox_revision         bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN data_sources.max_per_second IS 'Commit requests started per second at most; 0 for no limit.';
COMMENT ON COLUMN data_sources.max_pending IS 'Commits that may wait; beyond, new ones are refused.';
COMMENT ON COLUMN data_sources.feed_lag_ms IS 'How far the sweep of the feed trails its newest cursor.';
COMMENT ON COLUMN data_sources.failing_since IS 'When the row of failures began that goes on; null while there is none.';
COMMENT ON COLUMN data_sources.recovered_from IS 'When the spell that ended at recovered_at had begun: what failed in between is due at once; null for all before.';
COMMENT ON COLUMN data_sources.recent_outcomes IS 'The last attempts, a bit each below a leading one: 1 for a failure, newest lowest.';
COMMENT ON COLUMN data_sources.certificate_expires_at IS 'When the certificate that the endpoint last showed ends; null while unknown.';
COMMENT ON COLUMN data_sources.inbox_revision IS 'Counts what operators did to its commits: a courier that read the inbox before reads it anew.';

ALTER TABLE attempts
    DROP CONSTRAINT attempts_cause_check,
    ADD CONSTRAINT attempts_cause_check
        CHECK (cause IN ('accept', 'schedule', 'recovery', 'takeover', 'manual', 'echo'));

ALTER TABLE commits
    ADD COLUMN reentered_at   timestamptz,
    ADD COLUMN inbox_sequence bigint;
COMMENT ON COLUMN commits.reentered_at IS 'When an operator recovered it after it was dead: it then took a new place, at the end.';
COMMENT ON COLUMN commits.inbox_sequence IS 'Its place in its source''s inbox, of use while it is queued; null for managed models.';
UPDATE commits SET inbox_sequence = inbox.sequence
FROM inbox
WHERE inbox.org_id = commits.org_id AND inbox.client_tx_id = commits.client_tx_id;

ALTER TABLE inbox
    ADD COLUMN expires_at      timestamptz,
    ADD COLUMN next_cause      text CHECK (next_cause IN ('manual', 'echo')),
    ADD COLUMN first_failed_at timestamptz,
    ADD COLUMN read_back_at    timestamptz,
    ADD COLUMN read_back       text,
    ADD COLUMN guards          text,
    ADD COLUMN schema_version  int;
COMMENT ON COLUMN inbox.expires_at IS 'No attempt starts after this; null for never.';
COMMENT ON COLUMN inbox.next_cause IS 'Who asked for the next attempt, if not the schedule: it then waits for nothing but an attempt in flight.';
COMMENT ON COLUMN inbox.first_failed_at IS 'When an attempt first failed.';
COMMENT ON COLUMN inbox.read_back_at IS 'When its rows were last read back from the endpoint.';
COMMENT ON COLUMN inbox.read_back IS 'What the endpoint then held, for a person; no row data.';
COMMENT ON COLUMN inbox.guards IS 'JSON: its operations that rest on a view of their row; judged again when its first attempt starts. Null when none does; immutable.';
COMMENT ON COLUMN inbox.schema_version IS 'The schema that it was admitted under; null if by a release that did not say. Immutable.';
COMMENT ON COLUMN inbox.sequence IS 'Its place among the source''s commits; moved to the end when a dead one is recovered.';
UPDATE inbox SET first_failed_at = last_error_at WHERE last_error_at IS NOT NULL;
-- What operators ask for; a row enters and leaves it seldom, so that updates stay HOT.
CREATE INDEX inbox_failed ON inbox (org_id, source_id, sequence)
    WHERE dead OR first_failed_at IS NOT NULL;

ALTER TABLE row_versions
    ADD COLUMN accepted_sequence bigint NOT NULL DEFAULT 0,
    ADD COLUMN settled_sequence  bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN row_versions.sync_id IS 'Position of its last change in the log; 0 while none is confirmed.';
COMMENT ON COLUMN row_versions.accepted_sequence IS 'Newest commit that was accepted for the row, by its place in the inbox; 0 before the first.';
COMMENT ON COLUMN row_versions.settled_sequence IS 'Newest of them that is settled. Below accepted_sequence: a commit on the row is pending.';

CREATE TABLE source_keys (
    org_id     text        NOT NULL,
    source_id  text        NOT NULL,
    key_id     uuid        NOT NULL,
    accepted   boolean     NOT NULL,
    checked_at timestamptz NOT NULL,
    PRIMARY KEY (org_id, source_id, key_id),
    FOREIGN KEY (org_id, source_id) REFERENCES data_sources ON DELETE CASCADE,
    FOREIGN KEY (org_id, key_id) REFERENCES api_keys
);
COMMENT ON TABLE source_keys IS 'Which keys an endpoint took when it was last verified, each shown alone.';
COMMENT ON COLUMN source_keys.org_id IS 'Whose source it is.';
COMMENT ON COLUMN source_keys.source_id IS 'The source.';
COMMENT ON COLUMN source_keys.key_id IS 'The key.';
COMMENT ON COLUMN source_keys.accepted IS 'Whether a request signed with this key alone was taken.';
COMMENT ON COLUMN source_keys.checked_at IS 'When that was seen.';

-- Finds what is past its retention, at next to no price for those who write.
CREATE INDEX commits_by_age ON commits USING brin (accepted_at) WITH (autosummarize = on);

CREATE TABLE operator_actions (
    org_id       text        NOT NULL REFERENCES organizations,
    acted_at     timestamptz NOT NULL,
    action_id    uuid        NOT NULL,
    source_id    text        NOT NULL,
    verb         text        NOT NULL,
    client_tx_id text,
    key_id       uuid        NOT NULL,
    actor        text        NOT NULL,
    detail       text        NOT NULL,
    PRIMARY KEY (org_id, source_id, acted_at, action_id)
);
CREATE INDEX operator_actions_by_age ON operator_actions USING brin (acted_at);
COMMENT ON TABLE operator_actions IS 'What operators did to sources and their commits: written with the change itself.';
COMMENT ON COLUMN operator_actions.org_id IS 'Whose source it was.';
COMMENT ON COLUMN operator_actions.acted_at IS 'When, by the clock of the database.';
COMMENT ON COLUMN operator_actions.action_id IS 'Tells apart what happened at one moment.';
COMMENT ON COLUMN operator_actions.source_id IS 'The source; it may be gone by now.';
COMMENT ON COLUMN operator_actions.verb IS 'What was done: create, update, pause, retry, resolve, …';
COMMENT ON COLUMN operator_actions.client_tx_id IS 'The commit that it was done to, if one.';
COMMENT ON COLUMN operator_actions.key_id IS 'The API key that the call carried.';
COMMENT ON COLUMN operator_actions.actor IS 'Who asked, as the caller said; may be empty.';
COMMENT ON COLUMN operator_actions.detail IS 'Particulars, for a person; no row data, no secrets.';

CREATE TABLE feeds (
    org_id               text          NOT NULL,
    source_id            text          NOT NULL,
    state                text          NOT NULL CHECK (state IN ('polling', 'none', 'refused')),
    newest_cursor        text,
    durable_cursor       text,
    trail_cursors        text[]        NOT NULL DEFAULT '{}',
    trail_seen_at        timestamptz[] NOT NULL DEFAULT '{}',
    last_event_at        timestamptz,
    caught_up_at         timestamptz,
    largest_lateness_ms  bigint        NOT NULL DEFAULT 0,
    taken_count          bigint        NOT NULL DEFAULT 0,
    duplicate_count      bigint        NOT NULL DEFAULT 0,
    echo_count           bigint        NOT NULL DEFAULT 0,
    quarantined_count    bigint        NOT NULL DEFAULT 0,
    PRIMARY KEY (org_id, source_id),
    FOREIGN KEY (org_id, source_id) REFERENCES data_sources ON DELETE CASCADE
) WITH (fillfactor = 40);
COMMENT ON TABLE feeds IS 'How far each source''s feed of changes made outside was taken in.';
COMMENT ON COLUMN feeds.org_id IS 'Whose source it is.';
COMMENT ON COLUMN feeds.source_id IS 'The source.';
COMMENT ON COLUMN feeds.state IS 'polling; none: the endpoint has no feed; refused: it does not know the cursor any more.';
COMMENT ON COLUMN feeds.newest_cursor IS 'The endpoint''s newest cursor; every event up to it was taken in once.';
COMMENT ON COLUMN feeds.durable_cursor IS 'The cursor that the sweep starts from; it trails the newest by the source''s lag.';
COMMENT ON COLUMN feeds.trail_cursors IS 'Cursors between the durable and the newest one, oldest first.';
COMMENT ON COLUMN feeds.trail_seen_at IS 'When each of them was first seen.';
COMMENT ON COLUMN feeds.last_event_at IS 'When an event was last taken in.';
COMMENT ON COLUMN feeds.caught_up_at IS 'When the feed was last read to its end.';
COMMENT ON COLUMN feeds.largest_lateness_ms IS 'The longest that an event became visible behind a newer cursor.';
COMMENT ON COLUMN feeds.taken_count IS 'External events appended to the log.';
COMMENT ON COLUMN feeds.duplicate_count IS 'Events that were seen before.';
COMMENT ON COLUMN feeds.echo_count IS 'Events that were our own commits come back.';
COMMENT ON COLUMN feeds.quarantined_count IS 'Events that did not fit the schema.';

CREATE TABLE feed_events (
    org_id    text        NOT NULL,
    source_id text        NOT NULL,
    event_id  text        NOT NULL COLLATE "C",
    seen_at   timestamptz NOT NULL,
    PRIMARY KEY (org_id, source_id, event_id),
    FOREIGN KEY (org_id, source_id) REFERENCES data_sources ON DELETE CASCADE
);
CREATE INDEX feed_events_by_age ON feed_events USING brin (seen_at);
COMMENT ON TABLE feed_events IS 'Events that were dealt with, so that none is taken in twice.';
COMMENT ON COLUMN feed_events.org_id IS 'Whose source it is.';
COMMENT ON COLUMN feed_events.source_id IS 'The source.';
COMMENT ON COLUMN feed_events.event_id IS 'The event, by its source''s name for it.';
COMMENT ON COLUMN feed_events.seen_at IS 'When it was dealt with.';

CREATE TABLE quarantined_events (
    org_id    text        NOT NULL,
    source_id text        NOT NULL,
    event_id  text        NOT NULL COLLATE "C",
    seen_at   timestamptz NOT NULL,
    reason    text        NOT NULL,
    message   text        NOT NULL,
    event     text        NOT NULL,
    PRIMARY KEY (org_id, source_id, event_id),
    FOREIGN KEY (org_id, source_id) REFERENCES data_sources ON DELETE CASCADE
);
CREATE INDEX quarantined_events_by_age ON quarantined_events USING brin (seen_at);
CREATE INDEX quarantined_events_by_time ON quarantined_events (org_id, source_id, seen_at, event_id);
COMMENT ON TABLE quarantined_events IS 'Events that could not be taken in; the feed went on without them.';
COMMENT ON COLUMN quarantined_events.org_id IS 'Whose source it is.';
COMMENT ON COLUMN quarantined_events.source_id IS 'The source.';
COMMENT ON COLUMN quarantined_events.event_id IS 'The event, by its source''s name for it.';
COMMENT ON COLUMN quarantined_events.seen_at IS 'When it came.';
COMMENT ON COLUMN quarantined_events.reason IS 'Why: a snake_case code.';
COMMENT ON COLUMN quarantined_events.message IS 'Why, for a person.';
COMMENT ON COLUMN quarantined_events.event IS 'Its first 64 KiB, as it came.';

CREATE TABLE pushed_events (
    org_id      text        NOT NULL,
    source_id   text        NOT NULL,
    position    bigint      NOT NULL GENERATED ALWAYS AS IDENTITY,
    event       text        NOT NULL,
    received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (org_id, source_id, position),
    FOREIGN KEY (org_id, source_id) REFERENCES data_sources ON DELETE CASCADE
);
COMMENT ON TABLE pushed_events IS 'Events that were pushed and wait for their source''s owner to take them in, which deletes them.';
COMMENT ON COLUMN pushed_events.org_id IS 'Whose source it is.';
COMMENT ON COLUMN pushed_events.source_id IS 'The source.';
COMMENT ON COLUMN pushed_events.position IS 'Orders what one caller pushed; not a cursor: rows become visible out of order.';
COMMENT ON COLUMN pushed_events.event IS 'The event, JSON, as on the Data Source wire.';
COMMENT ON COLUMN pushed_events.received_at IS 'When it became durable.';
