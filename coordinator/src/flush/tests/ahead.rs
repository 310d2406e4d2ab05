use std::time::Duration;

use sqlx::{Executor, PgConnection};

use super::*;

/// Holds the head, so that an append waits.
async fn held(scratch: &Scratch) -> sqlx::Transaction<'static, sqlx::Postgres> {
    let mut holder = scratch.store.reads.begin().await.unwrap();
    let patient = "SET LOCAL idle_in_transaction_session_timeout = 0";
    holder.execute(patient).await.unwrap();
    let hold = "SELECT version FROM heads WHERE org_id = 'acme' FOR UPDATE";
    holder.execute(hold).await.unwrap();
    holder
}

/// Waits until so many sessions ran, or run, a statement of this name last.
async fn ran(scratch: &Scratch, name: &str, state: &str) {
    let sql = "SELECT count(*) FROM pg_stat_activity
               WHERE query LIKE '-- ' || $1 || '%' AND state = $2";
    loop {
        let count: i64 = sqlx::query_scalar(sql)
            .bind(name)
            .bind(state)
            .fetch_one(&scratch.store.reads)
            .await
            .unwrap();
        if count > 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A call, on its way.
fn submit(node: &Flushers, command: Command) -> tokio::task::JoinHandle<Result<Reply, Error>> {
    let node = node.clone();
    #[expect(clippy::disallowed_methods, reason = "its caller waits for it")]
    tokio::spawn(async move { node.submit(&organization(), command).await })
}

/// Submits a commit whose append waits, and one behind it that is decided meanwhile.
async fn both(
    scratch: &Scratch,
    node: &Flushers,
    behind: Command,
) -> [tokio::task::JoinHandle<Result<Reply, Error>>; 2] {
    let first = submit(node, create("a", "notes", "1"));
    ran(scratch, "append", "active").await;
    let second = submit(node, behind);
    ran(scratch, "read", "idle").await;
    [first, second]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_decided_ahead_rests_on_the_append_in_flight() {
    for (kind, expected) in [
        (OperationKind::Update, Some(43)),
        (OperationKind::Delete, Some(43)),
        (OperationKind::Create, None),
    ] {
        let scratch = Scratch::start().await;
        let node = prepared(&scratch).await;
        let holder = held(&scratch).await;
        let [first, second] = both(&scratch, &node, of_note("b", "1", kind)).await;
        holder.rollback().await.unwrap();
        let first = first.await.unwrap().unwrap();
        assert!(matches!(first, Reply::Confirmed(_)), "{first:?}");
        match (second.await.unwrap().unwrap(), expected) {
            (Reply::Confirmed(receipt), Some(position)) => {
                assert_eq!(receipt.deltas[0].sync_id, position);
                let recorded = scratch.store.receipt(&organization(), "b").await.unwrap();
                assert_eq!(recorded, Some(*receipt));
            }
            (Reply::Refused(refusal), None) => assert_eq!(refusal.reason, "entity_exists"),
            (other, _) => panic!("{kind:?}: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_answered_although_the_next_one_is_still_being_read() {
    let scratch = Scratch::start().await;
    let node = prepared(&scratch).await;
    let holder = held(&scratch).await;
    let first = submit(&node, create("a", "notes", "1"));
    ran(&scratch, "append", "active").await;
    // Gets its lock when that append has ended; whoever wants to read meanwhile waits behind it.
    let mut locker = scratch.store.reads.begin().await.unwrap();
    #[expect(clippy::disallowed_methods, reason = "it is waited for")]
    let locking = tokio::spawn(async move {
        let lock = "-- lock
                    LOCK TABLE managed_rows";
        locker.execute(lock).await.unwrap();
        locker
    });
    ran(&scratch, "lock", "active").await;
    let second = submit(&node, create("b", "notes", "2"));
    ran(&scratch, "read", "active").await;
    let reading = "SELECT query_start FROM pg_stat_activity
                   WHERE query LIKE '-- read%' AND state = 'active'";
    let reading = || sqlx::query_scalar(reading).fetch_one(&scratch.store.reads);
    let begun: OffsetDateTime = reading().await.unwrap();
    holder.rollback().await.unwrap();
    let first = first.await.unwrap();
    assert!(matches!(first, Ok(Reply::Confirmed(_))), "{first:?}");
    // It was not given up meanwhile.
    assert_eq!(reading().await.unwrap(), begun);
    locking.await.unwrap().rollback().await.unwrap();
    let second = second.await.unwrap();
    assert!(matches!(second, Ok(Reply::Confirmed(_))), "{second:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_decided_ahead_is_decided_again_when_another_node_was_first() {
    let scratch = Scratch::start().await;
    let node = prepared(&scratch).await;
    let mut holder = held(&scratch).await;
    let behind = of_note("b", "1", OperationKind::Update);
    let [first, second] = both(&scratch, &node, behind).await;
    // As another node's append does.
    let other: &mut PgConnection = &mut holder;
    let moved = "UPDATE heads SET version = version + 1, last_sync_id = last_sync_id + 1;
                 INSERT INTO managed_rows VALUES ('acme', 'notes', '1', '{\"id\": \"1\", \"n\": 7}', 42);";
    other.execute(sqlx::raw_sql(moved)).await.unwrap();
    holder.commit().await.unwrap();
    let first = first.await.unwrap().unwrap();
    assert!(matches!(first, Reply::Refused(_)), "{first:?}");
    let Reply::Confirmed(receipt) = second.await.unwrap().unwrap() else {
        panic!("an update of a row that is there")
    };
    assert_eq!(receipt.deltas[0].sync_id, 43);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_into_a_batch_that_lost_its_race_waits_for_its_turn() {
    let scratch = Scratch::start().await;
    let node = prepared(&scratch).await;
    let mut holder = held(&scratch).await;
    let mut large = create("a", "notes", "1");
    if let Command::Accept(accept) = &mut large {
        accept.weight = BATCH_WEIGHT;
    }
    let first = submit(&node, large);
    ran(&scratch, "append", "active").await;
    // Not dealt with ahead: it is for a source.
    let second = submit(&node, create("b", "airports", "2"));
    let waits = || {
        let waiting = node.shared.lock();
        let queue = waiting.get(&organization());
        queue.is_some_and(|queue| !queue.submitted.commands.is_empty())
    };
    while !waits() {
        tokio::task::yield_now().await;
    }
    // As another node's append does.
    let other: &mut PgConnection = &mut holder;
    let moved = "UPDATE heads SET version = version + 1";
    other.execute(moved).await.unwrap();
    holder.commit().await.unwrap();
    let first = first.await.unwrap();
    assert!(matches!(first, Ok(Reply::Confirmed(_))), "{first:?}");
    let second = second.await.unwrap();
    assert!(matches!(second, Ok(Reply::Queued(..))), "{second:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_lost_its_race_takes_along_what_has_come_since() {
    let scratch = Scratch::start().await;
    let node = prepared(&scratch).await;
    let mut holder = held(&scratch).await;
    let [first, second] = both(&scratch, &node, create("b", "notes", "2")).await;
    // As another node's append does.
    let other: &mut PgConnection = &mut holder;
    let moved = "UPDATE heads SET version = version + 1";
    other.execute(moved).await.unwrap();
    holder.commit().await.unwrap();
    for reply in [first, second] {
        let reply = reply.await.unwrap().unwrap();
        assert!(matches!(reply, Reply::Confirmed(_)), "{reply:?}");
    }
    let appends = "SELECT count(DISTINCT xmin::text) FROM commits";
    let appends: i64 = sqlx::query_scalar(appends)
        .fetch_one(&scratch.store.reads)
        .await
        .unwrap();
    assert_eq!(appends, 1);
}
