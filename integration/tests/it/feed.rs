//! Changes made outside: taken in once each, beside commits, whoever reads the feed.

mod cursors;
mod echoes;
mod owners;
mod push;

use std::time::Duration;

use axum::http::StatusCode;
use integration::app::{Source, Tenant, TestApp, eventually};
use integration::endpoint::{Answer, Arrival, Endpoint, Gate, Kind, Reply};
use proto::v1;
use serde_json::{Map, Value, json};

/// A change as the log has it.
#[derive(Clone, Debug, PartialEq, sqlx::FromRow)]
struct Delta {
    client_tx_id: Option<String>,
    participant_id: Option<String>,
    kind: String,
    row_id: String,
    row: Option<String>,
}

impl Delta {
    fn text(&self) -> Value {
        self.fields()["text"].clone()
    }

    fn fields(&self) -> Value {
        let row = self.row.as_deref();
        row.map_or(Value::Null, |row| serde_json::from_str(row).unwrap())
    }
}

/// The log, in order; its positions have no holes.
async fn log(app: &TestApp) -> Vec<Delta> {
    let pool = app.pool();
    // The head first: the log may grow between the two.
    let last: i64 = sqlx::query_scalar("SELECT last_sync_id FROM heads")
        .fetch_one(&pool)
        .await
        .unwrap();
    let statement = "SELECT client_tx_id, participant_id, kind, row_id, row FROM deltas
        WHERE sync_id <= $1 ORDER BY sync_id";
    let deltas: Vec<Delta> = sqlx::query_as(statement)
        .bind(last)
        .fetch_all(&pool)
        .await
        .unwrap();
    assert_eq!(i64::try_from(deltas.len()), Ok(last));
    deltas
}

async fn feed(tenant: &Tenant) -> v1::FeedStatus {
    tenant.status().await.feed.unwrap()
}

/// Waits until the feed stands so.
async fn until(
    tenant: &Tenant,
    what: &str,
    so: impl Fn(&v1::FeedStatus) -> bool,
) -> v1::FeedStatus {
    eventually(what, async || {
        let feed = feed(tenant).await;
        so(&feed).then_some(feed)
    })
    .await
}

async fn taken(tenant: &Tenant, count: i64) -> v1::FeedStatus {
    until(tenant, &format!("{count} events"), |feed| {
        feed.taken_count >= count
    })
    .await
}

async fn waited_at(what: &str, gate: &Gate) {
    eventually(what, async || gate.is_waited_at().then_some(())).await;
}

fn text(text: &str) -> Map<String, Value> {
    Map::from_iter([("text".to_owned(), text.into())])
}

/// An event that says what a row of the source became.
fn event(id: &str, row: &str, text: &str) -> Value {
    json!({
        "id": id, "model": "airports", "entityId": row, "type": "UPDATE",
        "data": {"id": row, "text": text},
    })
}

