//! After the faults: everything works again, and everything comes to rest.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::{join_all, ready};
use futures_util::{StreamExt, stream};
use nix::sys::signal::Signal;
use proto::v1;
use sqlx::Executor;
use tokio::time::{Instant, sleep, timeout};

use super::actors;
use super::client::{Seen, is_definite};
use super::gather;
use super::nemesis::serve_again;
use super::world::World;
use crate::app::Tenant;
use crate::history::{Aftermath, Answer, Event, Write};

/// What is not at rest after so long is stuck.
const PATIENCE: Duration = Duration::from_secs(90);

/// So is that of which nothing more comes for so long, while no source is left alone.
const STANDSTILL: Duration = Duration::from_secs(30);

/// An answer is not waited for longer: another node is asked.
const GIVE_UP: Duration = Duration::from_secs(2);

/// Questions that are asked at once.
const AT_ONCE: usize = 8;

/// After this long no copy of a request is under way any more: endpoints take five seconds at most.
const LATE_COPIES: Duration = Duration::from_secs(6);

/// A run cannot wait for the five minutes after which receivers refuse a signature: no copy is under
/// way, so they are over.
const TOLERANCE_IS_OVER: &str = "
UPDATE inbox SET due_at = least(due_at, now()), may_apply_until = now()";

/// How long nothing may come of a commit before it is seen whether an earlier copy is in doubt.
const IN_DOUBT: Duration = Duration::from_secs(10);

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
    join_all(nodes.iter_mut().map(|it| serve_again(it))).await;
}

/// Whether a source that failed is left alone, and nothing can come of its commits.
async fn is_left_alone(world: &World) -> bool {
    sqlx::query_scalar("SELECT EXISTS (SELECT FROM data_sources WHERE backoff_until > now())")
        .fetch_one(&world.pool)
        .await
        .expect("nothing is harmed any more")
}

/// Whether a commit waits, as it must, because an earlier copy of its request may still apply: a busy
/// machine answers late without any harm.
async fn is_in_doubt(world: &World) -> bool {
    sqlx::query_scalar("SELECT EXISTS (SELECT FROM inbox WHERE may_apply_until > now())")
        .fetch_one(&world.pool)
        .await
        .expect("nothing is harmed any more")
}

/// Asks what became of every commit, as a client would, until everything has an answer and is told of,
/// or nothing more comes; what is left then.
pub(super) async fn resolve(
    world: &World,
    clients: &mut [Seen],
    outside: &[(usize, Vec<Event>)],
) -> Aftermath {
    let told: usize = outside.iter().map(|(_, events)| events.len()).sum();
    let mut open: Vec<Open<'_>> = Vec::new();
    for seen in clients {
        let doors = &world.organizations[seen.organization].doors;
        let writes = seen.writes.iter_mut().enumerate();
        open.extend(writes.map(|(number, it)| (number, &doors[..], it)));
    }
    let until = Instant::now() + PATIENCE;
    let (mut moved, mut looked) = (Instant::now(), Instant::now());
    let (mut round, mut before) = (0, None);
    loop {
        open = ask_all(open, round).await;
        let left = left(world).await;
        let settled = open.is_empty() && left.queued == 0 && left.waiting == 0;
        let untold = if settled {
            untold(world, told).await
        } else {
            usize::MAX
        };
        if untold == 0 || Instant::now() > until {
            return left;
        }
        let now = Some((open.len(), left.queued, untold));
        if now != before {
            before = now;
            (moved, looked) = (Instant::now(), Instant::now());
        } else if is_left_alone(world).await {
            moved = Instant::now();
        }
        if moved.elapsed() > STANDSTILL {
            return left;
        }
        if looked.elapsed() > IN_DOUBT {
            if is_in_doubt(world).await {
                end_doubts(world).await;
                moved = Instant::now();
            }
            looked = Instant::now();
        }
        sleep(Duration::from_millis(100)).await;
        round += 1;
    }
}

/// A commit whose end is not known, by number, and where it may be asked for.
type Open<'a> = (usize, &'a [Tenant], &'a mut Write);

/// Asks once what became of each of these, each time at another node; those that are still open.
async fn ask_all(open: Vec<Open<'_>>, round: usize) -> Vec<Open<'_>> {
    let asked = stream::iter(open).map(async |(number, doors, write)| {
        let door = &doors[(number + round) % doors.len()];
        let answered = timeout(GIVE_UP, ask(door, write)).await;
        (!answered.unwrap_or(false)).then_some((number, doors, write))
    });
    let open = asked.buffer_unordered(AT_ONCE).filter_map(ready);
    open.collect().await
}

/// Whether the answer is final.
async fn ask(door: &Tenant, write: &mut Write) -> bool {
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

/// How many of so many changes made outside the logs do not have, and on how many rows they do not end
/// as the endpoints hold them: rows that were changed from both sides are read again.
async fn untold(world: &World, count: usize) -> usize {
    let (mut taken_in, mut differ) = (0, 0);
    for organization in &world.organizations {
        let log = gather::whole_log(world, organization).await;
        let log = log.expect("nothing is harmed any more");
        taken_in += log.iter().filter(|it| !it.event.is_empty()).count();
        let ends: BTreeMap<_, _> = log.iter().map(|it| (&it.row, &it.value)).collect();
        let held = gather::held(organization);
        let held = held.iter();
        differ += held
            .filter(|(row, value)| ends.get(row) != Some(value))
            .count();
    }
    count.saturating_sub(taken_in) + differ
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
