//! Answers that do not fit, checked by loading the rows: a commit is confirmed by what the endpoint
//! holds, or is sent again; and a row that the endpoint made up reaches nobody.

use std::time::Duration;

use axum::http::StatusCode;
use futures_util::future::join_all;
use integration::app::{Source, Tenant, TestApp, intent};
use integration::endpoint::{Answer, Endpoint, Gate, Kind, Reply};
use proto::v1;
use proto::v1::{CommitState, RequestKind};
use serde_json::{Value, json};

fn fixed(body: impl Into<Vec<u8>>) -> Reply {
    Reply::Fixed(StatusCode::OK, Vec::new(), body.into())
}

fn create(id: &str) -> v1::CommitRequest {
    let create = intent::create("airports", id, &json!({"text": "one"}));
    intent::commit(&format!("create-{id}"), vec![create])
}

fn few_attempts(endpoint: &Endpoint) -> Source {
    Source {
        retry_delays: vec![Duration::from_millis(10); 2],
        // Nothing here is to end by its time: each attempt counts.
        request_timeout: Duration::from_secs(20),
        ..Source::at(endpoint)
    }
}

async fn tenant(app: &TestApp, name: &str) -> (Tenant, Endpoint) {
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.organization(name).await;
    endpoint.set_keys(&[tenant.key()]);
    tenant.prepare(&few_attempts(&endpoint)).await;
    (tenant, endpoint)
}

/// Bodies of a 200 that are no answer to a commit.
fn no_answers() -> Vec<Vec<u8>> {
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let wide: Vec<_> = (0..100_000).map(|n| format!("\"{n}\":1,")).collect();
    let wide = wide.concat();
    let bodies = [
        "",
        "{}",
        "null",
        "[]",
        "true",
        "\"ok\"",
        "<html><body>OK</body></html>",
        "{\"rows\":",
        r#"{"error":"no"}"#,
        r#"{"rows":null}"#,
        r#"{"rows":{}}"#,
        r#"{"rows":[null]}"#,
        r#"{"deltas":"none"}"#,
        r#"{"rows":[{"id":"1","text":"one","number":1e400000}]}"#,
        r#"{"rows":[{"id":"1","text":"\ud800"}]}"#,
        r#"{"rows":[{"id":"1","text":"a\u0000b"}]}"#,
        "{\"rows\":[{\"id\":\"1\",\"text\":\"one\"}]} and more",
        &format!(r#"{{"rows":[{{"id":"1","text":{deep}}}]}}"#),
        &format!("{{{wide}\"rows\":[]}}"),
    ];
    let mut bodies: Vec<_> = bodies.iter().map(|it| it.as_bytes().to_vec()).collect();
    bodies.push(b"{\"rows\":[{\"id\":\"1\",\"text\":\"\xff\xfe\"}]}".to_vec());
    bodies
}

/// Bodies of a 200 with rows that are not the commit's.
fn wrong_rows() -> Vec<&'static str> {
    vec![
        r#"{"rows":[{"id":"foreign","text":"one"}]}"#,
        r#"{"rows":[{"text":"one"}]}"#,
        r#"{"rows":[{"id":"1","text":"one"},{"id":"foreign","text":"one"}]}"#,
        r#"{"rows":[{"id":"1","text":"one"},{"id":"1","text":"two"}]}"#,
        r#"{"rows":[]}"#,
        r#"{"rows":["1"]}"#,
        r#"{"rows":[{"id":"1","text":7}]}"#,
        r#"{"rows":[{"id":"1","text":"one","number":"many"}]}"#,
        r#"{"rows":[{"id":"1","__proto__":{"text":"one"}}]}"#,
        r#"{"deltas":[{"model":"foreign","id":"1","type":"CREATE","data":{"id":"1"}}]}"#,
        r#"{"deltas":[{"model":"airports","id":"1","type":"DELETE"}]}"#,
        r#"{"deltas":[{"model":"airports","id":"1","type":"CREATE","data":{"id":"foreign"}}]}"#,
        r#"{"deltas":[{"model":"airports","id":"foreign","type":"CREATE","data":{"id":"foreign"}}]}"#,
    ]
}

