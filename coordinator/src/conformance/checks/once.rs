//! That a commit takes effect once, however often it is sent.

use backends::data_source::classify::Outcome;
use futures_util::future::join_all;

use super::super::finding::{Finding, describe, ensure, wrong};
use super::super::probe::Probe;
use super::super::sample::carries;
use super::feed;

/// How many copies of a commit race.
const COPIES: usize = 8;

pub(super) async fn repeated(probe: &Probe) -> Result<(), Finding> {
    let commit = probe.commit(vec![probe.create(&probe.new_id())]);
    let first = probe.apply(&commit).await?;
    match probe.send(&commit).await {
        Outcome::Applied(again) if again == first => Ok(()),
        Outcome::Applied(_) => wrong("the repetition got another answer"),
        other => wrong(format!("the repetition: {}", describe(&other))),
    }
}

pub(super) async fn not_executed_again(probe: &Probe) -> Result<(), Finding> {
    let id = probe.created().await?;
    let [first, second] = probe.sample.changes()?;
    let earlier = probe.commit(vec![probe.update(&id, first)]);
    probe.apply(&earlier).await?;
    probe
        .apply(&probe.commit(vec![probe.update(&id, second.clone())]))
        .await?;
    let repetition = probe.send(&earlier).await;
    if carries(&probe.found(&id).await?, &second).is_err() {
        return wrong("the repetition overwrote a later commit");
    }
    ensure(matches!(repetition, Outcome::Applied(_)), || {
        format!("the repetition: {}", describe(&repetition))
    })
}

pub(super) async fn another_intent(probe: &Probe) -> Result<(), Finding> {
    let (id, other) = (probe.new_id(), probe.new_id());
    let commit = probe.commit(vec![probe.create(&id)]);
    probe.apply(&commit).await?;
    let impostor = probe.commit_named(&commit.client_tx_id, vec![probe.create(&other)]);
    let outcome = probe.send(&impostor).await;
    ensure(probe.missing(&other).await?, || {
        "the other intent was executed".to_owned()
    })?;
    match outcome {
        Outcome::Refused { .. } => Ok(()),
        Outcome::Unknown { .. } => wrong("the endpoint answered 200, as to the first intent"),
        outcome => wrong(describe(&outcome)),
    }
}

/// A copy that loses may be told to come back; none may be refused for good, and the feed, if there
/// is one, must tell of one change.
pub(super) async fn raced(probe: &Probe) -> Result<(), Finding> {
    let tail = feed::tail(probe).await;
    let id = probe.created().await?;
    let [change, _] = probe.sample.changes()?;
    let commit = probe.commit(vec![probe.update(&id, change)]);
    let outcomes = join_all((0..COPIES).map(|_| probe.send(&commit))).await;
    let mut answers = Vec::new();
    for outcome in outcomes {
        match outcome {
            Outcome::Applied(changes) => answers.push(changes),
            Outcome::Retry { .. } => {}
            other => return wrong(format!("a copy was not retried: {}", describe(&other))),
        }
    }
    ensure(!answers.is_empty(), || "no copy was applied".to_owned())?;
    ensure(answers.windows(2).all(|pair| pair[0] == pair[1]), || {
        "the copies got different answers".to_owned()
    })?;
    let Ok(tail) = tail else { return Ok(()) };
    let events = feed::after(probe, tail.as_deref()).await?;
    let echoes = events
        .iter()
        .filter(|event| feed::names(event, &commit.client_tx_id))
        .count();
    ensure(echoes <= 1, || {
        format!("{COPIES} copies made {echoes} changes")
    })
}
