//! A writer that says what its view of a row rests on does not overwrite what it has not seen.

use integration::app::{Tenant, TestApp, intent, reason};
use integration::endpoint::{Endpoint, Kind};
use proto::v1;
use proto::v1::OnStale;
use serde_json::json;
use tonic::Code;
use tonic_types::StatusExt;

fn update(name: &str, model: &str, read_at: i64, on_stale: OnStale) -> v1::CommitRequest {
    let update = v1::Operation {
        read_at: Some(read_at),
        on_stale: on_stale.into(),
        ..intent::update(model, "1", &json!({"text": name}))
    };
    intent::commit(&format!("{model}-{name}"), vec![update])
}

async fn read_at(tenant: &Tenant, model: &str) -> i64 {
    tenant.load(model, "1").await.unwrap().read_at
}

#[tokio::test]
async fn a_stale_writer_is_refused_unless_it_insists_whichever_backing_holds_the_row() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    for model in ["notes", "airports"] {
        let create = intent::create(model, "1", &json!({"text": "first"}));
        tenant
            .confirm(intent::commit(&format!("{model}-create"), vec![create]))
            .await;
        let seen = read_at(&tenant, model).await;
        tenant
            .confirm(update("fresh", model, seen, OnStale::Unspecified))
            .await;
        for on_stale in [OnStale::Unspecified, OnStale::Reject] {
            let arrived = endpoint.arrivals_of(Kind::Commit).len();
            let stale = tenant.commit(update("stale", model, seen, on_stale)).await;
            let status = stale.unwrap_err();
            assert_eq!(
                (status.code(), reason(&status).as_str()),
                (Code::Aborted, "stale_context")
            );
            let told = status.get_details_error_info().unwrap().metadata;
            assert_eq!(told["sync_id"], (seen + 1).to_string());
            assert_eq!(endpoint.arrivals_of(Kind::Commit).len(), arrived);
        }
        assert_eq!(tenant.row(model, "1").await.unwrap()["text"], "fresh");
        tenant
            .confirm(update("insists", model, seen, OnStale::Force))
            .await;
        assert_eq!(tenant.row(model, "1").await.unwrap()["text"], "insists");
    }
}

#[tokio::test]
async fn of_two_writers_with_one_view_exactly_one_wins() {
    let app = TestApp::start().await;
    let tenant = app.organization("acme").await;
    let fields = r#"{"type": "object", "properties": {"text": {"type": "string"}}}"#;
    tenant
        .push(&format!(
            r#"{{"models": {{"notes": {{"backing": "managed", "schema": {fields}}}}}}}"#
        ))
        .await;
    let create = intent::create("notes", "1", &json!({"text": "first"}));
    tenant.confirm(intent::commit("create", vec![create])).await;
    for round in 0..20 {
        let seen = read_at(&tenant, "notes").await;
        let [one, other] = ["one", "other"].map(|who| {
            tenant.commit(update(
                &format!("{who}-{round}"),
                "notes",
                seen,
                OnStale::Reject,
            ))
        });
        let (one, other) = tokio::join!(one, other);
        assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
    }
}