async fn load_status(tenant: &Tenant) -> Option<v1::RequestStatus> {
    let kinds = tenant.status().await.kinds;
    kinds.into_iter().find(|it| it.kind() == RequestKind::Load)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_does_not_fit_is_confirmed_if_its_rows_carry_its_effect() {
    let app = TestApp::start().await;
    let bodies = no_answers();
    let wrong = wrong_rows().into_iter().map(|it| it.as_bytes().to_vec());
    let bodies = bodies.into_iter().chain(wrong).enumerate();
    join_all(bodies.map(async |(number, body)| {
        let case = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
        let (tenant, endpoint) = tenant(&app, &format!("org-{number}")).await;
        endpoint.script(Kind::Commit, Answer::applied_but(fixed(body)));
        let receipt = tenant.confirm(create("1")).await;
        assert_eq!(receipt.attempt_count, 1, "{case}");
        let rows: Vec<Value> = receipt
            .changes
            .iter()
            .map(|it| serde_json::from_slice(&it.row_json).unwrap())
            .collect();
        assert_eq!(rows, [json!({"id": "1", "text": "one"})], "{case}");
        let attempts = tenant.attempts("create-1").await;
        assert_eq!(attempts[0].outcome, "applied", "{case}");
        assert_eq!(attempts[0].error_class, "response_invalid", "{case}");
        let [load] = &endpoint.arrivals_of(Kind::Load)[..] else {
            panic!("one load of one row: {case}");
        };
        assert_eq!(load.signature_error, None);
        assert_ne!(load.webhook_id(), receipt.commit_id);
        assert_eq!(load.body["scope"]["participantId"], "user-1");
        let status = load_status(&tenant).await.unwrap();
        assert!(status.last_success_time.is_some());
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_does_not_fit_and_whose_rows_do_not_show_it_is_sent_again_until_dead()
{
    let app = TestApp::start().await;
    let bodies = no_answers();
    let wrong = wrong_rows().into_iter().map(|it| it.as_bytes().to_vec());
    let bodies = bodies.into_iter().chain(wrong).enumerate();
    join_all(bodies.map(async |(number, body)| {
        let case = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
        let (tenant, endpoint) = tenant(&app, &format!("org-{number}")).await;
        endpoint.always(Kind::Commit, Answer::unapplied(fixed(body)));
        let receipt = tenant.settle(create("1")).await;
        assert!(
            receipt.dead && receipt.state() == CommitState::Queued,
            "{case}"
        );
        assert_eq!(
            (receipt.attempt_count, receipt.changes.len()),
            (3, 0),
            "{case}"
        );
        for attempt in tenant.attempts("create-1").await {
            assert_eq!(attempt.outcome, "unknown", "{case}");
            assert_eq!(attempt.error_class, "response_invalid", "{case}");
        }
        let loads = endpoint.arrivals_of(Kind::Load);
        assert_eq!(loads.len(), 3, "{case}");
    }))
    .await;
    let foreign: i64 = sqlx::query_scalar(
        "SELECT (SELECT count(*) FROM deltas) + (SELECT count(*) FROM row_versions WHERE row_id = 'foreign')",
    )
    .fetch_one(&app.pool())
    .await
    .unwrap();
    assert_eq!(foreign, 0, "what an endpoint made up is in nobody's log");
    let shown: Vec<String> = sqlx::query_scalar("SELECT DISTINCT read_back FROM inbox")
        .fetch_all(&app.pool())
        .await
        .unwrap();
    assert_eq!(shown, ["0 of 1 rows carry the effect"]);
}

#[tokio::test]
async fn all_rows_of_a_commit_must_carry_their_effects() {
    let app = TestApp::start().await;
    let (tenant, endpoint) = tenant(&app, "acme").await;
    tenant.confirm(create("1")).await;
    tenant.confirm(create("2")).await;
    let operations = vec![
        intent::update("airports", "1", &json!({"text": "two"})),
        intent::delete("airports", "2"),
        intent::create("airports", "3", &json!({"text": "three"})),
    ];
    // The first answer comes to half of it, and the second to all.
    let mut half = endpoint.row("airports", "1").unwrap();
    half["text"] = "two".into();
    let half = half.as_object().unwrap().clone();
    endpoint.script(Kind::Commit, Answer::unapplied(fixed("{}")));
    endpoint.script(Kind::Commit, Answer::applied_but(fixed("{}")));
    endpoint.write_outside("airports", "1", half);
    let receipt = tenant.confirm(intent::commit("three", operations)).await;
    assert_eq!(receipt.attempt_count, 2);
    let told: Vec<_> = receipt
        .changes
        .iter()
        .map(|it| (it.operation_index, it.id.as_str(), it.row_json.is_empty()))
        .collect();
    assert_eq!(
        told,
        [
            (Some(0), "1", false),
            (Some(1), "2", true),
            (Some(2), "3", false)
        ]
    );
    // Twice each; the reader of the feed may load them once more.
    assert!(endpoint.arrivals_of(Kind::Load).len() >= 6);
}

#[tokio::test]
async fn what_cannot_be_read_back_stays_unknown_and_is_on_record() {
    let app = TestApp::start().await;
    let (tenant, endpoint) = tenant(&app, "acme").await;
    endpoint.script(Kind::Commit, Answer::applied_but(fixed("{}")));
    endpoint.script(Kind::Load, Answer::status(StatusCode::BAD_GATEWAY));
    let receipt = tenant.confirm(create("1")).await;
    assert_eq!(receipt.attempt_count, 2);
    assert_eq!(tenant.attempts("create-1").await[0].outcome, "unknown");
    let load = load_status(&tenant).await.unwrap();
    assert_eq!(load.last_success_time, None);
    assert_eq!(load.last_error.unwrap().http_status, 502);

    // An archive cannot be seen in a row, and many rows are not read.
    let archive = intent::archive("airports", "1");
    endpoint.script(Kind::Commit, Answer::applied_but(fixed("{}")));
    let archived = tenant
        .confirm(intent::commit("archive", vec![archive]))
        .await;
    assert_eq!(archived.attempt_count, 2);
    let loads = endpoint.arrivals_of(Kind::Load).len();
    let many = (10..27).map(|id| intent::create("airports", &id.to_string(), &json!({})));
    endpoint.script(Kind::Commit, Answer::applied_but(fixed("{}")));
    let many = tenant.confirm(intent::commit("many", many.collect())).await;
    assert_eq!(many.attempt_count, 2);
    assert_eq!(endpoint.arrivals_of(Kind::Load).len(), loads);
}

#[tokio::test]
async fn a_row_that_the_endpoint_holds_and_its_model_forbids_is_confirmed_to_nobody() {
    let app = TestApp::start().await;
    let (tenant, endpoint) = tenant(&app, "acme").await;
    // Nulls and columns that the model does not declare are the customer's.
    let wide = json!({"rows": [{"id": "1", "text": "one", "number": null, "column": [1]}]});
    endpoint.script(Kind::Commit, Answer::applied_but(fixed(wide.to_string())));
    let receipt = tenant.confirm(create("1")).await;
    let row: Value = serde_json::from_slice(&receipt.changes[0].row_json).unwrap();
    assert_eq!(row, wide["rows"][0]);

    let typed = json!({"rows": [{"id": "2", "text": "one", "number": "many"}]});
    endpoint.always(Kind::Commit, Answer::applied_but(fixed(typed.to_string())));
    let held = json!({"row": {"id": "2", "text": "one", "number": "many"}});
    endpoint.always(Kind::Load, Answer::unapplied(fixed(held.to_string())));
    let receipt = tenant.settle(create("2")).await;
    assert!(receipt.dead, "{receipt:?}");
    let attempts = tenant.attempts("create-2").await;
    assert!(attempts[0].message.contains("number"), "{attempts:?}");
    assert!(!attempts[0].message.contains("many"), "no value of a row");
}

#[tokio::test]
async fn rows_to_be_created_are_looked_at_before_a_third_attempt_after_5xx_answers() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    // As handlers do that know the row, and not the commit.
    for _ in 0..3 {
        endpoint.script(
            Kind::Commit,
            Answer::status(StatusCode::INTERNAL_SERVER_ERROR),
        );
    }
    let row = json!({"text": "there"}).as_object().unwrap().clone();
    endpoint.write_outside("airports", "2", row);
    let operations = vec![
        intent::create("airports", "1", &json!({"text": "one"})),
        intent::create("airports", "2", &json!({"text": "two"})),
    ];
    let request = intent::queued("both", operations);
    tenant.commit(request.clone()).await.unwrap();
    tenant.ended_attempts("both", 3).await;
    let read_back: Option<String> = sqlx::query_scalar("SELECT read_back FROM inbox")
        .fetch_optional(&app.pool())
        .await
        .unwrap()
        .flatten();
    let mut order: Vec<_> = endpoint.arrivals().iter().map(|it| it.kind).collect();
    order.retain(|kind| *kind != Some(Kind::Events));
    let (commit, load) = (Some(Kind::Commit), Some(Kind::Load));
    assert_eq!(order[..5], [commit, commit, load, load, commit]);
    if let Some(read_back) = read_back {
        assert_eq!(read_back, "1 of 2 rows to be created exist");
    }
    // It is sent all the same, and looked at once.
    app.leaves_pending("it waits until no earlier attempt can still be applied");
    assert_eq!(endpoint.arrivals_of(Kind::Load).len(), 2);
}

#[tokio::test]
async fn the_trouble_of_read_backs_is_their_own_commits() {
    let app = TestApp::start().await;
    let (tenant, endpoint) = tenant(&app, "acme").await;
    endpoint.script(Kind::Commit, Answer::applied_but(fixed("{}")));
    endpoint.hold(Kind::Load);
    tenant
        .commit(intent::queued("held", create("1").operations))
        .await
        .unwrap();
    endpoint.wait_for_arrivals(Kind::Load, 1).await;
    // The row's next commit waits for it, and others do not.
    let next = intent::update("airports", "1", &json!({"text": "two"}));
    let next = intent::queued("next", vec![next]);
    tenant.commit(next.clone()).await.unwrap();
    tenant.confirm(create("2")).await;
    assert_eq!(tenant.attempts("next").await, []);
    endpoint.release(Kind::Load);
    assert_eq!(tenant.confirm(next).await.attempt_count, 1);
    let held = tenant.receipt("held").await.unwrap();
    assert_eq!(
        (held.state(), held.attempt_count),
        (CommitState::Confirmed, 1)
    );
}

#[tokio::test]
async fn a_copy_that_runs_late_runs_before_the_rows_next_commit_and_is_found_by_the_last_send() {
    let mut app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let source = Source {
        request_timeout: Duration::from_secs(4),
        ..Source::at(&endpoint)
    };
    tenant.update_source(&source).await;
    // The first copy is stuck in the endpoint until nobody waits for it; the second is refused.
    let gate = Gate::closed();
    endpoint.script(Kind::Commit, Answer::honest().once_open(&gate));
    let refusal = Answer::error(StatusCode::CONFLICT, "stale");
    endpoint.script(Kind::Commit, refusal);
    let create = create("1");
    let request = intent::queued(&create.client_tx_id, create.operations.clone());
    tenant.commit(request).await.unwrap();
    let update = intent::update("airports", "1", &json!({"text": "two"}));
    let next = intent::queued("next", vec![update]);
    tenant.commit(next.clone()).await.unwrap();
    let attempts = tenant.ended_attempts("create-1", 2).await;
    let outcomes: Vec<_> = attempts.iter().map(|it| it.outcome.as_str()).collect();
    assert_eq!(outcomes, ["unknown", "refused"]);
    gate.open();
    endpoint.wait_for_executions(1).await;
    assert_eq!(tenant.attempts("next").await, []);
    sqlx::query("UPDATE inbox SET due_at = least(due_at, now()), may_apply_until = now() WHERE attempts > 0")
        .execute(&app.pool())
        .await
        .unwrap();
    let tenant = tenant.at(&app.restart().await);
    let receipt = tenant.confirm(create).await;
    assert_eq!(receipt.attempt_count, 3);
    tenant.confirm(next).await;
    let order: Vec<_> = endpoint.executions();
    let order: Vec<_> = order.iter().map(|it| it.client_tx_id.as_str()).collect();
    assert_eq!(order, ["create-1", "next"]);
}

/// Such a commit must neither be tried for ever nor keep its row.
#[tokio::test]
async fn an_answer_that_the_database_refuses_to_keep_is_taken_for_none() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.organization("acme").await;
    endpoint.set_keys(&[tenant.key()]);
    let source = Source {
        retry_delays: vec![Duration::from_secs(1); 9],
        ..Source::at(&endpoint)
    };
    tenant.prepare(&source).await;
    let refuse = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'this row is not kept'; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON deltas FOR EACH ROW
            WHEN (NEW.row_id = '1') EXECUTE FUNCTION refuse()";
    sqlx::raw_sql(refuse).execute(&app.pool()).await.unwrap();
    let first = v1::CommitRequest {
        wait: v1::Wait::Queued.into(),
        ..create("1")
    };
    tenant.commit(first).await.unwrap();
    let attempts = tenant.ended_attempts("create-1", 1).await;
    assert_eq!(attempts[0].outcome, "unknown");
    assert_eq!(attempts[0].error_class, "answer_not_recorded");
    tenant.confirm(create("2")).await;
    let keep = "DROP TRIGGER refuse ON deltas";
    sqlx::raw_sql(keep).execute(&app.pool()).await.unwrap();
    let receipt = tenant.confirm(create("1")).await;
    assert!(receipt.attempt_count > 1);
    assert_eq!(endpoint.executions().len(), 2);
}
