//! Statements for several organizations: each batch has its own verdict.

use futures_util::future::join_all;

use super::*;
use crate::decide::{Append, State};

/// As many as one statement serves, so that it has every place.
const ORGANIZATIONS: i64 = 64;

/// Organizations `org-0`, `org-1`, … that have a schema.
async fn crowd(scratch: &Scratch) -> Vec<OrganizationId> {
    crate::migrate::partitions::ensure(&scratch.store.reads)
        .await
        .unwrap();
    scratch
        .run(
            "INSERT INTO organizations (org_id, display_name, mode)
             SELECT 'org-' || number, 'One', 'test' FROM generate_series(0, 63) AS number;
             INSERT INTO heads (org_id, last_sync_id, schema_version)
             SELECT 'org-' || number, number, 1 FROM generate_series(0, 63) AS number",
        )
        .await;
    (0..ORGANIZATIONS)
        .map(|number| OrganizationId::new(&format!("org-{number}")))
        .collect()
}

async fn count(scratch: &Scratch, sql: &'static str) -> i64 {
    let counted = sqlx::query_scalar(sql).fetch_one(&scratch.store.reads);
    counted.await.unwrap()
}

/// Reads and decides a new note, as far as its append.
async fn decided(node: &Flushers, whose: &OrganizationId) -> (State, Append) {
    let command = create("a", "notes", "1");
    let mut touched = Touched::default();
    command.touch(&mut touched);
    let read = node.shared.read_shared(whose, &touched).await;
    let mut state = read.expect("it is there");
    let commands = std::slice::from_ref(&command);
    let (replies, append) = crate::decide::decide(whose, &mut state, commands);
    assert!(matches!(replies[0], Reply::Confirmed(_)), "{replies:?}");
    (state, append)
}

/// All flushers are there before the first of them runs, since they share this test's thread.
#[tokio::test]
async fn a_crowd_shares_statements_and_each_organization_has_its_own_log() {
    let scratch = Scratch::start().await;
    let organizations = crowd(&scratch).await;
    let node = node(&scratch);
    let submitted = organizations
        .iter()
        .map(|whose| node.submit(whose, create("a", "notes", "1")));
    for (number, reply) in join_all(submitted).await.into_iter().enumerate() {
        let Reply::Confirmed(receipt) = reply.unwrap() else {
            panic!("a new note")
        };
        let whose = &organizations[number];
        let position = i64::try_from(number).unwrap() + 1;
        assert_eq!(receipt.deltas[0].sync_id, position);
        let recorded = scratch.store.receipt(whose, "a").await.unwrap();
        assert_eq!(recorded, Some(*receipt));
    }
    let transactions = "SELECT count(DISTINCT xmin::text) FROM managed_rows";
    assert_eq!(count(&scratch, transactions).await, 1);
    // Rows of one key are each organization's own.
    let archived = organizations[..4]
        .iter()
        .map(|whose| node.submit(whose, of_note("b", "1", OperationKind::Archive)));
    for reply in join_all(archived).await {
        assert!(matches!(reply, Ok(Reply::Confirmed(_))), "{reply:?}");
    }
    let transactions = "SELECT count(DISTINCT xmin::text) FROM managed_rows
                        WHERE archived_at IS NOT NULL";
    assert_eq!(count(&scratch, transactions).await, 1);
    let archived = "SELECT count(*) FROM managed_rows WHERE archived_at IS NOT NULL
                    AND org_id IN ('org-0', 'org-1', 'org-2', 'org-3')";
    assert_eq!(count(&scratch, archived).await, 4);
    let all = "SELECT count(*) FROM managed_rows WHERE archived_at IS NULL";
    assert_eq!(count(&scratch, all).await, ORGANIZATIONS - 4);
    // What an organization has is known to its next batch, too.
    let again = organizations
        .iter()
        .map(|whose| node.submit(whose, create("a", "notes", "1")));
    for reply in join_all(again).await {
        assert!(matches!(reply, Ok(Reply::Replay(_))), "{reply:?}");
    }
}

