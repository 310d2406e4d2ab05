//! Several nodes over one feed.

use integration::app::Flags;
use integration::endpoint::{Answer, Gate};
use nix::sys::signal::Signal;

use super::*;

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_demo");

async fn waited_at(what: &str, gate: &Gate) {
    eventually(what, async || gate.is_waited_at().then_some(())).await;
}

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
