//! Owners that wake up too late: frozen while a request of theirs is under way, they find out what
//! became of it when their successor has sent it again, and is waiting for the answer itself.

use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::sync::{MutexGuard, watch};
use tokio::time::{Instant, sleep, timeout};

use super::pause;
use crate::app::TestNode;
use crate::chaos::world::{LEASE, Organization, REQUEST_TIMEOUT, Sink, World};
use crate::endpoint::{Answer, Arrival, Gate};

/// A commit comes within so long, unless something else is broken.
const COMES_WITHIN: Duration = Duration::from_secs(2);
/// So long after a lease and the time of a request it comes again from the next owner, on a busy
/// machine as well.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(4);
/// How long whoever was woken has to record what it knows.
const FINDS_OUT_WITHIN: Duration = Duration::from_secs(1);

/// Wakes owners too late, one after the other.
pub(super) async fn haunt(world: &World, end: Instant, mut random: StdRng) {
    while Instant::now() < end {
        let organization = &world.organizations[0];
        let place = random.random_range(0..organization.sinks.len());
        wake_late(world, organization, &organization.sinks[place]).await;
        pause(&mut random, 500..2_500).await;
    }
}

async fn wake_late(world: &World, organization: &Organization, sink: &Sink) {
    let hold = sink.custody.hold();
    if !hold.came(1, COMES_WITHIN).await {
        return;
    }
    let Some(owner) = owner(world, organization.name, sink.model).await else {
        return;
    };
    world.fault("owner frozen");
    owner.signal(Signal::SIGSTOP);
    // Whatever else is broken may keep it from coming.
    hold.came(2, LEASE + REQUEST_TIMEOUT + TAKEN_OVER_WITHIN)
        .await;
    owner.signal(Signal::SIGCONT);
    sleep(FINDS_OUT_WITHIN).await;
}

/// The node that owns a source, as its log tells; none while something else is done to it.
async fn owner<'a>(
    world: &'a World,
    organization: &str,
    source: &str,
) -> Option<MutexGuard<'a, TestNode>> {
    let epoch = "SELECT epoch FROM data_sources WHERE org_id = $1 AND source_id = $2";
    let epoch = sqlx::query_scalar(epoch).bind(organization).bind(source);
    let epoch: i64 = epoch.fetch_one(&world.pool).await.ok()?;
    let claimed = format!("organization={organization} source.id={source:?} epoch={epoch}\n");
    let mut nodes = world.nodes.iter().filter_map(|it| it.try_lock().ok());
    nodes.find(|it| it.log().contains(&claimed))
}

/// Keeps the answers to one commit at a time from leaving an endpoint. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(in crate::chaos) struct Custody(Arc<watch::Sender<Option<Held>>>);

#[derive(Debug)]
struct Held {
    /// Its `webhook-id`, once it has come.
    commit: Option<String>,
    /// How often it has come.
    copies: usize,
    gate: Gate,
}

/// As long as it is there the answers stay.
struct Hold<'a>(&'a Custody);

impl Custody {
    /// What is answered to a request, when it may leave.
    pub(in crate::chaos) fn over(&self, arrival: &Arrival, answer: Answer) -> Answer {
        let mut gate = None;
        self.0.send_if_modified(|held| {
            let id = arrival.webhook_id();
            let of = |it: &mut Held| it.commit.get_or_insert_with(|| id.to_owned()) == id;
            let held = held.as_mut().and_then(|it| of(it).then_some(it));
            gate = held.map(|it| {
                it.copies += 1;
                it.gate.clone()
            });
            gate.is_some()
        });
        match gate {
            Some(gate) => answer.replied_once_open(&gate),
            None => answer,
        }
    }

    /// Holds the answers to the commit that comes next.
    fn hold(&self) -> Hold<'_> {
        self.0.send_replace(Some(Held {
            commit: None,
            copies: 0,
            gate: Gate::closed(),
        }));
        Hold(self)
    }
}

impl Hold<'_> {
    /// Whether the commit comes so often, all in all, within so long.
    async fn came(&self, copies: usize, within: Duration) -> bool {
        let mut held = self.0.0.subscribe();
        let came = held.wait_for(|it| it.as_ref().is_some_and(|it| it.copies >= copies));
        timeout(within, came).await.is_ok()
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        if let Some(held) = self.0.0.send_replace(None) {
            held.gate.open();
        }
    }
}
