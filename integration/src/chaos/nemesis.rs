//! Does harm under a seed: one fault every few seconds, up to three at a time; and beside them what is
//! too rare to be left to chance ([`custody`]).

mod custody;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sqlx::Executor;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::actors;
use super::gather;
use super::proxy::{Mode, Proxy};
use super::world::{LEASE, NODES, World};
use crate::app::Tenant;
use crate::history::Position;

pub(super) use self::custody::{Custody, brings_about};

/// Faults at a time, at most.
const AT_ONCE: usize = 3;

/// Harms the world for so long, and makes up for it: everything works again afterwards.
pub(super) async fn harm(world: &Arc<World>, length: Duration, seed: u64) {
    let end = Instant::now() + length;
    let mut keepers = JoinSet::new();
    keepers.spawn(operate(Arc::clone(world)));
    keepers.spawn(watch(Arc::clone(world)));
    tokio::join!(
        break_all_kinds(world, end, seed),
        custody::hold_commits(world, end, seed)
    );
}

/// Does one thing after the other, whatever it is, and makes up for each.
async fn break_all_kinds(world: &Arc<World>, end: Instant, seed: u64) {
    let mut random = StdRng::seed_from_u64(!seed);
    let mut faults = JoinSet::new();
    let mut number = 0_u64;
    loop {
        let pause = Duration::from_millis(random.random_range(800..2_500));
        if Instant::now() + pause > end {
            break;
        }
        sleep(pause).await;
        while faults.len() >= AT_ONCE {
            faults.join_next().await;
        }
        number += 1;
        let random = StdRng::seed_from_u64(seed ^ (number << 16));
        faults.spawn(one(Arc::clone(world), random));
    }
    faults.join_all().await;
}

async fn one(world: Arc<World>, mut random: StdRng) {
    let dice = &mut random;
    match dice.random_range(0..25) {
        0..4 => kill_node(&world, dice).await,
        4..8 => freeze_node(&world, dice).await,
        8 => replace_node(&world, dice).await,
        9 => stop_postgres(&world, dice).await,
        10 => kill_backend(&world).await,
        11 => cut_sessions(&world).await,
        12..15 => harm_link(&world, dice).await,
        15..19 => harm_endpoint(&world, dice).await,
        19 => rotate_keys(&world).await,
        20 => hold_snapshot(&world, dice).await,
        #[cfg(feature = "broken")]
        21 => skew_clock(&world, dice).await,
        22..24 => expire_log(&world, dice).await,
        _ => close_endpoint(&world, dice).await,
    }
}

async fn pause(random: &mut StdRng, milliseconds: std::ops::Range<u64>) {
    sleep(Duration::from_millis(random.random_range(milliseconds))).await;
}

async fn kill_node(world: &World, random: &mut StdRng) {
    let node = &world.nodes[random.random_range(0..NODES)];
    let Ok(mut node) = node.try_lock() else {
        return;
    };
    world.fault("node killed");
    node.kill();
    pause(random, 0..3_000).await;
    serve_again(&mut node).await;
}

/// It does not start while Postgres is away, and is started again as a supervisor would.
pub(super) async fn serve_again(node: &mut crate::app::TestNode) {
    while let Err(why) = node.try_restart().await {
        tracing::debug!(why, "a node does not start");
        sleep(Duration::from_millis(200)).await;
    }
}

async fn freeze_node(world: &World, random: &mut StdRng) {
    let node = &world.nodes[random.random_range(0..NODES)];
    let Ok(node) = node.try_lock() else {
        return;
    };
    world.fault("node frozen");
    node.signal(Signal::SIGSTOP);
    pause(random, 300..6_000).await;
    node.signal(Signal::SIGCONT);
}

async fn replace_node(world: &World, random: &mut StdRng) {
    let node = &world.nodes[random.random_range(0..NODES)];
    let Ok(mut node) = node.try_lock() else {
        return;
    };
    world.fault("node replaced");
    node.stop().await;
    serve_again(&mut node).await;
}

async fn stop_postgres(world: &World, random: &mut StdRng) {
    let Ok(mut held) = world.postgres.try_lock() else {
        return;
    };
    let Some(cluster) = held.take() else {
        return;
    };
    world.fault("Postgres stopped");
    // Immediately: its sessions are cut off in the middle of whatever they do.
    signal(cluster.pid(), Signal::SIGQUIT);
    cluster.ended().await;
    drop(cluster);
    pause(random, 0..1_500).await;
    let started = world.start_postgres().await;
    *held = Some(started.expect("Postgres starts again in its folder"));
}