#[tokio::test]
async fn on_a_sharded_database_no_statement_serves_two_organizations() {
    let scratch = Scratch::start().await;
    let organizations = crowd(&scratch).await;
    let node = node_on(scratch.store.clone());
    let submitted = organizations
        .iter()
        .map(|whose| node.submit(whose, create("a", "notes", "1")));
    for reply in join_all(submitted).await {
        assert!(matches!(reply, Ok(Reply::Confirmed(_))), "{reply:?}");
    }
    let transactions = "SELECT count(DISTINCT xmin::text) FROM managed_rows";
    assert_eq!(count(&scratch, transactions).await, ORGANIZATIONS);
}

#[tokio::test]
async fn who_lost_a_race_or_whose_head_is_held_is_passed_over_and_nobody_else() {
    let scratch = Scratch::start().await;
    let organizations = crowd(&scratch).await;
    let node = node(&scratch);
    let [free, moved, held] = [0, 1, 2].map(|number| &organizations[number]);
    let mut batches = Vec::new();
    for whose in [free, moved, held] {
        batches.push((whose, decided(&node, whose).await));
    }
    let other = node.submit(moved, create("b", "notes", "2")).await;
    assert!(matches!(other, Ok(Reply::Confirmed(_))), "{other:?}");
    let mut holder = scratch.store.reads.begin().await.unwrap();
    sqlx::query("SELECT FROM heads WHERE org_id = 'org-2' FOR UPDATE")
        .execute(&mut *holder)
        .await
        .unwrap();
    let appended = batches
        .into_iter()
        .map(|(whose, (state, append))| node.shared.append_shared(whose, state, append));
    let verdicts = join_all(appended).await.into_iter();
    let verdicts: Vec<_> = verdicts
        .map(|it| it.map(|(written, _)| written.is_some()))
        .collect();
    assert_eq!(verdicts, [Some(true), Some(false), Some(false)]);
    holder.rollback().await.unwrap();
    let written = "SELECT count(*) FROM commits WHERE client_tx_id = 'a'";
    assert_eq!(count(&scratch, written).await, 1);
    // Both come to their end all the same.
    for whose in [moved, held] {
        let reply = node.submit(whose, create("a", "notes", "1")).await;
        assert!(matches!(reply, Ok(Reply::Confirmed(_))), "{reply:?}");
    }
}

/// Reads and appends take turns on it: whoever waits for its turn keeps no connection.
#[tokio::test]
async fn a_crowd_shares_statements_on_one_connection() {
    let scratch = Scratch::start().await;
    let organizations = crowd(&scratch).await;
    let options = scratch.store.reads.connect_options().as_ref().clone();
    let node = node_on(Store::open(options, 1, 1).sharing(64));
    let writing = organizations.iter().map(async |whose| {
        for number in ["1", "2", "3", "4", "5"] {
            let reply = node.submit(whose, create(number, "notes", number)).await;
            assert!(matches!(reply, Ok(Reply::Confirmed(_))), "{reply:?}");
        }
    });
    join_all(writing).await;
    let transactions = "SELECT count(DISTINCT xmin::text) FROM managed_rows";
    assert!(count(&scratch, transactions).await < ORGANIZATIONS);
}

