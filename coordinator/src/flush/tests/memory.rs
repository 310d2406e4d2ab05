//! What a flusher remembers, and what it hands over.

use super::*;

async fn claim(node: &Flushers, owner: uuid::Uuid) {
    let claim = Control::ClaimSource {
        source: "crm".to_owned(),
        node: owner,
        gone: None,
    };
    let reply = node.submit(&organization(), Command::Control(claim)).await;
    assert!(matches!(reply, Ok(Reply::Claimed(_))), "{reply:?}");
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
