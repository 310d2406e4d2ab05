//! Years of use in a minute: rows that were never written one by one.

use super::ground::Database;
use super::service::MANAGED;
use super::workload::TEXT;

/// What an organization has on disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct History {
    pub(super) rows: u64,
    pub(super) deltas: u64,
    pub(super) commits: u64,
    pub(super) attempts: u64,
}

/// Gives an organization so many managed rows, `k0`, `k1`, …
pub(super) async fn rows(
    database: &Database,
    organization: &str,
    count: u64,
) -> anyhow::Result<()> {
    let sql = format!(
        "INSERT INTO managed_rows (org_id, model, row_id, row, sync_id) \
         SELECT '{organization}', '{MANAGED}', 'k' || n, \
                jsonb_build_object('id', 'k' || n, 'text', '{TEXT}', 'number', n), 0 \
         FROM generate_series(0, {}) AS n",
        count.max(1) - 1
    );
    database.run(&sql).await
}

/// Gives an organization with a Data Source a past.
pub(super) async fn history(
    database: &Database,
    (organization, source): (&str, &str),
    past: History,
) -> anyhow::Result<()> {
    rows(database, organization, past.rows).await?;
    let deltas = format!(
        "INSERT INTO deltas (org_id, sync_id, created_at, client_tx_id, operation, kind, model, \
                             row_id, row, participant_id, participant_kind) \
         SELECT '{organization}', head.last_sync_id + n, now(), 'past-' || n, 0, 'UPDATE', \
                '{MANAGED}', 'k' || (n::bigint * 7919) % {rows}, \
                '{{\"id\":\"k' || n || '\",\"text\":\"{TEXT}\",\"number\":' || n || '}}', \
                'user-1', 'user' \
         FROM heads AS head, generate_series(1, {deltas}) AS n \
         WHERE head.org_id = '{organization}'",
        rows = past.rows.max(1),
        deltas = past.deltas,
    );
    database.run(&deltas).await?;
    let head = format!(
        "UPDATE heads SET last_sync_id = last_sync_id + {}, version = version + 1 \
         WHERE org_id = '{organization}'",
        past.deltas
    );
    database.run(&head).await?;
    let commits = format!(
        "INSERT INTO commits (org_id, client_tx_id, commit_id, fingerprint, participant_id, \
                              participant_kind, schema_version, state, first_sync_id, last_sync_id, \
                              accepted_at, settled_at) \
         SELECT '{organization}', 'past-' || n, gen_random_uuid(), sha256(n::text::bytea), 'user-1', \
                'user', 1, 'confirmed', n, n, now(), now() \
         FROM generate_series(1, {}) AS n",
        past.commits
    );
    database.run(&commits).await?;
    let attempts = format!(
        "INSERT INTO attempts (org_id, source_id, started_at, commit_id, number, client_tx_id, \
                               cause, node, deadline, duration_ms, http_status, outcome) \
         SELECT '{organization}', '{source}', now() - n * interval '1 microsecond', \
                gen_random_uuid(), 1, 'past-' || n, 'accept', gen_random_uuid(), now(), 5, 200, \
                'applied' \
         FROM generate_series(1, {}) AS n",
        past.attempts
    );
    database.run(&attempts).await
}

/// Leaves a Data Source with so many commits that it has not taken, each on a row of its own.
pub(super) async fn backlog(
    database: &Database,
    (organization, source): (&str, &str),
    count: u64,
) -> anyhow::Result<()> {
    let commits = format!(
        "INSERT INTO commits (org_id, client_tx_id, commit_id, fingerprint, participant_id, \
                              participant_kind, source_id, schema_version, state, accepted_at) \
         SELECT '{organization}', 'left-' || n, md5(n::text)::uuid, sha256(n::text::bytea), \
                'user-1', 'user', '{source}', 1, 'queued', now() \
         FROM generate_series(1, {count}) AS n"
    );
    database.run(&commits).await?;
    let inbox = format!(
        "INSERT INTO inbox (org_id, source_id, sequence, client_tx_id, commit_id, body, lanes, \
                            positions, flagged, due_at, accepted_at) \
         SELECT '{organization}', '{source}', n, 'left-' || n, md5(n::text)::uuid, \
                convert_to('{{\"type\":\"commit\",\"clientTxId\":\"left-' || n || \
                    '\",\"operations\":[{{\"type\":\"CREATE\",\"model\":\"{source}\",\"id\":\"l' || n || \
                    '\",\"input\":{{\"text\":\"{TEXT}\",\"number\":1}}}}]}}', 'UTF8'), \
                ARRAY[n], '{{}}', '{{}}', now(), now() \
         FROM generate_series(1, {count}) AS n"
    );
    database.run(&inbox).await?;
    let source = format!(
        "UPDATE data_sources SET inbox_sequence = {count}, pending_count = {count} \
         WHERE org_id = '{organization}' AND source_id = '{source}'"
    );
    database.run(&source).await
}

/// Registers so many Data Sources, spread over as many organizations as there are. So many of them
/// have a feed, at this address; the others were found to have none.
pub(super) async fn sources(
    database: &Database,
    count: u64,
    (feeds, url): (u64, &str),
) -> anyhow::Result<()> {
    let sources = format!(
        "INSERT INTO data_sources (org_id, source_id, url, retry_delays_ms, request_timeout_ms, \
                                   max_in_flight, state, created_at, updated_at) \
         SELECT org_id, 'idle-' || n, '{url}', '{{5000}}', \
                20000, 16, 'enabled', now(), now() \
         FROM generate_series(1, {count}) AS n \
         JOIN (SELECT org_id, row_number() OVER () - 1 AS place, count(*) OVER () AS all_of_them \
               FROM organizations) AS organization ON n % all_of_them = place"
    );
    database.run(&sources).await?;
    let none = format!(
        "INSERT INTO feeds (org_id, source_id, state) \
         SELECT org_id, source_id, 'none' FROM data_sources \
         ORDER BY source_id OFFSET {feeds}"
    );
    database.run(&none).await
}