#[tokio::test]
async fn what_was_given_up_before_its_statement_began_is_not_written() {
    let scratch = Scratch::start().await;
    let organizations = crowd(&scratch).await;
    let node = node(&scratch);
    let mut batches = Vec::new();
    for whose in &organizations[..3] {
        batches.push((whose.clone(), decided(&node, whose).await));
    }
    let mut appending = Vec::new();
    let pool = &node.shared.store.ledger;
    let held = join_all((0..pool.options().get_max_connections()).map(|_| pool.acquire())).await;
    for (whose, (state, append)) in batches {
        let shared = Arc::clone(&node.shared);
        let appended = async move { shared.append_shared(&whose, state, append).await };
        let mut appended = Box::pin(appended);
        assert!(futures_util::poll!(&mut appended).is_pending());
        // The first one's statement waits for a connection, with nobody else in it.
        tokio::task::yield_now().await;
        appending.push(appended);
    }
    drop(appending.remove(1));
    drop(held);
    let written = join_all(appending).await.into_iter();
    assert!(
        written
            .into_iter()
            .all(|it| it.is_some_and(|it| it.0.is_some()))
    );
    let written = "SELECT count(*) FROM commits WHERE org_id IN ('org-0', 'org-2')";
    assert_eq!(count(&scratch, written).await, 2);
    assert_eq!(count(&scratch, "SELECT count(*) FROM commits").await, 2);
}

#[tokio::test]
async fn what_the_database_refuses_fails_alone() {
    let scratch = Scratch::start().await;
    let organizations = crowd(&scratch).await;
    let node = node(&scratch);
    scratch
        .run("ALTER TABLE managed_rows ADD CHECK (org_id <> 'org-3')")
        .await;
    let submitted = organizations
        .iter()
        .map(|whose| node.submit(whose, create("a", "notes", "1")));
    for (number, reply) in join_all(submitted).await.into_iter().enumerate() {
        match reply {
            Ok(Reply::Confirmed(_)) => assert_ne!(number, 3),
            Err(Error::Refused(_)) => assert_eq!(number, 3),
            other => panic!("{number}: {other:?}"),
        }
    }
    // One transaction each, since the one for all was refused.
    let transactions = "SELECT count(DISTINCT xmin::text) FROM managed_rows";
    assert_eq!(count(&scratch, transactions).await, ORGANIZATIONS - 1);
}

#[tokio::test]
async fn large_batches_those_judged_by_views_and_those_of_sources_share_nothing() {
    let shares =
        |commands: &[Command]| crate::flush::several::may_share(commands, &touched(commands));
    let note = |number: usize| create(&number.to_string(), "notes", &number.to_string());
    let notes = |count| (0..count).map(note).collect::<Vec<_>>();
    assert!(shares(&notes(32)));
    assert!(!shares(&notes(33)));
    assert!(!shares(&[note(1), create("a", "airports", "1")]));
    let Command::Accept(mut viewed) = note(1) else {
        unreachable!("a commit is accepted")
    };
    Arc::make_mut(&mut viewed.commit).operations[0].read_at = Some(1);
    assert!(!shares(&[Command::Accept(viewed)]));
    let Command::Accept(mut large) = note(1) else {
        unreachable!("a commit is accepted")
    };
    large.weight = 65 << 10;
    assert!(!shares(&[Command::Accept(large)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_race_for_many_organizations_lose_nothing_and_repeat_nothing() {
    let scratch = Scratch::start().await;
    let organizations = crowd(&scratch).await;
    let nodes = [node(&scratch), node(&scratch)];
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..50 {
        for whose in &organizations[..8] {
            for node in nodes.clone() {
                let command = create(&number.to_string(), "notes", &number.to_string());
                let whose = whose.clone();
                calls.spawn(async move { node.submit(&whose, command).await.unwrap() });
            }
        }
    }
    let replies = calls.join_all().await;
    let confirmed = |reply: &&Reply| matches!(reply, Reply::Confirmed(_));
    let replayed = |reply: &&Reply| matches!(reply, Reply::Replay(_));
    let counts = (
        replies.iter().filter(confirmed).count(),
        replies.iter().filter(replayed).count(),
    );
    assert_eq!(counts, (400, 400));
    let gaps = "SELECT count(*) FROM (
                    SELECT sync_id - lag(sync_id) OVER (PARTITION BY org_id ORDER BY sync_id) AS step
                    FROM deltas
                ) AS steps
                WHERE step <> 1";
    assert_eq!(count(&scratch, gaps).await, 0);
    assert_eq!(count(&scratch, "SELECT count(*) FROM deltas").await, 400);
}