fn signal(pid: i32, signal: Signal) {
    if let Err(error) = kill(Pid::from_raw(pid), signal) {
        tracing::debug!(%error, "it has ended by itself");
    }
}

/// Postgres ends all other sessions then, and recovers.
async fn kill_backend(world: &World) {
    let Ok(_held) = world.postgres.try_lock() else {
        return;
    };
    let backend: Result<i32, _> = sqlx::query_scalar(
        "SELECT pid FROM pg_stat_activity
         WHERE datname = current_database() AND application_name = 'coordinator'
         ORDER BY random() LIMIT 1",
    )
    .fetch_one(&world.pool)
    .await;
    if let Ok(backend) = backend {
        world.fault("backend killed");
        signal(backend, Signal::SIGKILL);
    }
}

async fn cut_sessions(world: &World) {
    let cut = sqlx::query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid() AND random() < 0.3",
    );
    if cut.execute(&world.pool).await.is_ok() {
        world.fault("sessions cut");
    }
}

async fn harm_link(world: &World, random: &mut StdRng) {
    let link = &world.links[random.random_range(0..NODES)];
    let kinds = ["link slow", "link held", "link dead", "link reset"];
    disturb(world, link, (kinds, 500..4_000), random).await;
}

async fn harm_endpoint(world: &World, random: &mut StdRng) {
    let proxy = any_endpoint(world, random);
    let kinds = [
        "endpoint slow",
        "endpoint held",
        "endpoint dead",
        "endpoint reset",
    ];
    disturb(world, proxy, (kinds, 500..4_000), random).await;
}

async fn close_endpoint(world: &World, random: &mut StdRng) {
    let proxy = any_endpoint(world, random);
    world.fault("endpoint down");
    proxy.set(Mode::Reset);
    pause(random, 4_000..7_000).await;
    proxy.set(Mode::Pass);
}

fn any_endpoint<'a>(world: &'a World, random: &mut StdRng) -> &'a Proxy {
    let sinks = &world.organizations[0].sinks;
    &sinks[random.random_range(0..sinks.len())].proxy
}

