//! A writer that says what its view of a row rests on does not overwrite what it has not seen.

use axum::http::StatusCode;
use integration::app::{Source, Tenant, TestApp, eventually, intent, reason};
use integration::endpoint::{Answer, Endpoint, Gate, Kind, Reply};
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
async fn a_view_of_a_row_that_was_deleted_since_is_stale_whichever_backing_held_it() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    for model in ["notes", "airports"] {
        let text = json!({"text": "first"});
        let viewed = |operation: v1::Operation, read_at, on_stale: OnStale| v1::Operation {
            read_at: Some(read_at),
            on_stale: on_stale.into(),
            ..operation
        };
        let named =
            |name: &str, operation| intent::commit(&format!("{model}-{name}"), vec![operation]);
        let create = intent::create(model, "1", &text);
        tenant.confirm(named("create", create.clone())).await;
        let seen = read_at(&tenant, model).await;
        let delete = intent::delete(model, "1");
        let gone = tenant.confirm(named("delete", delete.clone())).await;
        let gone = gone.changes[0].sync_id;
        for (name, operation) in [
            ("c", create.clone()),
            ("u", intent::update(model, "1", &text)),
            ("d", delete.clone()),
        ] {
            let stale = viewed(operation, seen, OnStale::Unspecified);
            let status = tenant.commit(named(name, stale)).await.unwrap_err();
            assert_eq!(
                (status.code(), reason(&status).as_str()),
                (Code::Aborted, "stale_context")
            );
            let told = status.get_details_error_info().unwrap().metadata;
            assert_eq!(told["sync_id"], gone.to_string());
        }
        assert!(tenant.row(model, "1").await.is_none());
        // Who saw that it is gone may make it anew; who insists may, too.
        let fresh = viewed(create.clone(), gone, OnStale::Reject);
        assert!(!tenant.confirm(named("fresh", fresh)).await.changes[0].stale);
        tenant.confirm(named("again", delete)).await;
        let flagged = viewed(create.clone(), gone, OnStale::Flag);
        assert!(tenant.confirm(named("flags", flagged)).await.changes[0].stale);
    }
}

#[tokio::test]
async fn a_receipt_says_how_far_the_feed_had_been_read_when_views_were_judged() {
    let app = TestApp::start().await;
    let (endpoint, silent) = (Endpoint::start("").await, Endpoint::start("").await);
    let (endpoint, silent) = (endpoint.unwrap(), silent.unwrap());
    let tenant = app.tenant(&endpoint).await;
    let read_at = async || -> Option<i64> {
        let micros = "SELECT (extract(epoch FROM caught_up_at) * 1000000)::bigint FROM feeds
                      WHERE org_id = 'acme' AND caught_up_at IS NOT NULL";
        let pool = app.pool();
        let at = sqlx::query_scalar(micros).fetch_optional(&pool);
        at.await.unwrap()
    };
    let told = |receipt: &v1::Receipt| {
        let time = receipt.feed_read_time?;
        Some(time.seconds * 1_000_000 + i64::from(time.nanos / 1_000))
    };
    let before = eventually("a feed that was read", read_at).await;
    let create = |model: &str, name: &str| {
        intent::commit(name, vec![intent::create(model, name, &json!({}))])
    };
    let receipt = tenant.confirm(create("airports", "1")).await;
    let after = read_at().await.unwrap();
    let time = told(&receipt).unwrap();
    assert!(before <= time && time <= after, "{before} {time} {after}");
    // Whatever was read since: a receipt is the same for good.
    endpoint.write_outside("airports", "2", serde_json::Map::new());
    eventually("a later read", async || {
        read_at().await.filter(|now| *now > after)
    })
    .await;
    assert_eq!(tenant.confirm(create("airports", "1")).await, receipt);
    assert_eq!(tenant.receipt("1").await.unwrap(), receipt);
    let later = v1::CommitRequest {
        wait: v1::Wait::Queued.into(),
        ..create("airports", "later")
    };
    let later = tenant.commit(later).await.unwrap();
    assert!(told(&later) > Some(after), "{later:?}");
    tenant.confirm(create("airports", "later")).await;

    // Nothing is told where nothing was read.
    assert_eq!(
        told(&tenant.confirm(create("notes", "managed")).await),
        None
    );
    silent.without_feed();
    let other = app.organization("other").await;
    silent.set_keys(&[other.key()]);
    other.prepare(&Source::at(&silent)).await;
    eventually("an endpoint without a feed", async || {
        let feed = other.status().await.feed?;
        (feed.state() == v1::FeedState::None).then_some(())
    })
    .await;
    assert_eq!(told(&other.confirm(create("airports", "1")).await), None);
}

#[tokio::test]
async fn a_view_from_before_the_logs_retention_is_stale_where_there_is_no_row() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let create = |name: &str, id: &str, read_at: Option<i64>| {
        let create = intent::create("notes", id, &json!({}));
        intent::commit(name, vec![v1::Operation { read_at, ..create }])
    };
    tenant.confirm(create("a", "a", None)).await;
    let delete = intent::commit("d", vec![intent::delete("notes", "a")]);
    tenant.confirm(delete).await;
    tenant.confirm(create("b", "b", Some(0))).await;
    app.expire_log(2).await;
    for (name, id) in [("of a", "a"), ("of none", "c")] {
        let status = tenant.commit(create(name, id, Some(1))).await.unwrap_err();
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::Aborted, "stale_context")
        );
    }
    // Nothing has happened to either since.
    tenant.confirm(create("anew", "a", Some(2))).await;
    app.expire_log(i64::MAX).await;
    let status = tenant.commit(create("all", "c", Some(3))).await;
    assert_eq!(reason(&status.unwrap_err()), "stale_context");
    tenant.confirm(create("newest", "c", Some(4))).await;
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

