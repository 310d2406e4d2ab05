//! Events that are pushed instead of polled for.

use integration::app::reason;
use proto::v1::OperationType;
use tonic_types::StatusExt;

use super::*;

fn pushed(id: &str, row: &str, text: &str) -> v1::ExternalEvent {
    v1::ExternalEvent {
        event_id: id.to_owned(),
        model: "airports".to_owned(),
        id: row.to_owned(),
        r#type: OperationType::Update.into(),
        row_json: json!({"id": row, "text": text})
            .to_string()
            .into_bytes()
            .into(),
        ..v1::ExternalEvent::default()
    }
}

fn request(events: Vec<v1::ExternalEvent>) -> v1::PushEventsRequest {
    v1::PushEventsRequest {
        name: "dataSources/crm".to_owned(),
        events,
    }
}

async fn push(tenant: &Tenant, events: Vec<v1::ExternalEvent>) {
    tenant.sources().push_events(request(events)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_pushed_through_any_node_are_taken_in_once_and_in_order() {
    let mut app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    endpoint.without_feed();
    let tenant = app.tenant(&endpoint).await;
    until(&tenant, "no feed", |feed| {
        feed.state() == v1::FeedState::None
    })
    .await;
    let elsewhere = tenant.at(&app.add_node().await);
    push(
        &elsewhere,
        vec![pushed("1", "a", "one"), pushed("2", "a", "two")],
    )
    .await;
    taken(&tenant, 2).await;
    let gone = v1::ExternalEvent {
        r#type: OperationType::Delete.into(),
        row_json: Vec::new().into(),
        ..pushed("3", "a", "")
    };
    push(&tenant, vec![pushed("2", "a", "two"), gone]).await;
    let unknown = v1::ExternalEvent {
        model: "planes".to_owned(),
        ..pushed("4", "a", "one")
    };
    push(&elsewhere, vec![unknown]).await;
    let all = |feed: &v1::FeedStatus| feed.quarantined_count == 1 && feed.pushed_count == 0;
    let feed = until(&tenant, "all of them", all).await;
    assert_eq!((feed.taken_count, feed.duplicate_count), (3, 1));
    // Whether it is polled is another matter.
    assert_eq!(feed.state(), v1::FeedState::None);
    let told: Vec<_> = log(&app)
        .await
        .iter()
        .map(|it| (it.kind.clone(), it.text()))
        .collect();
    let wanted = [
        ("UPDATE", json!("one")),
        ("UPDATE", json!("two")),
        ("DELETE", Value::Null),
    ];
    assert_eq!(told, wanted.map(|(kind, text)| (kind.to_owned(), text)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_that_breaks_a_rule_is_refused_whole() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let mut wrong = pushed("2", "a", "two");
    wrong.row_json = b"{".as_slice().into();
    let cases = [
        (
            vec![pushed("1", "a", "one"), wrong],
            [Some("1"), Some("row_json")],
        ),
        (Vec::new(), [None, None]),
    ];
    for (events, place) in cases {
        let refused = tenant
            .sources()
            .push_events(request(events))
            .await
            .unwrap_err();
        assert_eq!(reason(&refused), "event_invalid");
        let said = refused.get_details_error_info().unwrap().metadata;
        let at = ["event", "field"].map(|key| said.get(key).map(String::as_str));
        assert_eq!(at, place);
    }
    let mut nowhere = request(vec![pushed("1", "a", "one")]);
    nowhere.name = "dataSources/nowhere".to_owned();
    let refused = tenant.sources().push_events(nowhere).await.unwrap_err();
    assert_eq!(reason(&refused), "source_not_found");
    assert_eq!(feed(&tenant).await.pushed_count, 0);

    // What waits outlives the node: nobody takes it in while none runs.
    let pool = app.pool();
    let waiting: i64 = sqlx::query_scalar("SELECT count(*) FROM pushed_events")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(waiting, 0);
    sqlx::query(
        "INSERT INTO pushed_events (org_id, source_id, event)
         SELECT 'acme', 'crm', '{\"id\":\"' || n || '\",\"model\":\"airports\",\"entityId\":\"a\",\"type\":\"DELETE\"}'
         FROM generate_series(1, 3000) AS n",
    )
    .execute(&pool)
    .await
    .unwrap();
    // Found by the owner although nobody told it.
    taken(&tenant, 3_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_polls_bring_does_not_undo_what_was_pushed_before() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let page = |page| endpoint.always(Kind::Events, Answer::json(StatusCode::OK, &page));
    page(json!({"events": []}));
    let tenant = app.tenant(&endpoint).await;
    endpoint.write_outside("airports", "a", text("three"));
    push(&tenant, vec![pushed("3", "a", "three")]).await;
    taken(&tenant, 1).await;
    let earlier = [event("1", "a", "one"), event("2", "a", "two")];
    page(json!({"events": earlier, "nextCursor": "2"}));
    taken(&tenant, 3).await;
    let texts: Vec<_> = log(&app).await.iter().map(Delta::text).collect();
    assert_eq!(texts, ["three", "three", "three"]);
}
