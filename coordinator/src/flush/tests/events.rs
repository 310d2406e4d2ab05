//! Events through the database: what is written is what is read.

use backends::operation::Change;

use super::*;
use crate::decide::{EchoOf, ExternalEvent, Misfit, Operator, Step, TakeEvents, Taken, lane};
use crate::domain::FeedState;
use crate::store::feeds::{self, Named, Push};

fn event(id: &str, row: &str) -> ExternalEvent {
    ExternalEvent {
        id: Some(id.to_owned()),
        change: Ok(Change {
            operation: None,
            kind: OperationKind::Update,
            model: "airports".to_owned(),
            id: row.to_owned(),
            row: Some(json!({"id": row, "n": 1}).try_into().unwrap()),
            transaction_id: None,
        }),
        bare: false,
        loaded: false,
        lane: lane(&organization(), "airports", row),
        echoes: Vec::new(),
        again: false,
        known: None,
        pushed: None,
    }
}

fn take(events: Vec<ExternalEvent>, step: Step) -> TakeEvents {
    TakeEvents {
        source: "crm".to_owned(),
        epoch: 0,
        schema_version: 1,
        events,
        unread: BTreeSet::new(),
        behind: false,
        floor: i64::MAX,
        step,
        caught_up: true,
    }
}

async fn taken(node: &Flushers, take: TakeEvents) -> Taken {
    let reply = node
        .submit(&organization(), Command::TakeEvents(take))
        .await;
    match reply.unwrap() {
        Reply::Taken(taken) => *taken,
        reply => panic!("not taken: {reply:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_reads_back_as_it_was_written() {
    let scratch = Scratch::start().await;
    let node = prepared(&scratch).await;
    let cursor = |from: Option<&str>, to: &str| Step::Newest {
        from: from.map(str::to_owned),
        to: Some(to.to_owned()),
    };
    let misfit = ExternalEvent {
        change: Err(Misfit {
            reason: "model_unknown".to_owned(),
            message: "no such model".to_owned(),
            event: "{\"id\":\"m\"}".to_owned(),
        }),
        ..event("m", "1")
    };
    let first = take(vec![event("a", "1"), misfit], cursor(None, "{\"c,1\"}"));
    taken(&node, first).await;
    let second = take(vec![event("b", "2")], cursor(Some("{\"c,1\"}"), "c2"));
    let second = taken(&node, second).await;
    let look = scratch
        .store
        .feed(&organization(), "crm")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(look.feed.as_ref(), Some(&second.feed));
    assert_eq!(second.feed.trail.passed().len(), 2);
    assert_eq!((second.feed.taken, second.feed.quarantined), (2, 1));
    // The same again is known, by either page.
    let again = take(
        vec![event("a", "1"), event("m", "1"), event("b", "2")],
        Step::Stay,
    );
    assert_eq!(taken(&node, again).await.new, 0);
    let reached = Step::Durable {
        from: None,
        to: "c2".to_owned(),
    };
    let settled = taken(&node, take(Vec::new(), reached)).await.feed;
    assert!(settled.trail.is_settled());
    let look = scratch
        .store
        .feed(&organization(), "crm")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(look.feed, Some(settled));
    let listed =
        |before| feeds::quarantined(&scratch.store, organization(), "crm".to_owned(), before, 9);
    let listed_all = listed(None).await.unwrap();
    assert_eq!(
        (listed_all.len(), listed_all[0].reason.as_str()),
        (1, "model_unknown")
    );
    let after = (listed_all[0].seen_at, listed_all[0].event_id.clone());
    assert_eq!(listed(Some(after)).await.unwrap(), []);
    let none = taken(&node, take(Vec::new(), Step::Stop(FeedState::None))).await;
    assert_eq!(none.feed.state, FeedState::None);
}

#[tokio::test(flavor = "multi_thread")]
async fn pushed_events_wait_in_order_until_they_are_taken_in() {
    let scratch = Scratch::start().await;
    let node = prepared(&scratch).await;
    let (store, crm) = (&scratch.store, || "crm".to_owned());
    let push = |source: &str, count: usize| {
        let events = (0..count).map(|number| number.to_string()).collect();
        feeds::push(store, organization(), source.to_owned(), events)
    };
    assert_eq!(push("nobody", 1).await.unwrap(), Push::NoSource);
    assert_eq!(push("crm", 3).await.unwrap(), Push::Kept);
    let batch = async |bounds| {
        let batch = store.pushed_batch(&organization(), "crm", bounds).await;
        batch.unwrap()
    };
    let waiting = batch((9, 1_000)).await;
    let texts: Vec<_> = waiting.iter().map(|one| one.event.as_str()).collect();
    assert_eq!(texts, ["0", "1", "2"]);
    assert_eq!(
        [batch((9, 2)).await.len(), batch((9, 0)).await.len()],
        [2, 1]
    );

    let owner = uuid::Uuid::new_v4();
    assert_eq!(store.waiting_feeds(owner).await.unwrap(), []);
    let claim = Control::ClaimSource {
        source: crm(),
        node: owner,
        gone: None,
    };
    node.submit(&organization(), Command::Control(claim))
        .await
        .unwrap();
    assert_eq!(
        store.waiting_feeds(owner).await.unwrap(),
        [(organization(), crm())]
    );

    let pushed = waiting
        .iter()
        .zip(["a", "b", "a"])
        .map(|(one, id)| ExternalEvent {
            pushed: Some(one.position),
            ..event(id, id)
        });
    let all = TakeEvents {
        epoch: 1,
        ..take(pushed.collect(), Step::Stay)
    };
    let all = taken(&node, all).await;
    assert_eq!((all.new, all.feed.duplicates), (2, 1));
    assert_eq!(batch((9, 9)).await, []);
    assert_eq!(store.waiting_feeds(owner).await.unwrap(), []);

    scratch
        .run("INSERT INTO pushed_events (org_id, source_id, event) SELECT 'acme', 'crm', '' FROM generate_series(1, 100000)")
        .await;
    assert_eq!(push("crm", 1).await.unwrap(), Push::TooDeep);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_goes_however_many_events_it_leaves_and_they_follow() {
    let scratch = Scratch::start().await;
    let node = prepared(&scratch).await;
    taken(&node, take(vec![event("a", "1")], Step::Stay)).await;
    scratch
        .run(
            "INSERT INTO feed_events SELECT 'acme', 'crm', 'e' || n, clock_timestamp()
             FROM generate_series(1, 25000) AS n;
             INSERT INTO quarantined_events
             SELECT 'acme', 'crm', event_id, seen_at, 'r', 'm', '{}' FROM feed_events",
        )
        .await;
    // Whoever had to delete an event with the source would wait for this one, in vain.
    let mut held = scratch.store.reads.begin().await.unwrap();
    sqlx::query("SELECT FROM feed_events WHERE event_id = 'e7' FOR UPDATE")
        .execute(&mut *held)
        .await
        .unwrap();
    let operator = Operator {
        key_id: uuid::Uuid::nil(),
        actor: String::new(),
    };
    let delete = Control::DeleteSource {
        source: "crm".to_owned(),
        schema_version: 1,
        named: false,
    };
    let delete = Command::Control(Control::By(operator, Box::new(delete)));
    let reply = node.submit(&organization(), delete).await.unwrap();
    assert!(matches!(reply, Reply::Done), "{reply:?}");
    held.rollback().await.unwrap();

    // One that is made anew knows none of them, and keeps its own.
    let create = Control::CreateSource("crm".to_owned(), settings());
    let made = node.submit(&organization(), Command::Control(create)).await;
    assert!(matches!(made.unwrap(), Reply::Done));
    let again = taken(&node, take(vec![event("a", "1")], Step::Stay)).await;
    assert_eq!(again.new, 1);
    let again = taken(&node, take(vec![event("a", "1")], Step::Stay)).await;
    assert_eq!(again.new, 0);
    let listed = feeds::quarantined(&scratch.store, organization(), "crm".to_owned(), None, 9);
    assert_eq!(listed.await.unwrap(), []);

    assert_eq!(left_after_a_round(&scratch).await, 50_002);
    scratch.run("DELETE FROM data_sources").await;
    assert_eq!(left_after_a_round(&scratch).await, 0);
}

/// How many events retention leaves, of any kind.
async fn left_after_a_round(scratch: &Scratch) -> i64 {
    let retention = crate::config::Retention {
        delta_days: 30,
        attempt_days: 30,
        managed_commit_days: 30,
        source_commit_days: None,
        feed_event_days: 35,
        quarantined_event_days: 35,
        action_days: 400,
    };
    let metrics = Metrics::noop();
    let round = crate::retention::round(&scratch.store, retention, &metrics);
    round.await.unwrap();
    let count =
        "SELECT (SELECT count(*) FROM feed_events) + (SELECT count(*) FROM quarantined_events)";
    let count = sqlx::query_scalar(count).fetch_one(&scratch.store.reads);
    count.await.unwrap()
}

/// Places in the inbox, and whether the rows are theirs.
fn members(found: Vec<Option<EchoOf>>) -> Vec<Option<(Option<i64>, Option<bool>)>> {
    let members = found.into_iter();
    members
        .map(|one| one.map(|one| (one.sequence, one.member)))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_that_events_name_are_known_by_their_rows() {
    let scratch = Scratch::start().await;
    let node = prepared(&scratch).await;
    let named = |client_tx_id: &str, id: &str| Named {
        client_tx_id: client_tx_id.to_owned(),
        model: "airports".to_owned(),
        id: id.to_owned(),
        lane: lane(&organization(), "airports", id),
    };
    let organization = organization();
    let submit = |command| node.submit(&organization, command);
    let claim = Control::ClaimSource {
        source: "crm".to_owned(),
        node: uuid::Uuid::new_v4(),
        gone: None,
    };
    submit(Command::Control(claim)).await.unwrap();
    submit(create("p", "airports", "1")).await.unwrap();
    submit(create("m", "notes", "1")).await.unwrap();
    let asked = || {
        vec![
            named("p", "1"),
            named("p", "2"),
            named("m", "1"),
            named("x", "1"),
        ]
    };
    let known = async || {
        let known = scratch.store.echoed_commits(&organization, "crm", asked());
        members(known.await.unwrap())
    };
    let pending = [
        Some((Some(1), Some(true))),
        Some((Some(1), Some(false))),
        None,
        None,
    ];
    assert_eq!(known().await, pending);
    let start = start(1, uuid::Uuid::new_v4());
    let Reply::Started(started) = submit(start).await.unwrap() else {
        panic!("not started")
    };
    let change = event("e", "1").change.unwrap();
    let settle = Settle {
        client_tx_id: "p".to_owned(),
        outcome: Outcome::Applied(vec![change]),
        ..busy(&started)
    };
    submit(Command::Settle(settle)).await.unwrap();
    assert_eq!(known().await, pending);
}