async fn disturb(
    world: &World,
    proxy: &Proxy,
    (kinds, length): ([&'static str; 4], std::ops::Range<u64>),
    random: &mut StdRng,
) {
    let slow = Mode::Delay(Duration::from_millis(random.random_range(5..80)));
    let modes = [slow, Mode::Hold, Mode::Blackhole, Mode::Reset];
    let choice = random.random_range(0..modes.len());
    world.fault(kinds[choice]);
    proxy.set(modes[choice]);
    pause(random, length).await;
    proxy.set(Mode::Pass);
}

/// A key is added, endpoints are given it once every node signs with it, and the one before the last
/// is revoked. The key that clients call with stays.
async fn rotate_keys(world: &World) {
    let Ok(mut keys) = world.keys.try_lock() else {
        return;
    };
    let organization = &world.organizations[0];
    let request = proto::v1::CreateApiKeyRequest {
        parent: format!("organizations/{}", organization.name),
        display_name: String::new(),
    };
    let made = anywhere(&organization.doors, |door| {
        let request = request.clone();
        async move { door.admin().create_api_key(request).await.ok() }
    });
    let Some(made) = made.await else {
        return;
    };
    world.fault("key exchanged");
    let made = made.into_inner();
    // Nodes look for new keys every four seconds.
    sleep(Duration::from_secs(5)).await;
    keys.push((made.api_key.map(|it| it.name).unwrap_or_default(), made.key));
    let latest: Vec<&str> = keys.iter().rev().take(2).map(|(_, key)| &**key).collect();
    if latest.len() == 2 {
        for sink in &organization.sinks {
            sink.endpoint.set_keys(&latest);
        }
    }
    if keys.len() > 2 {
        let (name, _) = keys.remove(0);
        let request = proto::v1::RevokeApiKeyRequest { name };
        let revoked = anywhere(&organization.doors, |door| {
            let request = request.clone();
            async move { door.admin().revoke_api_key(request).await.ok() }
        });
        drop(revoked.await);
    }
}

/// What one of these doors answers first.
async fn anywhere<T, A: Future<Output = Option<T>>>(
    doors: &[Tenant],
    ask: impl Fn(Tenant) -> A,
) -> Option<T> {
    for door in doors.iter().cycle().take(NODES * 5) {
        let asked = tokio::time::timeout(Duration::from_secs(2), ask(door.clone())).await;
        if let Ok(Some(answer)) = asked {
            return Some(answer);
        }
    }
    None
}

async fn hold_snapshot(world: &World, random: &mut StdRng) {
    let Ok(mut transaction) = world.pool.begin().await else {
        return;
    };
    let snapshot = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM heads";
    if transaction.execute(sqlx::raw_sql(snapshot)).await.is_ok() {
        world.fault("long snapshot");
        pause(random, 2_000..10_000).await;
    }
}

/// A node's wall clock is off for a while: by minutes, which receivers of its requests bear with, or by
/// more.
#[cfg(feature = "broken")]
async fn skew_clock(world: &World, random: &mut StdRng) {
    let node = &world.nodes[random.random_range(0..NODES)];
    let Ok(mut node) = node.try_lock() else {
        return;
    };
    world.fault("clock off");
    let seconds = [-600_i64, -120, 120, 600][random.random_range(0..4)];
    let name = coordinator::broken::CLOCK_OFFSET;
    node.stop().await;
    node.set_variable(name, Some(seconds.to_string()));
    serve_again(&mut node).await;
    pause(random, 2_000..6_000).await;
    node.set_variable(name, None);
    node.stop().await;
    serve_again(&mut node).await;
}

/// The retention of a log passes, now and then over all of it.
async fn expire_log(world: &World, random: &mut StdRng) {
    let organization = &world.organizations[0];
    let mut kept = organization.kept.lock().await;
    let Ok(log) = gather::log(&world.pool, organization.name).await else {
        return;
    };
    let oldest = kept.last().map_or(0, |it| it.sync_id);
    let Some(last) = log.last().map(|it| it.sync_id) else {
        return;
    };
    let up_to = if random.random() {
        last
    } else {
        random.random_range(oldest..=last)
    };
    // The changes of one commit are of one moment, and go together.
    let of = |it: &&Position| it.sync_id == up_to && !it.token.is_empty();
    let token = log.iter().find(of).map(|it| it.token.clone());
    let together = log.iter().rfind(|it| Some(&it.token) == token.as_ref());
    let up_to = together.map_or(up_to, |it| it.sync_id);
    world.fault("log expired");
    let passed = log.into_iter();
    kept.extend(passed.filter(|it| oldest < it.sync_id && it.sync_id <= up_to));
    let expired = crate::app::expire_log(&world.pool, Some(organization.name), up_to).await;
    if let Err(error) = expired {
        tracing::debug!(%error, "the log may not have expired");
    }
}

/// Customers mend their endpoints.
async fn operate(world: Arc<World>) {
    for door in (0..NODES).cycle() {
        sleep(Duration::from_millis(500)).await;
        let enabled = actors::enable(&world, door);
        drop(tokio::time::timeout(Duration::from_secs(2), enabled).await);
    }
}

/// Takes note, when a source changes hands, how long before its last owner had renewed its lease.
async fn watch(world: Arc<World>) {
    let mut before: HashMap<String, Owner> = HashMap::new();
    loop {
        sleep(Duration::from_millis(50)).await;
        let owners: Result<Vec<(String, i64, f64, f64)>, _> =
            sqlx::query_as(OWNERS).fetch_all(&world.pool).await;
        for (source, epoch, now, expires) in owners.unwrap_or_default() {
            let owner = Owner { epoch, expires };
            let last = before.insert(source, owner);
            // Whoever gave it up in good order still had a lease.
            if let Some(last) = last.filter(|it| it.epoch < epoch && it.expires < now) {
                world.taken_over(now - last.expires + LEASE.as_secs_f64());
            }
        }
    }
}

/// Who owns a source.
struct Owner {
    epoch: i64,
    /// When its lease ends, by the clock of the database.
    expires: f64,
}

/// No lease: one that goes on for ever, since nobody has to wait for its end.
const OWNERS: &str = "
SELECT org_id || '/' || source_id, epoch, extract(epoch FROM clock_timestamp())::float8,
       coalesce(extract(epoch FROM nodes.expires_at)::float8, 'infinity')
FROM data_sources LEFT JOIN nodes ON nodes.node_id = data_sources.owner";
