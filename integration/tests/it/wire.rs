//! What an endpoint is sent.

use std::time::Duration;

use axum::http::StatusCode;
use integration::app::{Source, TestApp, intent};
use integration::endpoint::{Answer, Arrival, Endpoint, Kind};
use proto::v1;
use serde_json::{Value, json};
use tonic::Request;

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn trace_id(arrival: &Arrival) -> String {
    let parts: Vec<_> = arrival.header("traceparent").split('-').collect();
    assert_eq!(parts.len(), 4, "{:?}", arrival.header("traceparent"));
    assert_eq!((parts[0], parts[1].len(), parts[2].len()), ("00", 32, 16));
    parts[1].to_owned()
}

#[tokio::test]
async fn a_retry_keeps_its_id_and_its_bytes_and_is_signed_afresh() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    tenant
        .update_source(&Source {
            // The signature counts in seconds.
            retry_delays: vec![Duration::from_millis(1_500); 2],
            ..Source::at(&endpoint)
        })
        .await;
    endpoint.script(Kind::Commit, Answer::status(StatusCode::BAD_GATEWAY));
    let mut create = intent::create("airports", "1", &json!({}));
    create.input_json = r#"{ "text" : "ä", "number": 1.50 }"#.as_bytes().to_vec().into();
    let receipt = tenant.confirm(intent::commit("retry", vec![create])).await;
    let arrivals = endpoint.arrivals_of(Kind::Commit);
    let [first, second] = &arrivals[..] else {
        panic!("one failed attempt and its retry: {arrivals:#?}");
    };
    for arrival in [first, second] {
        assert_eq!(arrival.signature_error, None);
        assert_eq!(arrival.webhook_id(), receipt.commit_id);
        assert_eq!(arrival.header("idempotency-key"), receipt.commit_id);
        assert_eq!(arrival.header("content-type"), "application/json");
    }
    assert_eq!(first.bytes, second.bytes);
    assert_ne!(
        first.header("webhook-timestamp"),
        second.header("webhook-timestamp")
    );
    assert_ne!(
        first.header("webhook-signature"),
        second.header("webhook-signature")
    );
}

#[tokio::test]
async fn a_commits_body_says_who_writes_what_and_in_which_scope() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let mut create = intent::create("airports", "1", &json!({}));
    create.input_json = br#"{"number":1.50}"#.to_vec().into();
    create.transaction_id = "step-1".to_owned();
    create.read_at = Some(0);
    let request = v1::CommitRequest {
        participant: Some(v1::Participant {
            id: "bot".to_owned(),
            kind: v1::ParticipantKind::Agent.into(),
        }),
        required_sync_groups: vec!["team:1".to_owned()],
        ..intent::commit("body", vec![create, intent::delete("airports", "2")])
    };
    tenant.confirm(request).await;
    let arrival = &endpoint.arrivals_of(Kind::Commit)[0];
    let mut body = arrival.body.clone();
    let intent_hash = body["intentHash"].take();
    let intent_hash = intent_hash.as_str().unwrap();
    assert!(intent_hash.len() == 64 && intent_hash.bytes().all(|it| it.is_ascii_hexdigit()));
    let number: Value = serde_json::from_str("1.50").unwrap();
    let wanted = json!({
        "type": "commit",
        "clientTxId": "body",
        "correlationId": "body",
        "intentHash": null,
        "operations": [
            {
                "type": "CREATE", "model": "airports", "id": "1", "input": {"number": number},
                "transactionId": "step-1", "readAt": 0, "onStale": "reject",
            },
            {"type": "DELETE", "model": "airports", "id": "2"},
        ],
        "scope": {
            "participantId": "bot", "participantKind": "agent", "organizationId": "acme",
            "requiredSyncGroups": ["team:1"], "mode": "test",
        },
    });
    assert_eq!(body, wanted);
}

#[tokio::test]
async fn reads_are_signed_too_and_have_an_id_of_their_own_each() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    for _ in 0..2 {
        tenant.load("airports", "1").await.unwrap();
        tenant.list("airports").await.unwrap();
    }
    let mut arrivals = endpoint.arrivals();
    arrivals.retain(|it| it.kind != Some(Kind::Events));
    assert_eq!(arrivals.len(), 4);
    let mut ids: Vec<_> = arrivals.iter().map(Arrival::webhook_id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 4);
    for arrival in &arrivals {
        assert_eq!(arrival.signature_error, None);
        assert_eq!(arrival.header("idempotency-key"), arrival.webhook_id());
        assert_eq!(arrival.body["scope"]["participantId"], "user-1");
        assert_eq!(arrival.body["scope"]["organizationId"], "acme");
        assert_eq!(arrival.body["scope"]["mode"], "test");
    }
    let load = &endpoint.arrivals_of(Kind::Load)[0].body;
    assert_eq!(
        (&load["model"], &load["id"]),
        (&json!("airports"), &json!("1"))
    );
    assert_eq!(
        endpoint.arrivals_of(Kind::List)[0].body["query"]["limit"],
        1_000
    );
}

#[tokio::test]
async fn the_callers_trace_goes_on_at_the_endpoint() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let create = intent::create("airports", "1", &json!({"text": "one"}));
    let mut request = Request::new(intent::commit("traced", vec![create]));
    let headers = request.metadata_mut();
    headers.insert("traceparent", TRACEPARENT.parse().unwrap());
    tenant.coordinator().commit(request).await.unwrap();
    let update = intent::update("airports", "1", &json!({"text": "two"}));
    tenant
        .confirm(intent::commit("untraced", vec![update]))
        .await;
    let arrivals = endpoint.arrivals_of(Kind::Commit);
    assert_eq!(trace_id(&arrivals[0]), "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_ne!(trace_id(&arrivals[1]), trace_id(&arrivals[0]));
}

#[tokio::test]
async fn every_live_key_signs_newest_first_and_a_revoked_one_does_not() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let parent = "organizations/acme".to_owned();
    let made = tenant
        .admin()
        .create_api_key(v1::CreateApiKeyRequest {
            parent,
            display_name: String::new(),
        })
        .await
        .unwrap()
        .into_inner();
    // A key signs within the time that a node may remember the keys.
    let both = integration::app::eventually("two signatures", async || {
        tenant.load("airports", "1").await.unwrap();
        let arrival = endpoint.arrivals().pop().unwrap();
        let count = arrival.header("webhook-signature").split(' ').count();
        (count == 2).then_some(arrival)
    })
    .await;
    assert_eq!(both.signature_error, None);
    endpoint.set_keys(&[&made.key]);
    tenant.load("airports", "1").await.unwrap();
    let newest = endpoint.arrivals().pop().unwrap();
    assert_eq!(newest.signature_error, None);
    let name = made.api_key.unwrap().name;
    tenant
        .admin()
        .revoke_api_key(v1::RevokeApiKeyRequest { name })
        .await
        .unwrap();
    endpoint.set_keys(&[tenant.key()]);
    let one = integration::app::eventually("one signature", async || {
        tenant.load("airports", "1").await.unwrap();
        let arrival = endpoint.arrivals().pop().unwrap();
        let count = arrival.header("webhook-signature").split(' ').count();
        (count == 1).then_some(arrival)
    })
    .await;
    assert_eq!(one.signature_error, None);
}
