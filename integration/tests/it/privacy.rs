//! Promise 9: one organization sees nothing of another.

use axum::http::StatusCode;
use integration::app::{Source, Tenant, TestApp, intent, reason};
use integration::endpoint::{Answer, Endpoint, Kind};
use proto::v1;
use serde_json::json;

const CANARY: &str = "canary-7f3a91";

fn create(name: &str) -> v1::CommitRequest {
    let create = intent::create("airports", name, &json!({"text": CANARY}));
    intent::commit(name, vec![create])
}

async fn prepared(app: &TestApp, name: &str, endpoint: &Endpoint) -> Tenant {
    let tenant = app.organization(name).await;
    endpoint.set_keys(&[tenant.key()]);
    tenant.prepare(&Source::at(endpoint)).await;
    tenant
}

#[tokio::test]
async fn one_organization_sees_nothing_of_another() {
    let app = TestApp::start().await;
    let (mine, theirs) = (
        Endpoint::start("").await.unwrap(),
        Endpoint::start("").await.unwrap(),
    );
    let acme = prepared(&app, "acme", &mine).await;
    let other = prepared(&app, "other", &theirs).await;
    let note = intent::commit(
        "note",
        vec![intent::create("notes", "1", &json!({"text": CANARY}))],
    );
    acme.confirm(note).await;
    mine.script(
        Kind::Commit,
        Answer::error(StatusCode::SERVICE_UNAVAILABLE, CANARY),
    );
    acme.confirm(create("1")).await;

    for model in ["notes", "airports"] {
        assert_eq!(other.row(model, "1").await, None);
        let listed = other.list(model).await.unwrap();
        assert_eq!((listed.rows_json.len(), listed.read_at), (0, 0));
    }
    for name in ["note", "1"] {
        assert_eq!(
            reason(&other.receipt(name).await.unwrap_err()),
            "commit_not_found"
        );
    }
    assert_eq!(
        (other.attempts("").await, other.pending().await),
        (Vec::new(), Vec::new())
    );
    let status = other.status().await;
    assert_eq!(status.attempts_by_outcome.values().sum::<i64>(), 0);
    assert!(!format!("{status:?}").contains(CANARY));
    // The same names are free, and the log starts at its own beginning.
    let note = intent::commit(
        "note",
        vec![intent::create("notes", "1", &json!({"text": "other"}))],
    );
    assert_eq!(other.confirm(note).await.changes[0].sync_id, 1);
    assert_eq!(acme.row("notes", "1").await.unwrap()["text"], CANARY);
    assert!(theirs.executions().is_empty());
    let seen = theirs.arrivals();
    assert!(
        seen.iter()
            .all(|it| it.body["scope"]["organizationId"] == "other")
    );
    // An endpoint of the other one does not accept what acme's key signs.
    assert_ne!(acme.key(), other.key());
}
