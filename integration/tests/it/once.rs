//! Promise 2: a commit takes effect once, however often it is sent.

use std::time::{Duration, Instant};

use integration::app::{Source, TestApp, intent, reason};
use integration::endpoint::{Endpoint, Kind};
use proto::v1;
use proto::v1::CommitState;
use serde_json::json;
use tokio::task::JoinSet;
use tonic::Code;

async fn delta_count(app: &TestApp) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM deltas")
        .fetch_one(&app.pool())
        .await
        .unwrap()
}

#[tokio::test]
async fn sixteen_equal_calls_over_two_nodes_have_one_effect_and_one_receipt() {
    let mut app = TestApp::start().await;
    let second = app.add_node().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    for (deltas, model) in [(1, "notes"), (2, "airports")] {
        let create = intent::create(model, "", &json!({"text": "one"}));
        let request = intent::commit(&format!("once-{model}"), vec![create]);
        let mut calls = JoinSet::new();
        for number in 0..16 {
            let address = if number % 2 == 0 {
                app.address()
            } else {
                second.clone()
            };
            let (tenant, request) = (tenant.at(&address), request.clone());
            calls.spawn(async move { tenant.commit(request).await.unwrap() });
        }
        let receipts = calls.join_all().await;
        assert_eq!(receipts[0].state(), CommitState::Confirmed);
        assert!(
            receipts.iter().all(|it| *it == receipts[0]),
            "{receipts:#?}"
        );
        assert_eq!(delta_count(&app).await, deltas);
    }
    assert_eq!(endpoint.executions().len(), 1);
    assert_eq!(endpoint.arrivals_of(Kind::Commit).len(), 1);
}

#[tokio::test]
async fn a_replay_after_a_restart_is_the_same_receipt_byte_for_byte() {
    let mut app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let requests = ["notes", "airports"].map(|model| {
        let input = json!({"text": "ä\u{1f600}\"\\", "number": 1});
        let mut create = intent::create(model, "", &input);
        // Digits that no binary number holds.
        create.input_json = br#"{"text":"\u00e4\"\\","number":0.10000000000000000000001}"#
            .to_vec()
            .into();
        intent::commit(&format!("replay-{model}"), vec![create])
    });
    let mut first = Vec::new();
    for request in &requests {
        first.push(tenant.confirm(request.clone()).await);
    }
    let tenant = tenant.at(&app.restart().await);
    for (request, first) in requests.into_iter().zip(first) {
        let text = String::from_utf8(first.changes[0].row_json.to_vec()).unwrap();
        assert!(text.contains("0.10000000000000000000001"), "{text}");
        assert_eq!(tenant.receipt(&request.client_tx_id).await.unwrap(), first);
        assert_eq!(tenant.commit(request).await.unwrap(), first);
    }
    assert_eq!(delta_count(&app).await, 2);
}

#[tokio::test]
async fn another_intent_or_another_participant_is_a_conflict_and_changes_nothing() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    for model in ["notes", "airports"] {
        let request = |text: &str| {
            let create = intent::create(model, "1", &json!({"text": text}));
            intent::commit(&format!("conflict-{model}"), vec![create])
        };
        let receipt = tenant.confirm(request("mine")).await;
        let other_person = v1::CommitRequest {
            participant: Some(v1::Participant {
                id: "user-2".to_owned(),
                ..intent::participant()
            }),
            ..request("mine")
        };
        let other_kind = v1::CommitRequest {
            participant: Some(v1::Participant {
                kind: v1::ParticipantKind::Agent.into(),
                ..intent::participant()
            }),
            ..request("mine")
        };
        let other_groups = v1::CommitRequest {
            required_sync_groups: vec!["team:1".to_owned()],
            ..request("mine")
        };
        for other in [request("theirs"), other_person, other_kind, other_groups] {
            let status = tenant.commit(other).await.unwrap_err();
            assert_eq!(status.code(), Code::AlreadyExists);
            assert_eq!(reason(&status), "idempotency_conflict");
        }
        assert_eq!(tenant.commit(request("mine")).await.unwrap(), receipt);
        assert_eq!(tenant.row(model, "1").await.unwrap()["text"], "mine");
    }
    assert_eq!(endpoint.arrivals_of(Kind::Commit).len(), 1);
}

