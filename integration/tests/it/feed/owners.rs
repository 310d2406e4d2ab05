//! Several nodes over one feed.

use axum::http::StatusCode;
use integration::app::{Flags, intent};
use integration::endpoint::{Answer, Reply};
use nix::sys::signal::Signal;

use super::*;

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_demo");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_reader_that_wakes_up_takes_nothing_in() {
    let app = TestApp::without_nodes(Flags::default()).await;
    let owner = app.spawn_node(EXECUTABLE).await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = Tenant::create(owner.address(), "acme").await;
    endpoint.set_keys(&[tenant.key()]);
    tenant.prepare(&Source::at(&endpoint)).await;
    endpoint.write_outside("airports", "a", text("one"));
    taken(&tenant, 1).await;
    let other = app.spawn_node(EXECUTABLE).await;
    let (polled, gate) = (Gate::closed(), Gate::closed());
    let answer = Answer::honest().once_open(&polled);
    endpoint.script(Kind::Events, answer.replied_once_open(&gate));
    waited_at("a poll", &polled).await;
    endpoint.write_outside("airports", "b", text("one"));
    polled.open();
    waited_at("its page, with the event", &gate).await;
    owner.signal(Signal::SIGSTOP);
    let elsewhere = tenant.at(other.address());
    taken(&elsewhere, 2).await;
    endpoint.write_outside("airports", "b", text("two"));
    let there = taken(&elsewhere, 3).await;
    gate.open();
    owner.signal(Signal::SIGCONT);
    eventually("the frozen node to notice", async || {
        owner.log().contains("fenced").then_some(())
    })
    .await;
    let stands = feed(&elsewhere).await;
    assert_eq!((&stands.cursor, stands.taken_count), (&there.cursor, 3));
    let texts: Vec<_> = log(&app).await.iter().map(Delta::text).collect();
    assert_eq!(texts, ["one", "one", "two"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_is_read_on_where_its_reader_was_killed() {
    let app = TestApp::without_nodes(Flags::default()).await;
    let mut owner = app.spawn_node(EXECUTABLE).await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = Tenant::create(owner.address(), "acme").await;
    endpoint.set_keys(&[tenant.key()]);
    tenant.prepare(&Source::at(&endpoint)).await;
    let other = app.spawn_node(EXECUTABLE).await;
    for number in 0..300 {
        endpoint.publish(event(&number.to_string(), &number.to_string(), "one"));
    }
    taken(&tenant, 1).await;
    owner.kill();
    for number in 300..400 {
        endpoint.publish(event(&number.to_string(), &number.to_string(), "one"));
    }
    let elsewhere = tenant.at(other.address());
    taken(&elsewhere, 400).await;
    let rows: Vec<_> = log(&app).await.into_iter().map(|it| it.row_id).collect();
    assert_eq!(
        rows,
        (0..400)
            .map(|number| number.to_string())
            .collect::<Vec<_>>()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_are_to_be_read_again_are_read_by_the_next_owner() {
    let app = TestApp::without_nodes(Flags::default()).await;
    let mut owner = app.spawn_node(EXECUTABLE).await;
    let endpoint = Endpoint::start("").await.unwrap();
    let tenant = Tenant::create(owner.address(), "acme").await;
    endpoint.set_keys(&[tenant.key()]);
    let source = Source {
        retry_delays: vec![Duration::from_secs(5); 3],
        ..Source::at(&endpoint)
    };
    tenant.prepare(&source).await;
    // The commit is applied, and changed by somebody else before anybody here hears of it.
    endpoint.hold(Kind::Load);
    let reply = Reply::Fixed(StatusCode::SERVICE_UNAVAILABLE, Vec::new(), Vec::new());
    endpoint.script(Kind::Commit, Answer::applied_but(reply));
    let create = intent::create("airports", "a", &json!({"text": "ours"}));
    let create = intent::queued("create-a", vec![create]);
    tenant.commit(create.clone()).await.unwrap();
    tenant.ended_attempts("create-a", 1).await;
    endpoint.write_outside("airports", "a", text("theirs, later"));
    taken(&tenant, 1).await;
    tenant.confirm(create).await;
    endpoint.wait_for_arrivals(Kind::Load, 1).await;
    assert_eq!(log(&app).await.last().unwrap().text(), "ours");
    let other = app.spawn_node(EXECUTABLE).await;
    owner.kill();
    endpoint.release(Kind::Load);
    eventually("the log to end on what the source holds", async || {
        let last = log(&app).await.pop().unwrap();
        (last.text() == "theirs, later").then_some(())
    })
    .await;
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM rereads")
        .fetch_one(&app.pool())
        .await
        .unwrap();
    assert_eq!(left, 0);
    drop(other);
}
