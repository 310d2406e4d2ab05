//! Feeds whose cursors are late, absent, endless or refused.

use axum::http::StatusCode;
use integration::app::intent;
use integration::endpoint::Answer;
use time::OffsetDateTime;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_becomes_visible_behind_the_cursor_is_found_by_the_sweep() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = trailing(&app, &endpoint, Duration::from_hours(1)).await;
    endpoint.publish_at(101, event("101", "b", "one"));
    let first = until(&tenant, "the first", |feed| feed.cursor == "101").await;
    let seen = first.last_event_time.unwrap().seconds;
    eventually("two seconds", async || {
        (OffsetDateTime::now_utc().unix_timestamp() > seen + 2).then_some(())
    })
    .await;
    endpoint.publish_at(100, event("100", "a", "late"));
    let found = taken(&tenant, 2).await;
    let late = Duration::try_from(found.largest_lateness.unwrap()).unwrap();
    assert!(late >= Duration::from_secs(2), "{late:?}");
    assert_eq!((found.cursor.as_str(), found.duplicate_count), ("101", 0));
    let rows: Vec<_> = log(&app).await.into_iter().map(|it| it.row_id).collect();
    assert_eq!(rows, ["b", "a"]);
    // Once nothing can be late any more the sweep has caught up, and rests.
    let soon = Source {
        feed_lag: Duration::from_secs(1),
        ..Source::at(&endpoint)
    };
    tenant.update_source(&soon).await;
    until(&tenant, "the sweep", |feed| feed.durable_cursor == "101").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_is_found_late_does_not_undo_a_later_one_of_its_row() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = trailing(&app, &endpoint, Duration::from_hours(1)).await;
    endpoint.publish_at(101, event("101", "b", "one"));
    taken(&tenant, 1).await;
    endpoint.write_outside("airports", "a", text("two"));
    taken(&tenant, 2).await;
    endpoint.publish_at(100, event("100", "a", "one"));
    taken(&tenant, 3).await;
    let changes: Vec<_> = log(&app).await;
    let rows: Vec<_> = changes.iter().map(|it| (&*it.row_id, it.text())).collect();
    let wanted = [("b", "one"), ("a", "two"), ("a", "two")];
    assert_eq!(rows, wanted.map(|(row, text)| (row, json!(text))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_to_a_row_after_a_sweep_found_an_event_of_it_has_the_row_loaded() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = trailing(&app, &endpoint, Duration::from_hours(1)).await;
    endpoint.publish_at(101, event("101", "b", "one"));
    taken(&tenant, 1).await;
    endpoint.publish_at(100, event("100", "a", "late"));
    taken(&tenant, 2).await;
    assert_eq!(endpoint.arrivals_of(Kind::Load).len(), 0);
    // A poll may bring what is older than what the sweep found.
    endpoint.write_outside("airports", "a", text("two"));
    taken(&tenant, 3).await;
    assert_eq!(endpoint.arrivals_of(Kind::Load).len(), 1);
    assert_eq!(log(&app).await.last().unwrap().text(), "two");
    // Polls keep the order among themselves.
    endpoint.write_outside("airports", "b", text("two"));
    taken(&tenant, 4).await;
    assert_eq!(endpoint.arrivals_of(Kind::Load).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_around_one_that_is_known_do_not_undo_it_though_their_reader_is_new() {
    let mut app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = trailing(&app, &endpoint, Duration::from_hours(1)).await;
    endpoint.publish_at(101, event("101", "b", "one"));
    endpoint.write_outside("airports", "a", text("two"));
    taken(&tenant, 2).await;
    endpoint.hold(Kind::Events);
    let reset = v1::ResetFeedRequest {
        name: "dataSources/crm".to_owned(),
        ..v1::ResetFeedRequest::default()
    };
    tenant.sources().reset_feed(reset).await.unwrap();
    let address = app.restart().await;
    endpoint.publish_at(100, event("100", "a", "one"));
    endpoint.write_outside("airports", "a", text("three"));
    endpoint.release(Kind::Events);
    taken(&tenant.at(&address), 4).await;
    let changes: Vec<_> = log(&app).await;
    let rows: Vec<_> = changes.iter().map(|it| (&*it.row_id, it.text())).collect();
    let wanted = [("b", "one"), ("a", "two"), ("a", "three"), ("a", "three")];
    assert_eq!(rows, wanted.map(|(row, text)| (row, json!(text))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_is_not_passed_over_by_the_page_that_was_on_its_way() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = trailing(&app, &endpoint, Duration::from_hours(1)).await;
    endpoint.publish_at(101, event("101", "b", "one"));
    endpoint.write_outside("airports", "a", text("two"));
    taken(&tenant, 2).await;
    let (polled, gate) = (Gate::closed(), Gate::closed());
    let page = Answer::honest().once_open(&polled);
    endpoint.script(Kind::Events, page.replied_once_open(&gate));
    waited_at("a poll", &polled).await;
    endpoint.write_outside("airports", "c", text("one"));
    polled.open();
    waited_at("its page, with the event", &gate).await;
    let reset = v1::ResetFeedRequest {
        name: "dataSources/crm".to_owned(),
        ..v1::ResetFeedRequest::default()
    };
    tenant.sources().reset_feed(reset).await.unwrap();
    // From the start on what comes may be older than what was read.
    let before = json!({"events": [event("100", "a", "one")], "nextCursor": "100"});
    endpoint.script(Kind::Events, Answer::json(StatusCode::OK, &before));
    gate.open();
    taken(&tenant, 4).await;
    let changes: Vec<_> = log(&app).await;
    let rows: Vec<_> = changes.iter().map(|it| (&*it.row_id, it.text())).collect();
    let wanted = [("b", "one"), ("a", "two"), ("c", "one"), ("a", "two")];
    assert_eq!(rows, wanted.map(|(row, text)| (row, json!(text))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_cannot_be_loaded_is_read_again_later() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    let create = intent::create("airports", "a", &json!({"text": "ours"}));
    tenant.confirm(intent::commit("ours", vec![create])).await;
    for _ in 0..4 {
        let unavailable = Answer::status(StatusCode::SERVICE_UNAVAILABLE);
        endpoint.script(Kind::Load, unavailable);
    }
    // Of before, as it turns out.
    endpoint.publish(event("e", "a", "theirs"));
    eventually("the row to be read again", async || {
        (log(&app).await.len() == 3).then_some(())
    })
    .await;
    let texts: Vec<_> = log(&app).await.iter().map(Delta::text).collect();
    assert_eq!(texts, ["ours", "theirs", "ours"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_without_a_cursor_keeps_the_one_that_we_had() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    endpoint.write_outside("airports", "a", text("one"));
    taken(&tenant, 1).await;
    let before = endpoint.arrivals_of(Kind::Events).len();
    for empty in [
        json!({"events": [], "nextCursor": null}),
        json!({"events": []}),
    ] {
        endpoint.script(Kind::Events, Answer::json(StatusCode::OK, &empty));
    }
    endpoint.wait_for_arrivals(Kind::Events, before + 3).await;
    endpoint.write_outside("airports", "b", text("one"));
    let feed = taken(&tenant, 2).await;
    assert_eq!((feed.cursor.as_str(), feed.duplicate_count), ("2", 0));
    let polls = endpoint.arrivals_of(Kind::Events);
    // The sweep begins where the feed does, polls go on where they were.
    let polled = cursors(&polls[before..before + 3]);
    assert!(polled.contains(&Some("1")), "{polled:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_that_brings_the_same_again_and_again_is_left_alone_and_told() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let page = json!({"events": [event("e", "a", "one")], "nextCursor": "c"});
    endpoint.always(Kind::Events, Answer::json(StatusCode::OK, &page));
    let tenant = app.tenant(&endpoint).await;
    let events = eventually("it to be told", async || {
        let status = tenant.status().await;
        let events = status
            .kinds
            .into_iter()
            .find(|it| it.kind() == v1::RequestKind::Events)?;
        let error = events.last_error.clone()?;
        (error.error_class == "no_progress").then_some(events)
    })
    .await;
    assert!(events.last_success_time.is_some());
    let asked = endpoint.arrivals_of(Kind::Events).len();
    assert!(asked < 10, "asked {asked} times");
    assert_eq!(
        (feed(&tenant).await.taken_count, log(&app).await.len()),
        (1, 1)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_cursor_stops_the_feed_until_an_operator_resets_it() {
    let app = TestApp::start().await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = app.tenant(&endpoint).await;
    endpoint.write_outside("airports", "a", text("one"));
    taken(&tenant, 1).await;
    let refusal = Answer::error(StatusCode::BAD_REQUEST, "cursor_invalid");
    endpoint.always(Kind::Events, refusal);
    let refused = until(&tenant, "a refusal", |feed| {
        feed.state() == v1::FeedState::Refused
    })
    .await;
    assert_eq!(refused.cursor, "1");
    let status = tenant.status().await;
    let events = status
        .kinds
        .iter()
        .find(|it| it.kind() == v1::RequestKind::Events);
    let error = events.unwrap().last_error.clone().unwrap();
    assert_eq!(
        (error.error_class.as_str(), error.http_status),
        ("cursor_refused", 400)
    );
    assert!(
        error.message.contains("cursor_invalid"),
        "{}",
        error.message
    );
    // Never silently from the start: not until it is asked for.
    let asked = endpoint.arrivals_of(Kind::Events);
    let after_the_first = cursors(&asked).into_iter().skip_while(Option::is_none);
    assert!(after_the_first.clone().count() >= 3);
    endpoint.be_honest(Kind::Events);
    endpoint.write_outside("airports", "b", text("one"));
    tenant.disable("a pause").await;
    tenant.enable().await;
    tenant
        .confirm(intent::commit(
            "c",
            vec![intent::create("airports", "c", &json!({}))],
        ))
        .await;
    assert_eq!(endpoint.arrivals_of(Kind::Events).len(), asked.len());
    let reset = v1::ResetFeedRequest {
        name: "dataSources/crm".to_owned(),
        cursor: "1".to_owned(),
        actor: "ann".to_owned(),
    };
    let status = tenant
        .sources()
        .reset_feed(reset)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(status.feed.unwrap().state(), v1::FeedState::Polling);
    taken(&tenant, 2).await;
    let last = endpoint.arrivals_of(Kind::Events);
    assert_eq!(last[asked.len()].body["cursor"], "1");
}
