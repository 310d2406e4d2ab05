//! After the faults: everything works again, and everything comes to rest.

use std::collections::BTreeMap;
use std::time::Duration;

use nix::sys::signal::Signal;
use proto::v1;
use sqlx::Executor;
use tokio::time::{Instant, sleep};

use super::actors;
use super::client::{Seen, is_definite};
use super::gather;
use super::nemesis::serve_again;
use super::world::World;
use crate::history::{Aftermath, Answer, Event, Write};

/// What is not at rest after so long is stuck. A source that failed is left alone for up to half a
/// minute, since nobody probes it sooner.
const PATIENCE: Duration = Duration::from_secs(90);

/// After this long no copy of a request is under way any more: endpoints take five seconds at most.
const LATE_COPIES: Duration = Duration::from_secs(6);

/// A run cannot wait for the five minutes after which receivers refuse a signature: no copy is under
/// way, so they are over.
const TOLERANCE_IS_OVER: &str = "
UPDATE inbox SET due_at = least(due_at, now()), may_apply_until = now()";

/// How long nothing may come of a commit before it is seen whether an earlier copy is in doubt.
const IN_DOUBT: Duration = Duration::from_secs(15);

/// Lets everybody finish.
pub(super) async fn calm(world: &World) {
    for organization in &world.organizations {
        organization.sinks.iter().for_each(actors::reform);
    }
    end_doubts(world).await;
    for door in 0..world.nodes.len() {
        actors::enable(world, door).await;
    }
}

/// Replaces all nodes at once, and lets the time pass after which no copy of a request can apply.
async fn end_doubts(world: &World) {
    let mut nodes = Vec::new();
    for node in &world.nodes {
        nodes.push(node.lock().await);
    }
    world.fault("all nodes replaced");
    for node in &nodes {
        node.signal(Signal::SIGTERM);
    }
    for node in &mut nodes {
        node.ended().await;
    }
    sleep(LATE_COPIES).await;
    let moved = world.pool.execute(TOLERANCE_IS_OVER).await;
    moved.expect("nothing is harmed any more");
    for node in &mut nodes {
        serve_again(node).await;
    }
}

/// Whether a commit waits, as it must, because an earlier copy of its request may still apply: a busy
/// machine answers late without any harm.
async fn is_in_doubt(world: &World) -> bool {
    sqlx::query_scalar("SELECT EXISTS (SELECT FROM inbox WHERE may_apply_until > now())")
        .fetch_one(&world.pool)
        .await
        .expect("nothing is harmed any more")
}

/// Asks what became of every commit, as a client would, until everything has an answer; what is left
/// then.
pub(super) async fn resolve(
    world: &World,
    clients: &mut [Seen],
    outside: &[(usize, Vec<Event>)],
) -> Aftermath {
    let until = Instant::now() + PATIENCE;
    let mut look = Instant::now() + IN_DOUBT;
    for seen in clients {
        let doors = &world.organizations[seen.organization].doors;
        for (number, write) in seen.writes.iter_mut().enumerate() {
            while !ask(&doors[number % doors.len()], write).await && Instant::now() < until {
                sleep(Duration::from_millis(100)).await;
                if Instant::now() > look && is_in_doubt(world).await {
                    end_doubts(world).await;
                    look = Instant::now() + IN_DOUBT;
                }
            }
        }
    }
    let mut left = left(world).await;
    let told: usize = outside.iter().map(|(_, events)| events.len()).sum();
    while (left.queued > 0 || left.waiting > 0 || !is_told(world, told).await)
        && Instant::now() < until
    {
        sleep(Duration::from_millis(100)).await;
        left = self::left(world).await;
    }
    left
}

/// Whether the answer is final.
async fn ask(door: &crate::app::Tenant, write: &mut Write) -> bool {
    if write.refused.is_some() {
        return true;
    }
    match door.receipt(&write.token).await {
        Ok(receipt) if receipt.dead => {
            let request = v1::RetryCommitsRequest {
                name: receipt.data_source.clone(),
                client_tx_ids: vec![write.token.clone()],
                ..v1::RetryCommitsRequest::default()
            };
            write.reentered = true;
            drop(door.sources().retry_commits(request).await);
            false
        }
        Ok(receipt) => {
            let answer = Answer::of(&receipt);
            write.reentered |= receipt.reenter_time.is_some();
            let settled = answer.is_some();
            write.answers.extend(answer);
            settled
        }
        Err(status) if is_definite(&status) => {
            write.refused = Some(status.message().to_owned());
            true
        }
        Err(_) => false,
    }
}

/// Whether the logs have so many changes made outside, and end on what the endpoints hold: rows that
/// were changed from both sides are read again.
async fn is_told(world: &World, count: usize) -> bool {
    let mut taken_in = 0;
    for organization in &world.organizations {
        let log = gather::whole_log(world, organization).await;
        let log = log.expect("nothing is harmed any more");
        taken_in += log.iter().filter(|it| !it.event.is_empty()).count();
        let ends: BTreeMap<_, _> = log.iter().map(|it| (&it.row, &it.value)).collect();
        let held = gather::held(organization);
        if held
            .iter()
            .any(|(row, value)| ends.get(row) != Some(&value))
        {
            return false;
        }
    }
    taken_in >= count
}

async fn left(world: &World) -> Aftermath {
    let (queued, idle_in_transaction, waiting) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM inbox) + (SELECT count(*) FROM commits WHERE state = 'queued'),
                (SELECT count(*) FROM pg_stat_activity
                 WHERE state LIKE 'idle in transaction%'
                   AND clock_timestamp() - state_change > '5 s'),
                (SELECT count(*) FROM pg_stat_activity
                 WHERE wait_event_type = 'Lock' AND clock_timestamp() - query_start > '2 s')",
    )
    .fetch_one(&world.pool)
    .await
    .expect("nothing is harmed any more");
    Aftermath {
        queued,
        idle_in_transaction,
        waiting,
        resident: Vec::new(),
    }
}
