//! The log as subscribers see it.

mod basics;
mod checker;
mod cursors;
mod deaf;
mod groups;
mod interleavings;
mod nodes;
mod snapshots;
mod streams;
mod watch;

use std::collections::BTreeMap;

use integration::app::TestApp;
use integration::log_check::Seen;
use proto::v1::{CommitRequest, SubscribeRequest};
use serde_json::json;
use sqlx::Row;

use integration::app::intent;

/// Creates a note.
fn note(id: &str, text: &str) -> CommitRequest {
    let create = intent::create("notes", id, &json!({"text": text}));
    intent::commit(&format!("create-{id}"), vec![create])
}

/// Changes a note's text, under a name of its own.
fn change(name: &str, id: &str, text: &str) -> CommitRequest {
    let update = intent::update("notes", id, &json!({"text": text}));
    intent::commit(name, vec![update])
}

/// Asks for changes of rows in these groups.
fn of_groups(groups: &[&str]) -> SubscribeRequest {
    SubscribeRequest {
        sync_groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        ..SubscribeRequest::default()
    }
}

/// The log as the database holds it.
async fn table(app: &TestApp) -> Vec<Seen> {
    let log = "SELECT sync_id, model || '/' || row_id AS row_name, coalesce(row, '') AS token
               FROM deltas ORDER BY sync_id";
    let rows = sqlx::query(log).fetch_all(&app.pool()).await.unwrap();
    let seen = rows.iter().map(|row| Seen {
        position: row.get("sync_id"),
        row: row.get("row_name"),
        token: row.get("token"),
    });
    seen.collect()
}

/// Positions at which the managed rows stand, and those of the source's rows, by row.
async fn positions(app: &TestApp) -> BTreeMap<String, i64> {
    let rows = "SELECT model || '/' || row_id AS row_name, sync_id FROM managed_rows
                UNION ALL SELECT model || '/' || row_id, sync_id FROM row_versions";
    let rows = sqlx::query(rows).fetch_all(&app.pool()).await.unwrap();
    rows.iter()
        .map(|row| (row.get("row_name"), row.get("sync_id")))
        .collect()
}
