//! Promise 9: nothing leaks, and little is kept.

use axum::http::StatusCode;
use integration::app::{Flags, OPERATOR_TOKEN, Source, Tenant, TestApp, intent, reason};
use integration::endpoint::{Answer, Endpoint, Kind};
use proto::v1;
use proto::v1::CommitState;
use serde_json::json;
use sqlx::{AssertSqlSafe, PgPool};

const CANARY: &str = "canary-7f3a91";

/// Tables with a row that shows a text, as text or as bytes.
async fn tables_with(pool: &PgPool, text: &str) -> Vec<String> {
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT relname::text FROM pg_class
         WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY relname",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    assert!(tables.len() > 10, "{tables:?}");
    let mut found = Vec::new();
    for table in tables {
        let query = format!(
            "SELECT EXISTS (SELECT FROM \"{table}\" AS it
             WHERE strpos(it::text, $1) > 0
                OR strpos(it::text, encode(convert_to($1, 'UTF8'), 'hex')) > 0)"
        );
        let shows: bool = sqlx::query_scalar(AssertSqlSafe(query))
            .bind(text)
            .fetch_one(pool)
            .await
            .unwrap();
        if shows {
            found.push(table);
        }
    }
    found
}

fn create(name: &str) -> v1::CommitRequest {
    let create = intent::create("airports", name, &json!({"text": CANARY}));
    intent::commit(name, vec![create])
}

#[tokio::test]
async fn the_payload_of_a_data_source_commit_goes_when_it_settles_and_its_deltas_stay() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    endpoint.hold(Kind::Commit);
    for name in ["confirmed", "rejected"] {
        let mut request = create(name);
        request.set_wait(v1::Wait::Queued);
        tenant.commit(request).await.unwrap();
    }
    // The look-out finds it while it must be there.
    assert_eq!(tables_with(&app.pool(), CANARY).await, ["inbox"]);
    endpoint.wait_for_arrivals(Kind::Commit, 2).await;
    endpoint.release(Kind::Commit);
    tenant.confirm(create("confirmed")).await;
    tenant.confirm(create("rejected")).await;
    let found = tables_with(&app.pool(), CANARY).await;
    assert!(
        found.len() == 1 && found[0].starts_with("deltas_"),
        "{found:?}"
    );
}

#[tokio::test]
async fn the_payload_of_a_rejected_commit_leaves_no_trace() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    endpoint.script(Kind::Commit, Answer::error(StatusCode::CONFLICT, "no"));
    let receipt = tenant.settle(create("rejected")).await;
    assert_eq!(receipt.state(), CommitState::Rejected);
    assert_eq!(tables_with(&app.pool(), CANARY).await, Vec::<String>::new());
    tenant.load("airports", "rejected").await.unwrap();
    assert_eq!(tables_with(&app.pool(), CANARY).await, Vec::<String>::new());
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_sealed_at_rest_and_in_no_line_of_the_most_talkative_log() {
    let flags = Flags::default().with("log-filter", "trace");
    let app = TestApp::without_nodes(flags).await;
    let node = app.spawn_node(env!("CARGO_BIN_EXE_demo")).await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = Tenant::create(node.address(), "acme").await;
    endpoint.set_keys(&[tenant.key()]);
    tenant.prepare(&Source::at(&endpoint)).await;
    endpoint.script(
        Kind::Commit,
        Answer::error(StatusCode::SERVICE_UNAVAILABLE, "later"),
    );
    tenant.confirm(create("1")).await;
    tenant.load("airports", "1").await.unwrap();
    tenant.list("airports").await.unwrap();
    assert_eq!(
        tables_with(&app.pool(), tenant.key()).await,
        Vec::<String>::new()
    );
    let log = node.log();
    assert!(log.lines().count() > 100, "the log is talkative");
    for secret in [
        tenant.key(),
        OPERATOR_TOKEN,
        "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY",
    ] {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "a secret is logged");
    }
    let line = log.lines().find(|line| line.contains(CANARY));
    assert_eq!(line, None, "a row is logged");
}
