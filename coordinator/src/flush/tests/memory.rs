//! What a flusher remembers, and what it hands over.

use super::super::memory::{FRESH, Memory};
use super::*;
use crate::store::clock::DatabaseClock;
use tokio::time::Instant;

async fn claim(node: &Flushers, owner: uuid::Uuid) {
    let claim = Control::ClaimSource {
        source: "crm".to_owned(),
        node: owner,
        gone: None,
    };
    let reply = node.submit(&organization(), Command::Control(claim)).await;
    assert!(matches!(reply, Ok(Reply::Claimed(_))), "{reply:?}");
}

/// A node, and who owns the source.
async fn owned(scratch: &Scratch) -> (Flushers, uuid::Uuid) {
    let (node, owner) = (prepared(scratch).await, uuid::Uuid::new_v4());
    claim(&node, owner).await;
    (node, owner)
}

fn start(owner: uuid::Uuid, sequence: i64) -> Command {
    Command::Start(Start {
        source: "crm".to_owned(),
        epoch: 1,
        sequence,
        node: owner,
        terms: None,
        revision: 0,
        weight: 0,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_remembered_does_not_outlive_an_append_of_another_node() {
    let scratch = Scratch::start().await;
    let (here, there) = (prepared(&scratch).await, node(&scratch));
    let owner = uuid::Uuid::new_v4();
    claim(&here, owner).await;
    let mut flusher = Flusher::new(&here.shared, organization());
    for name in ["1", "2"] {
        round(&mut flusher, create(name, "airports", name), false).await;
    }
    let reply = round(&mut flusher, start(owner, 1), false).await;
    let Reply::Started(started) = reply else {
        panic!("{reply:?}")
    };
    assert_eq!(started.body, "{}");
    let reply = there.submit(&organization(), start(owner, 2)).await;
    assert!(matches!(reply, Ok(Reply::Started(_))), "{reply:?}");
    let reply = round(&mut flusher, start(owner, 2), false).await;
    assert!(matches!(reply, Reply::NotStartable(_)), "{reply:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_receipt_that_is_handed_over_is_the_recorded_one() {
    let scratch = Scratch::start().await;
    let node = prepared(&scratch).await;
    let organization = organization();
    let owner = uuid::Uuid::new_v4();
    claim(&node, owner).await;
    let mut waiter = node.shared.wake.commit(&organization, "a");
    let mut flusher = Flusher::new(&node.shared, organization.clone());
    round(&mut flusher, create("a", "airports", "2"), false).await;
    let Reply::Started(started) = round(&mut flusher, start(owner, 1), false).await else {
        panic!("not started")
    };
    let settle = Settle {
        rows: vec![airport("2")],
        outcome: outcome_of(2),
        ..busy(&started)
    };
    round(&mut flusher, Command::Settle(settle), false).await;
    waiter.rung().await;
    // A ring of another kind takes nothing back.
    node.shared.wake.ring_all();
    let handed = waiter.receipt();
    assert_eq!(handed.as_ref().map(|it| it.deltas.len()), Some(1));
    let recorded = scratch.store.receipt(&organization, "a").await.unwrap();
    assert_eq!(handed, recorded);
}

/// A commit for the source that is applied.
async fn applied(flusher: &mut Flusher<'_>, name: &str, (owner, sequence): (uuid::Uuid, i64)) {
    round(flusher, create(name, "airports", name), false).await;
    let Reply::Started(started) = round(flusher, start(owner, sequence), false).await else {
        panic!("not started")
    };
    let settle = Settle {
        client_tx_id: name.to_owned(),
        sequence,
        rows: vec![airport(name)],
        outcome: outcome_of(2),
        ..busy(&started)
    };
    let reply = round(flusher, Command::Settle(settle), false).await;
    assert!(matches!(reply, Reply::Settled(None, _)), "{reply:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_taken_is_found_although_nobody_looked_for_it() {
    let scratch = Scratch::start().await;
    let (node, owner) = owned(&scratch).await;
    let mut flusher = Flusher::new(&node.shared, organization());
    applied(&mut flusher, "1", (owner, 1)).await;
    let (answer, _reply) = oneshot::channel();
    let mut again = Submitted::one(create("1", "airports", "1"), answer);
    let touched = touched(&again.commands);
    let attempt = Box::pin(flusher.attempt(&mut again, &touched, false)).await;
    assert!(matches!(attempt, Err(Error::Exists(_))), "{attempt:?}");

    // It is read then, and what is new in the same batch is none the worse for it.
    let mut flusher = Flusher::new(&node.shared, organization());
    applied(&mut flusher, "2", (owner, 2)).await;
    let Command::Accept(mut other) = create("2", "airports", "3") else {
        unreachable!("a commit is accepted")
    };
    Arc::make_mut(&mut other.commit).fingerprint = [8; 32];
    let batch = [
        create("2", "airports", "2"),
        Command::Accept(other),
        create("4", "airports", "4"),
    ];
    let mut submitted = Submitted::default();
    let mut replies = Vec::new();
    for command in batch {
        let (answer, reply) = oneshot::channel();
        submitted.append(Submitted::one(command, answer));
        replies.push(reply);
    }
    Box::pin(flusher.flush(submitted, None)).await;
    let replies: Vec<_> = replies
        .iter_mut()
        .map(|reply| reply.try_recv().unwrap().unwrap())
        .collect();
    let [
        Reply::Replay(replayed),
        Reply::Refused(refused),
        Reply::Queued(_, 3),
    ] = &replies[..]
    else {
        panic!("{replies:?}")
    };
    assert_eq!(replayed.state, CommitState::Confirmed);
    assert_eq!(refused.reason, "idempotency_conflict");
    let made = sqlx::query_scalar("SELECT count(*) FROM commits WHERE client_tx_id = '2'");
    let made: i64 = made.fetch_one(&scratch.store.reads).await.unwrap();
    assert_eq!(made, 1);
}

/// As when the answer to a commit was lost, and its caller asks again for as long as it takes.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_came_about_is_not_said_to_have_expired_by_who_does_not_remember_it() {
    let scratch = Scratch::start().await;
    let (node, owner) = owned(&scratch).await;
    let mut flusher = Flusher::new(&node.shared, organization());
    applied(&mut flusher, "1", (owner, 1)).await;
    let Command::Accept(mut again) = create("1", "airports", "1") else {
        unreachable!("a commit is accepted")
    };
    let commit = Arc::make_mut(&mut again.commit);
    commit.expires_at = Some(OffsetDateTime::UNIX_EPOCH);
    let (answer, mut replayed) = oneshot::channel();
    let mut batch = Submitted::one(Command::Accept(again), answer);
    let (answer, mut queued) = oneshot::channel();
    batch.append(Submitted::one(create("2", "airports", "2"), answer));
    Box::pin(flusher.flush(batch, None)).await;
    let replies = (replayed.try_recv().unwrap(), queued.try_recv().unwrap());
    assert!(
        matches!(replies, (Ok(Reply::Replay(_)), Ok(Reply::Queued(_, 2)))),
        "{replies:?}"
    );
}

#[tokio::test]
async fn a_batch_is_recalled_if_all_that_it_touches_is_remembered_and_fresh() {
    let scratch = Scratch::start().await;
    let node = prepared(&scratch).await;
    claim(&node, uuid::Uuid::new_v4()).await;
    let read = async || {
        let commands = [create("read", "airports", "1")];
        let mut round = scratch.store.round().await.unwrap();
        let state = round.read(&organization(), &touched(&commands)).await;
        state.unwrap().unwrap()
    };
    let waited = Duration::from_millis(100);
    let recall_after = |waited, state: State, command: Command| {
        let clock = DatabaseClock::heard_since(Instant::now() - waited, state.now);
        let commands = [command];
        Memory::of(clock, state).recall(&commands, &touched(&commands))
    };
    let recall = |state: State, command: Command| recall_after(waited, state, command);
    let state = read().await;
    let (head, sources) = (state.head, state.sources.clone());
    let recalled = recall(state, create("a", "airports", "1")).unwrap();
    assert_eq!((recalled.head, recalled.sources), (head, sources));
    assert!(recalled.behind >= waited);
    let late = recall_after(FRESH, read().await, create("a", "airports", "1"));
    assert!(late.is_none(), "nobody knows what time it is");

    let Command::Accept(mut viewed) = create("a", "airports", "1") else {
        unreachable!("a commit is accepted")
    };
    Arc::make_mut(&mut viewed.commit).operations[0].read_at = Some(0);
    let unknown = [
        ("a managed row", create("a", "notes", "1")),
        ("when a row changed", Command::Accept(viewed)),
        ("a commit", start(uuid::Uuid::new_v4(), 1)),
    ];
    for (what, command) in unknown {
        assert!(recall(read().await, command).is_none(), "{what}");
    }
    // How far a feed was read moves without the head.
    let state = read().await;
    let clock = DatabaseClock::heard_since(Instant::now(), state.now);
    let mut memory = Memory::of(clock, state);
    tokio::time::pause();
    tokio::time::advance(FRESH).await;
    let commands = [create("a", "airports", "1")];
    assert!(memory.recall(&commands, &touched(&commands)).is_none());
}
