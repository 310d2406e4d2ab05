-- The coordinator's tables. The organization comes first in every key, so that the database can be
-- sharded by organization. Forward only: a released file is never edited.

CREATE TABLE organizations (
    org_id       text        NOT NULL PRIMARY KEY,
    display_name text        NOT NULL,
    mode         text        NOT NULL CHECK (mode IN ('live', 'test')),
    created_at   timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE organizations IS 'The tenants.';
COMMENT ON COLUMN organizations.org_id IS 'Chosen by the operator; immutable.';
COMMENT ON COLUMN organizations.display_name IS 'For a person.';
COMMENT ON COLUMN organizations.mode IS 'Whether the data is real; immutable. Stands in key prefixes and in scope.mode.';
COMMENT ON COLUMN organizations.created_at IS 'When it was added.';

CREATE TABLE api_keys (
    org_id       text        NOT NULL REFERENCES organizations,
    key_id       uuid        NOT NULL,
    sha256       bytea       NOT NULL UNIQUE CHECK (octet_length(sha256) = 32),
    sealed       bytea       NOT NULL,
    sealed_under text        NOT NULL,
    prefix       text        NOT NULL,
    display_name text        NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    revoked_at   timestamptz,
    PRIMARY KEY (org_id, key_id)
);
COMMENT ON TABLE api_keys IS 'Keys that authenticate front-ends and sign the requests to Data Sources.';
COMMENT ON COLUMN api_keys.org_id IS 'Whose key it is.';
COMMENT ON COLUMN api_keys.key_id IS 'A UUIDv7; immutable.';
COMMENT ON COLUMN api_keys.sha256 IS 'SHA-256 of the key, for look-up; the key has 256 random bits, so no salt is needed.';
COMMENT ON COLUMN api_keys.sealed IS 'The key, sealed with XChaCha20-Poly1305: nonce, then ciphertext; bound to (org_id, key_id).';
COMMENT ON COLUMN api_keys.sealed_under IS 'Id of the master key that seals it.';
COMMENT ON COLUMN api_keys.prefix IS 'The first characters, to recognise a key by.';
COMMENT ON COLUMN api_keys.display_name IS 'For a person.';
COMMENT ON COLUMN api_keys.created_at IS 'When it was made; signatures are listed newest key first.';
COMMENT ON COLUMN api_keys.revoked_at IS 'Since when it is refused and no longer signs.';

CREATE TABLE heads (
    org_id         text   NOT NULL PRIMARY KEY REFERENCES organizations,
    version        bigint NOT NULL DEFAULT 0,
    last_sync_id   bigint NOT NULL DEFAULT 0,
    schema_version int    NOT NULL DEFAULT 0,
    log_epoch      uuid   NOT NULL DEFAULT gen_random_uuid()
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE heads IS 'One row per organization; every change of its state moves it. Kept HOT: no index but the key, and room on the page.';
COMMENT ON COLUMN heads.org_id IS 'Whose head it is.';
COMMENT ON COLUMN heads.version IS 'Counts appends; an append states the version it was decided on.';
COMMENT ON COLUMN heads.last_sync_id IS 'Position of the newest delta; positions are 1, 2, 3 … without gaps.';
COMMENT ON COLUMN heads.schema_version IS 'The active schema; 0 before the first push.';
COMMENT ON COLUMN heads.log_epoch IS 'Changes when the log is restored from a backup; cursors carry it.';

CREATE TABLE schemas (
    org_id     text        NOT NULL REFERENCES organizations,
    version    int         NOT NULL CHECK (version > 0),
    document   text        NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (org_id, version)
);
COMMENT ON TABLE schemas IS 'Every schema that was pushed; immutable.';
COMMENT ON COLUMN schemas.org_id IS 'Whose schema it is.';
COMMENT ON COLUMN schemas.version IS '1, 2, 3 … per organization.';
COMMENT ON COLUMN schemas.document IS 'Canonical JSON: models, their fields, their backings.';
COMMENT ON COLUMN schemas.created_at IS 'When it was pushed.';

CREATE TABLE nodes (
    node_id    uuid        NOT NULL PRIMARY KEY,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL
);
COMMENT ON TABLE nodes IS 'Leases of the running processes, by the clock of the database.';
COMMENT ON COLUMN nodes.node_id IS 'Made anew at every start of a process.';
COMMENT ON COLUMN nodes.started_at IS 'When the process started.';
COMMENT ON COLUMN nodes.expires_at IS 'Until when its sources are its own, unless it renews.';

CREATE TABLE data_sources (
    org_id                text        NOT NULL REFERENCES organizations,
    source_id             text        NOT NULL,
    url                   text        NOT NULL,
    retry_delays_ms       bigint[]    NOT NULL,
    request_timeout_ms    bigint      NOT NULL CHECK (request_timeout_ms BETWEEN 1000 AND 30000),
    max_in_flight         int         NOT NULL CHECK (max_in_flight BETWEEN 1 AND 1024),
    state                 text        NOT NULL CHECK (state IN ('enabled', 'failing', 'disabled')),
    state_reason          text        NOT NULL DEFAULT '',
    owner                 uuid,
    epoch                 bigint      NOT NULL DEFAULT 0,
    inbox_sequence        bigint      NOT NULL DEFAULT 0,
    pending_count         bigint      NOT NULL DEFAULT 0 CHECK (pending_count >= 0),
    dead_count            bigint      NOT NULL DEFAULT 0 CHECK (dead_count >= 0),
    consecutive_failures  int         NOT NULL DEFAULT 0,
    backoff_until         timestamptz,
    backoff_step          int         NOT NULL DEFAULT 0,
    recovered_at          timestamptz,
    attempts_by_outcome   bigint[]    NOT NULL DEFAULT '{0,0,0,0,0,0}',
    retries_by_outcome    bigint[]    NOT NULL DEFAULT '{0,0,0,0,0,0}',
    created_at            timestamptz NOT NULL,
    updated_at            timestamptz NOT NULL,
    PRIMARY KEY (org_id, source_id)
) WITH (fillfactor = 40, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
CREATE INDEX data_sources_by_owner ON data_sources (owner);
COMMENT ON TABLE data_sources IS 'Customers'' databases behind one HTTPS endpoint each, who delivers to them, and how they do.';
COMMENT ON COLUMN data_sources.org_id IS 'Whose source it is.';
COMMENT ON COLUMN data_sources.source_id IS 'What a schema''s backing names; immutable.';
COMMENT ON COLUMN data_sources.url IS 'Canonical URL of the endpoint.';
COMMENT ON COLUMN data_sources.retry_delays_ms IS 'Pauses before the second attempt, the third, …';
COMMENT ON COLUMN data_sources.request_timeout_ms IS 'The longest that one request may take, body included.';
COMMENT ON COLUMN data_sources.max_in_flight IS 'Commit requests in flight at most.';
COMMENT ON COLUMN data_sources.state IS 'What it does with commits.';
COMMENT ON COLUMN data_sources.state_reason IS 'Why it is failing or disabled, for a person.';
COMMENT ON COLUMN data_sources.owner IS 'The node that delivers to it, while that node''s lease lasts.';
COMMENT ON COLUMN data_sources.epoch IS 'Counts owners; a start or a settle states the epoch it acts under.';
COMMENT ON COLUMN data_sources.inbox_sequence IS 'Sequence of the newest commit; 1, 2, 3 … without gaps.';
COMMENT ON COLUMN data_sources.pending_count IS 'Commits neither settled nor dead.';
COMMENT ON COLUMN data_sources.dead_count IS 'Commits whose attempts are exhausted.';
COMMENT ON COLUMN data_sources.consecutive_failures IS 'Failed attempts since the last definite answer.';
COMMENT ON COLUMN data_sources.backoff_until IS 'Nothing is sent before this; set while the source as a whole backs off.';
COMMENT ON COLUMN data_sources.backoff_step IS 'Probes that failed since the last definite answer: each doubles the pause.';
COMMENT ON COLUMN data_sources.recovered_at IS 'When the last failing spell ended: what failed before is due at once.';
COMMENT ON COLUMN data_sources.attempts_by_outcome IS 'Finished attempts: applied, refused, retry, unknown, misconfigured, gone.';
COMMENT ON COLUMN data_sources.retries_by_outcome IS 'The same, without the first attempt of each commit.';
COMMENT ON COLUMN data_sources.created_at IS 'When it was registered.';
COMMENT ON COLUMN data_sources.updated_at IS 'When an operator last changed it.';

CREATE TABLE source_requests (
    org_id             text        NOT NULL,
    source_id          text        NOT NULL,
    kind               text        NOT NULL CHECK (kind IN ('commit', 'load', 'list', 'events')),
    last_success_at    timestamptz,
    last_error_at      timestamptz,
    last_error_class   text,
    last_error_message text,
    last_error_status  int,
    PRIMARY KEY (org_id, source_id, kind),
    FOREIGN KEY (org_id, source_id) REFERENCES data_sources ON DELETE CASCADE
) WITH (fillfactor = 40);
COMMENT ON TABLE source_requests IS 'Last success and last error of each kind of request to a source.';
COMMENT ON COLUMN source_requests.org_id IS 'Whose source it is.';
COMMENT ON COLUMN source_requests.source_id IS 'The source.';
COMMENT ON COLUMN source_requests.kind IS 'The request''s type.';
COMMENT ON COLUMN source_requests.last_success_at IS 'When a request of this kind last succeeded.';
COMMENT ON COLUMN source_requests.last_error_at IS 'When one last failed.';
COMMENT ON COLUMN source_requests.last_error_class IS 'How: a snake_case class.';
COMMENT ON COLUMN source_requests.last_error_message IS 'How, for a person.';
COMMENT ON COLUMN source_requests.last_error_status IS 'Its HTTP status; 0 when no status line came.';

CREATE TABLE managed_rows (
    org_id      text        NOT NULL,
    model       text        NOT NULL,
    row_id      text        NOT NULL COLLATE "C",
    row         jsonb       NOT NULL,
    sync_id     bigint      NOT NULL,
    archived_at timestamptz,
    PRIMARY KEY (org_id, model, row_id)
) WITH (fillfactor = 90);
COMMENT ON TABLE managed_rows IS 'Rows of managed models.';
COMMENT ON COLUMN managed_rows.org_id IS 'Whose row it is.';
COMMENT ON COLUMN managed_rows.model IS 'Its model.';
COMMENT ON COLUMN managed_rows.row_id IS 'Its id, compared by code point.';
COMMENT ON COLUMN managed_rows.row IS 'Its fields, id included. Numbers keep their exact decimal value.';
COMMENT ON COLUMN managed_rows.sync_id IS 'Position of its last change in the log.';
COMMENT ON COLUMN managed_rows.archived_at IS 'Since when it is archived.';

CREATE TABLE row_versions (
    org_id  text   NOT NULL,
    model   text   NOT NULL,
    row_id  text   NOT NULL COLLATE "C",
    sync_id bigint NOT NULL,
    PRIMARY KEY (org_id, model, row_id)
) WITH (fillfactor = 80);
COMMENT ON TABLE row_versions IS 'When rows that live in a Data Source last changed, to judge staleness; no data.';
COMMENT ON COLUMN row_versions.org_id IS 'Whose row it is.';
COMMENT ON COLUMN row_versions.model IS 'Its model.';
COMMENT ON COLUMN row_versions.row_id IS 'Its id.';
COMMENT ON COLUMN row_versions.sync_id IS 'Position of its last change in the log.';

CREATE TABLE commits (
    org_id           text        NOT NULL,
    client_tx_id     text        NOT NULL COLLATE "C",
    commit_id        uuid        NOT NULL,
    fingerprint      bytea       NOT NULL CHECK (octet_length(fingerprint) = 32),
    participant_id   text        NOT NULL,
    participant_kind text        NOT NULL CHECK (participant_kind IN ('user', 'agent', 'system')),
    source_id        text,
    schema_version   int         NOT NULL,
    state            text        NOT NULL CHECK (state IN ('queued', 'confirmed', 'rejected')),
    dead             boolean     NOT NULL DEFAULT false,
    first_sync_id    bigint,
    last_sync_id     bigint,
    error_code       text,
    error_message    text,
    assigned         smallint[]  NOT NULL DEFAULT '{}',
    attempts         int         NOT NULL DEFAULT 0,
    accepted_at      timestamptz NOT NULL,
    settled_at       timestamptz,
    PRIMARY KEY (org_id, client_tx_id),
    CHECK ((state = 'queued') = (settled_at IS NULL))
);
COMMENT ON TABLE commits IS 'The ledger: what became of every commit, by the name its caller gave it.';
COMMENT ON COLUMN commits.org_id IS 'Whose commit it is.';
COMMENT ON COLUMN commits.client_tx_id IS 'The caller''s name for it; immutable.';
COMMENT ON COLUMN commits.commit_id IS 'Our name for it, the webhook-id of its requests; immutable.';
COMMENT ON COLUMN commits.fingerprint IS 'SHA-256 of the canonical JSON of the caller''s intent; immutable.';
COMMENT ON COLUMN commits.participant_id IS 'Who wrote.';
COMMENT ON COLUMN commits.participant_kind IS 'What kind of participant wrote.';
COMMENT ON COLUMN commits.source_id IS 'The Data Source that applies it; null for managed models.';
COMMENT ON COLUMN commits.schema_version IS 'The schema that it was admitted under; a replay is read with it.';
COMMENT ON COLUMN commits.state IS 'queued, then confirmed or rejected, for good.';
COMMENT ON COLUMN commits.dead IS 'Queued, with its attempts exhausted.';
COMMENT ON COLUMN commits.first_sync_id IS 'Position of its first delta; null when it changed nothing.';
COMMENT ON COLUMN commits.last_sync_id IS 'Position of its last delta.';
COMMENT ON COLUMN commits.error_code IS 'Why it was rejected.';
COMMENT ON COLUMN commits.error_message IS 'Why, for a person.';
COMMENT ON COLUMN commits.assigned IS 'Positions of the operations whose row ids we assigned.';
COMMENT ON COLUMN commits.attempts IS 'Requests made for it.';
COMMENT ON COLUMN commits.accepted_at IS 'When it became durable.';
COMMENT ON COLUMN commits.settled_at IS 'When it was confirmed or rejected; its deltas carry the same time.';

CREATE TABLE deltas (
    org_id           text        NOT NULL,
    sync_id          bigint      NOT NULL,
    created_at       timestamptz NOT NULL,
    client_tx_id     text,
    operation        smallint,
    kind             text        NOT NULL,
    model            text        NOT NULL,
    row_id           text        NOT NULL,
    row              text,
    transaction_id   text,
    participant_id   text,
    participant_kind text,
    stale            boolean     NOT NULL DEFAULT false,
    PRIMARY KEY (org_id, sync_id, created_at)
) PARTITION BY RANGE (created_at);
COMMENT ON TABLE deltas IS 'The log: every confirmed change of every row, by position. Immutable; retention drops partitions.';
COMMENT ON COLUMN deltas.org_id IS 'Whose log it is.';
COMMENT ON COLUMN deltas.sync_id IS 'The position: 1, 2, 3 … without gaps.';
COMMENT ON COLUMN deltas.created_at IS 'When it was appended, by the clock of the database.';
COMMENT ON COLUMN deltas.client_tx_id IS 'The commit that made it; null for changes made outside.';
COMMENT ON COLUMN deltas.operation IS 'Position of the operation in its commit; null when the commit did not name the row.';
COMMENT ON COLUMN deltas.kind IS 'The type of operation: CREATE, UPDATE, …';
COMMENT ON COLUMN deltas.model IS 'The row''s model.';
COMMENT ON COLUMN deltas.row_id IS 'The row''s id.';
COMMENT ON COLUMN deltas.row IS 'The row after the change, JSON; null after a DELETE.';
COMMENT ON COLUMN deltas.transaction_id IS 'What the caller named the operation.';
COMMENT ON COLUMN deltas.participant_id IS 'Who wrote; null for changes made outside.';
COMMENT ON COLUMN deltas.participant_kind IS 'What kind of participant wrote.';
COMMENT ON COLUMN deltas.stale IS 'The row had changed after the operation''s read_at, and it said FLAG.';

CREATE TABLE inbox (
    org_id             text        NOT NULL,
    source_id          text        NOT NULL,
    sequence           bigint      NOT NULL,
    client_tx_id       text        NOT NULL,
    commit_id          uuid        NOT NULL,
    body               bytea       NOT NULL,
    lanes              bigint[]    NOT NULL,
    positions          smallint[]  NOT NULL DEFAULT '{}',
    flagged            smallint[]  NOT NULL DEFAULT '{}',
    dead               boolean     NOT NULL DEFAULT false,
    attempts           int         NOT NULL DEFAULT 0,
    spent              int         NOT NULL DEFAULT 0,
    due_at             timestamptz NOT NULL,
    failed_at          timestamptz,
    open_started_at    timestamptz,
    open_deadline      timestamptz,
    may_apply_until    timestamptz,
    last_error_at      timestamptz,
    last_error_class   text,
    last_error_message text,
    last_error_status  int,
    traceparent        text,
    accepted_at        timestamptz NOT NULL,
    PRIMARY KEY (org_id, source_id, sequence)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000);
COMMENT ON TABLE inbox IS 'Commits that their Data Source has not settled. The settling append deletes the entry, payload and all; dead ones stay.';
COMMENT ON COLUMN inbox.org_id IS 'Whose commit it is.';
COMMENT ON COLUMN inbox.source_id IS 'Where it goes.';
COMMENT ON COLUMN inbox.sequence IS 'Its place among the source''s commits; immutable.';
COMMENT ON COLUMN inbox.client_tx_id IS 'Its entry in the ledger.';
COMMENT ON COLUMN inbox.commit_id IS 'The webhook-id of its requests.';
COMMENT ON COLUMN inbox.body IS 'The exact bytes that are signed and sent, on every attempt; immutable.';
COMMENT ON COLUMN inbox.lanes IS 'Hashes of the rows that it touches: commits that share one go in order.';
COMMENT ON COLUMN inbox.positions IS 'Positions of the body''s operations in the commit; empty when all were sent.';
COMMENT ON COLUMN inbox.flagged IS 'Positions in the commit of operations that were stale when they were accepted, and said FLAG.';
COMMENT ON COLUMN inbox.dead IS 'Attempts are exhausted; an operator decides.';
COMMENT ON COLUMN inbox.attempts IS 'Attempts made so far.';
COMMENT ON COLUMN inbox.spent IS 'Attempts that count against the schedule.';
COMMENT ON COLUMN inbox.due_at IS 'When the next attempt may start.';
COMMENT ON COLUMN inbox.failed_at IS 'When the last attempt failed; due at once if the source recovered since.';
COMMENT ON COLUMN inbox.open_started_at IS 'The attempt in flight: when it was recorded. Null when none is.';
COMMENT ON COLUMN inbox.open_deadline IS 'The attempt in flight: when it ends at the latest.';
COMMENT ON COLUMN inbox.may_apply_until IS 'Until when an attempt whose fate is unknown may still be applied by the endpoint.';
COMMENT ON COLUMN inbox.last_error_at IS 'When the last attempt failed to be applied.';
COMMENT ON COLUMN inbox.last_error_class IS 'How the last attempt failed.';
COMMENT ON COLUMN inbox.last_error_message IS 'How, for a person.';
COMMENT ON COLUMN inbox.last_error_status IS 'Its HTTP status; 0 when no status line came.';
COMMENT ON COLUMN inbox.traceparent IS 'W3C trace context of the call that brought it.';
COMMENT ON COLUMN inbox.accepted_at IS 'When it became durable.';

CREATE TABLE attempts (
    org_id           text        NOT NULL,
    source_id        text        NOT NULL,
    started_at       timestamptz NOT NULL,
    commit_id        uuid        NOT NULL,
    number           int         NOT NULL,
    client_tx_id     text        NOT NULL,
    cause            text        NOT NULL CHECK (cause IN ('accept', 'schedule', 'recovery', 'takeover', 'manual')),
    node             uuid        NOT NULL,
    deadline         timestamptz NOT NULL,
    duration_ms      int,
    http_status      int,
    outcome          text        CHECK (outcome IN ('applied', 'refused', 'retry', 'unknown', 'misconfigured', 'gone')),
    error_class      text,
    message          text,
    response_excerpt text,
    next_attempt_at  timestamptz,
    PRIMARY KEY (org_id, source_id, started_at, commit_id, number)
) PARTITION BY RANGE (started_at);
CREATE INDEX attempts_by_commit ON attempts (org_id, source_id, client_tx_id, started_at);
COMMENT ON TABLE attempts IS 'Every request made to deliver a commit, recorded before its first byte left. Retention drops partitions.';
COMMENT ON COLUMN attempts.org_id IS 'Whose commit it is.';
COMMENT ON COLUMN attempts.source_id IS 'Where it went.';
COMMENT ON COLUMN attempts.started_at IS 'When it was recorded.';
COMMENT ON COLUMN attempts.commit_id IS 'The commit, the request''s webhook-id.';
COMMENT ON COLUMN attempts.number IS '1 for the commit''s first request.';
COMMENT ON COLUMN attempts.client_tx_id IS 'The commit, by its caller''s name.';
COMMENT ON COLUMN attempts.cause IS 'Why it was made.';
COMMENT ON COLUMN attempts.node IS 'The node that made it.';
COMMENT ON COLUMN attempts.deadline IS 'When it ends at the latest.';
COMMENT ON COLUMN attempts.duration_ms IS 'How long it took; null while in flight, and when its node was lost.';
COMMENT ON COLUMN attempts.http_status IS 'The answer''s status; null when no status line came.';
COMMENT ON COLUMN attempts.outcome IS 'What the answer meant; null while in flight.';
COMMENT ON COLUMN attempts.error_class IS 'How it failed: a snake_case class.';
COMMENT ON COLUMN attempts.message IS 'How, for a person.';
COMMENT ON COLUMN attempts.response_excerpt IS 'First 2 KiB of an answer other than 200, control characters escaped.';
COMMENT ON COLUMN attempts.next_attempt_at IS 'When the next one is due, if any.';