#[tokio::test]
async fn the_order_of_keys_and_white_space_are_not_part_of_the_intent_and_numbers_are() {
    let app = TestApp::start().await;
    let tenant = app.organization("acme").await;
    tenant.push(NOTES).await;
    let request = |input: &str| {
        let mut create = intent::create("notes", "1", &json!({}));
        create.input_json = input.as_bytes().to_vec().into();
        intent::commit("keys", vec![create])
    };
    let first = tenant.confirm(request(r#"{"text":"a","number":1}"#)).await;
    let same = request(" {\n\t\"number\" : 1 ,\r\n \"text\":\"\\u0061\" } ");
    assert_eq!(tenant.commit(same).await.unwrap(), first);
    let other = tenant.commit(request(r#"{"text":"a","number":1.0}"#)).await;
    assert_eq!(reason(&other.unwrap_err()), "idempotency_conflict");
}

const NOTES: &str = r#"{"models": {"notes": {"backing": "managed", "schema": {"type": "object",
    "properties": {"text": {"type": "string"}, "number": {"type": "number"}}}}}}"#;

#[tokio::test]
async fn a_second_call_joins_the_running_commit_and_waits_with_it() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let patient = Source {
        request_timeout: Duration::from_secs(20),
        ..Source::at(&endpoint)
    };
    tenant.update_source(&patient).await;
    endpoint.hold(Kind::Commit);
    let create = intent::create("airports", "1", &json!({"text": "one"}));
    let request = intent::commit("join", vec![create]);
    let mut calls = JoinSet::new();
    let (one, first) = (tenant.clone(), request.clone());
    calls.spawn(async move { one.commit(first).await.unwrap() });
    endpoint.wait_for_arrivals(Kind::Commit, 1).await;
    let begun = Instant::now();
    let timeout = Duration::from_secs(2);
    let joined = tenant
        .commit_within(request.clone(), timeout)
        .await
        .unwrap();
    assert_eq!(joined.state(), CommitState::Queued);
    assert!(begun.elapsed() > timeout / 2, "it waited for the commit");
    calls.spawn(async move { tenant.commit(request).await.unwrap() });
    endpoint.release(Kind::Commit);
    let receipts = calls.join_all().await;
    assert_eq!(receipts[0].state(), CommitState::Confirmed);
    assert_eq!(receipts[0], receipts[1]);
    assert_eq!(endpoint.arrivals_of(Kind::Commit).len(), 1);
}

#[tokio::test]
async fn a_refusal_before_acceptance_is_not_recorded_and_the_id_can_be_used_again() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let row = json!({"text": "one"});
    tenant
        .confirm(intent::commit(
            "before",
            vec![intent::create("notes", "1", &row)],
        ))
        .await;
    let stale = v1::Operation {
        read_at: Some(0),
        ..intent::update("notes", "1", &row)
    };
    let refused = [
        (intent::create("planes", "1", &row), "model_unknown"),
        (
            intent::create("notes", "2", &json!({"text": 1})),
            "field_type",
        ),
        (intent::create("notes", "1", &row), "entity_exists"),
        (intent::update("notes", "9", &row), "entity_not_found"),
        (stale, "stale_context"),
    ];
    for (operation, code) in refused {
        let refused = tenant
            .commit(intent::commit("again", vec![operation]))
            .await;
        assert_eq!(reason(&refused.unwrap_err()), code);
        let unknown = tenant.receipt("again").await.unwrap_err();
        assert_eq!(reason(&unknown), "commit_not_found");
    }
    let corrected = intent::commit("again", vec![intent::create("notes", "2", &row)]);
    tenant.confirm(corrected).await;
}