/// The cursors that polls carried, in order.
fn cursors(arrivals: &[Arrival]) -> Vec<Option<&str>> {
    arrivals
        .iter()
        .map(|it| it.body["cursor"].as_str())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_made_outside_are_in_the_log_once_each_and_in_order() {
    let mut app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    endpoint.write_outside("airports", "a", text("one"));
    endpoint.write_outside("airports", "b", text("one"));
    endpoint.write_outside("airports", "a", text("two"));
    // The same event again, and the end of a row.
    endpoint.publish(event("event-1", "a", "one"));
    endpoint.publish(json!({"id": "gone", "model": "airports", "entityId": "b", "type": "DELETE"}));
    let feed = until(&tenant, "the feed's end", |feed| feed.cursor == "5").await;
    assert_eq!(
        (feed.taken_count, feed.duplicate_count, feed.echo_count),
        (4, 1, 0)
    );
    assert_eq!(feed.state(), v1::FeedState::Polling);
    assert!(feed.last_event_time.is_some() && feed.lag.is_some());
    let deltas = log(&app).await;
    let told: Vec<_> = deltas
        .iter()
        .map(|it| (it.kind.as_str(), it.row_id.as_str(), it.text()))
        .collect();
    let wanted = [
        ("CREATE", "a", json!("one")),
        ("CREATE", "b", json!("one")),
        ("UPDATE", "a", json!("two")),
        ("DELETE", "b", Value::Null),
    ];
    assert_eq!(told, wanted);
    assert!(
        deltas
            .iter()
            .all(|it| it.client_tx_id.is_none() && it.participant_id.is_none())
    );

    // Everything outlives a restart, and the same feed from its start brings nothing.
    let address = app.restart().await;
    let tenant = tenant.at(&address);
    endpoint.write_outside("airports", "c", text("one"));
    let feed = until(&tenant, "one more", |feed| feed.cursor == "6").await;
    assert_eq!((feed.taken_count, feed.duplicate_count), (5, 1));
    let reset = v1::ResetFeedRequest {
        name: "dataSources/crm".to_owned(),
        ..v1::ResetFeedRequest::default()
    };
    tenant.sources().reset_feed(reset).await.unwrap();
    until(&tenant, "the feed to be read again", |feed| {
        feed.cursor == "6"
    })
    .await;
    assert_eq!(log(&app).await.len(), 5);
}

/// Events that were kept aside, by id, with their reasons and what is left of them.
async fn quarantine(tenant: &Tenant) -> Vec<(String, String, String)> {
    let mut reasons = Vec::new();
    let mut request = v1::ListQuarantinedEventsRequest {
        name: "dataSources/crm".to_owned(),
        page_size: 3,
        ..v1::ListQuarantinedEventsRequest::default()
    };
    loop {
        let page = tenant
            .sources()
            .list_quarantined_events(request.clone())
            .await;
        let page = page.unwrap().into_inner();
        reasons.extend(page.events.into_iter().map(|it| {
            assert!(!it.message.is_empty() && it.time.is_some());
            (it.event_id, it.reason, it.event)
        }));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    reasons.sort_unstable();
    reasons
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_does_not_fit_is_kept_aside_and_the_feed_goes_on() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let with = |id: &str, changes: Value| {
        let mut event = event(id, "a", "one");
        event
            .as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        event
    };
    endpoint.publish(with("unknown", json!({"model": "planes"})));
    endpoint.publish(with("managed", json!({"model": "notes"})));
    endpoint.publish(with("long", json!({"entityId": "x".repeat(256)})));
    endpoint.publish(with(&"y".repeat(256), json!({})));
    endpoint.publish(with("row", json!({"data": {"id": "a", "text": 7}})));
    endpoint.publish(with("stranger", json!({"organizationId": "other"})));
    endpoint.publish(json!("nothing"));
    let wide = json!({"id": "a", "text": null, "column": "the customer's"});
    endpoint.publish(with(
        "good",
        json!({"organizationId": "acme", "data": wide}),
    ));
    let feed = taken(&tenant, 1).await;
    assert_eq!((feed.quarantined_count, feed.cursor.as_str()), (7, "8"));
    let log = log(&app).await;
    assert_eq!((log.len(), log[0].fields()), (1, wide));

    let reasons = quarantine(&tenant).await;
    let told: Vec<_> = reasons
        .iter()
        .map(|(id, reason, _)| (id.as_str(), reason.as_str()))
        .collect();
    assert_eq!(
        told[..5],
        [
            ("long", "event_invalid"),
            ("managed", "model_elsewhere"),
            ("row", "field_type"),
            (told[3].0, "event_invalid"),
            (told[4].0, "event_invalid"),
        ]
    );
    assert!(told[3].0.starts_with("sha256:") && told[4].0.starts_with("sha256:"));
    assert_eq!(
        told[5..],
        [
            ("stranger", "organization_mismatch"),
            ("unknown", "model_unknown")
        ]
    );
    assert!(reasons[6].2.contains("\"planes\""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_cannot_be_read_is_kept_aside_and_its_neighbours_are_taken_in() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let deep = format!("{}{}", "[".repeat(80), "]".repeat(80));
    let broken = [
        r#"{"id":"nul","model":"planes","n":"\u0000"}"#.to_owned(),
        r#"{"id":"nul\u0000","model":"airports"}"#.to_owned(),
        r#"{"id":"number","n":1e400}"#.to_owned(),
        r#"{"id":"twice","n":1,"n":2}"#.to_owned(),
        r#"{"id":"half","n":"\ud800"}"#.to_owned(),
        format!(r#"{{"id":"deep","n":{deep}}}"#),
    ];
    let (first, last) = (event("first", "a", "one"), event("last", "b", "two"));
    let page = format!(
        r#"{{"events":[{first},{},{last}],"nextCursor":"8"}}"#,
        broken.join(",")
    );
    let page = Reply::Fixed(StatusCode::OK, Vec::new(), page.into_bytes());
    endpoint.always(Kind::Events, Answer::unapplied(page));
    let tenant = app.tenant(&endpoint).await;
    let feed = until(&tenant, "the page", |feed| feed.cursor == "8").await;
    assert_eq!((feed.taken_count, feed.quarantined_count), (2, 6));
    let kept = quarantine(&tenant).await;
    let ids: Vec<_> = kept.iter().map(|(id, _, _)| id.as_str()).collect();
    assert_eq!(ids[..4], ["deep", "half", "nul", "number"]);
    assert!(ids[4].starts_with("sha256:") && ids[5] == "twice");
    assert!(kept.iter().all(|(_, reason, _)| reason == "event_invalid"));
    assert_eq!((&kept[2].2, &kept[4].2), (&broken[0], &broken[1]));
    let rows: Vec<_> = log(&app).await.into_iter().map(|it| it.row_id).collect();
    assert_eq!(rows, ["a", "b"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_is_larger_than_one_may_be_is_kept_aside_and_the_feed_goes_on() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    endpoint.publish(event("before", "a", "one"));
    endpoint.publish(event("huge", "b", &"x".repeat(2 << 20)));
    endpoint.publish(event("behind", "c", "one"));
    let tenant = app.tenant(&endpoint).await;
    let feed = taken(&tenant, 2).await;
    assert_eq!(feed.quarantined_count, 1);
    let rows: Vec<_> = log(&app).await.into_iter().map(|it| it.row_id).collect();
    assert_eq!(rows, ["a", "c"]);
    let kept: (String, String, i32) =
        sqlx::query_as("SELECT event_id, message, octet_length(event) FROM quarantined_events")
            .fetch_one(&app.pool())
            .await
            .unwrap();
    assert_eq!(kept.0, "huge");
    assert!(kept.1.contains("longer than"), "{}", kept.1);
    assert!(kept.2 <= 64 << 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_is_too_large_to_be_read_is_told_of() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    endpoint.publish(event("huge", "a", &"x".repeat(9 << 20)));
    let tenant = app.tenant(&endpoint).await;
    let warning = eventually("the warning", async || {
        let mut warnings = tenant.status().await.warnings.into_iter();
        warnings.find(|it| it.starts_with("the feed stands still since"))
    });
    assert!(warning.await.contains("longer than 8 MiB"));
    assert!(log(&app).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_without_a_feed_is_asked_once_and_again_when_it_is_enabled() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    endpoint.without_feed();
    let tenant = app.tenant(&endpoint).await;
    until(&tenant, "no feed", |feed| {
        feed.state() == v1::FeedState::None
    })
    .await;
    let asked = endpoint.arrivals_of(Kind::Events).len();
    endpoint.be_honest(Kind::Events);
    endpoint.write_outside("airports", "a", text("one"));
    tenant
        .confirm(integration::app::intent::commit(
            "c",
            vec![integration::app::intent::create(
                "airports",
                "b",
                &json!({}),
            )],
        ))
        .await;
    assert_eq!(endpoint.arrivals_of(Kind::Events).len(), asked);
    tenant.disable("to look again").await;
    tenant.enable().await;
    let feed = taken(&tenant, 1).await;
    assert_eq!(feed.state(), v1::FeedState::Polling);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_read_before_the_schema_names_the_source() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.organization("acme").await;
    endpoint.set_keys(&[tenant.key()]);
    endpoint.write_outside("airports", "a", text("one"));
    tenant.prepare(&Source::at(&endpoint)).await;
    let feed = taken(&tenant, 1).await;
    assert_eq!(feed.quarantined_count, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_that_are_too_large_are_asked_for_in_smaller_ones() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    for number in 0..150 {
        let row = number.to_string();
        endpoint.publish(event(&row, &row, &"x".repeat(20_000)));
    }
    let tenant = app.tenant(&endpoint).await;
    let feed = taken(&tenant, 150).await;
    assert_eq!(feed.quarantined_count, 0);
    assert_eq!(log(&app).await.len(), 150);
}

/// A source whose sweep trails by so much.
async fn trailing(app: &TestApp, endpoint: &Endpoint, feed_lag: Duration) -> Tenant {
    let tenant = app.organization("acme").await;
    endpoint.set_keys(&[tenant.key()]);
    let source = Source {
        feed_lag,
        ..Source::at(endpoint)
    };
    tenant.prepare(&source).await;
    tenant
}