#[tokio::test]
async fn a_commit_that_is_pending_on_the_row_makes_every_view_of_it_stale() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let create = intent::create("airports", "1", &json!({"text": "first"}));
    endpoint.hold(Kind::Commit);
    tenant
        .commit(intent::queued("create", vec![create]))
        .await
        .unwrap();
    // Nobody has read the row that is being made: 0 is as far as any view goes.
    let queued = |name, on_stale| v1::CommitRequest {
        wait: v1::Wait::Queued.into(),
        ..update(name, "airports", 0, on_stale)
    };
    let refused = tenant.commit(queued("rejects", OnStale::Reject)).await;
    let refused = refused.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::Aborted, "stale_context")
    );
    let told = refused.get_details_error_info().unwrap().metadata;
    assert_eq!(
        (told["pending"].as_str(), told.contains_key("sync_id")),
        ("true", false)
    );
    let (forces, flags) = (
        queued("forces", OnStale::Force),
        queued("flags", OnStale::Flag),
    );
    for request in [&forces, &flags] {
        tenant.commit(request.clone()).await.unwrap();
    }
    endpoint.release(Kind::Commit);
    let receipt = tenant.confirm(flags).await;
    assert!(receipt.changes[0].stale);
    assert!(!tenant.confirm(forces).await.changes[0].stale);
    // All are settled: the row's last change is what counts again.
    let seen = read_at(&tenant, "airports").await;
    tenant
        .confirm(update("fresh", "airports", seen, OnStale::Reject))
        .await;
}

#[tokio::test]
async fn a_commit_that_was_refused_leaves_no_trace_of_its_row() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    endpoint.script(Kind::Commit, Answer::error(StatusCode::CONFLICT, "taken"));
    let create = intent::create("airports", "1", &json!({"text": "first"}));
    let request = intent::commit("create", vec![create.clone()]);
    let receipt = tenant.settle(request).await;
    assert_eq!(receipt.state(), v1::CommitState::Rejected);
    let remembered = async || -> Vec<(i64, i64)> {
        sqlx::query_as("SELECT sync_id, unsettled FROM row_versions")
            .fetch_all(&app.pool())
            .await
            .unwrap()
    };
    assert_eq!(remembered().await, []);
    tenant.confirm(intent::commit("again", vec![create])).await;
    assert_eq!(remembered().await, [(1, 0)]);
    endpoint.script(Kind::Commit, Answer::error(StatusCode::CONFLICT, "taken"));
    let receipt = tenant
        .settle(update("refused", "airports", 1, OnStale::Reject))
        .await;
    assert_eq!(receipt.state(), v1::CommitState::Rejected);
    assert_eq!(remembered().await, [(1, 0)]);
}

#[tokio::test]
async fn a_view_is_judged_again_when_delivery_begins() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    tenant
        .update_source(&Source {
            max_in_flight: 1,
            ..Source::at(&endpoint)
        })
        .await;
    let create = intent::create("airports", "1", &json!({"text": "first"}));
    tenant.confirm(intent::commit("create", vec![create])).await;
    let seen = read_at(&tenant, "airports").await;
    // A commit of another row changes this one too, and says so, after the others were accepted.
    let deltas = json!({"deltas": [
        {"model": "airports", "id": "2", "type": "CREATE", "data": {"id": "2"}},
        {"model": "airports", "id": "1", "type": "UPDATE", "data": {"id": "1", "text": "touched"}},
    ]});
    let reply = Reply::Fixed(StatusCode::OK, Vec::new(), deltas.to_string().into_bytes());
    let gate = Gate::closed();
    endpoint.script(Kind::Commit, Answer::applied_but(reply).once_open(&gate));
    let other = intent::create("airports", "2", &json!({}));
    tenant
        .commit(intent::queued("other", vec![other]))
        .await
        .unwrap();
    endpoint.wait_for_arrivals(Kind::Commit, 2).await;
    let rejects = v1::CommitRequest {
        wait: v1::Wait::Queued.into(),
        ..update("rejects", "airports", seen, OnStale::Reject)
    };
    tenant.commit(rejects.clone()).await.unwrap();
    let flags = v1::CommitRequest {
        wait: v1::Wait::Queued.into(),
        ..update("flags", "airports", seen, OnStale::Flag)
    };
    tenant.commit(flags.clone()).await.unwrap();
    gate.open();
    let rejected = tenant.settle(rejects).await;
    assert_eq!(rejected.state(), v1::CommitState::Rejected);
    let error = rejected.error.unwrap();
    assert_eq!(error.code, "stale_context");
    assert!(error.message.contains("operations[0]"), "{error:?}");
    assert_eq!(rejected.attempt_count, 0);
    assert!(tenant.confirm(flags).await.changes[0].stale);
    let sent: Vec<_> = endpoint.executions();
    let sent: Vec<_> = sent.iter().map(|it| it.client_tx_id.as_str()).collect();
    assert_eq!(sent, ["create", "other", "airports-flags"]);
}
