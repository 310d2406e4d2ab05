//! Owners that wake up too late: frozen while a request of theirs is under way, they find out what
//! became of it when their successor has sent it again, and is waiting for the answer itself.

use nix::sys::signal::Signal;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::sync::MutexGuard;
use tokio::time::{Instant, sleep};

use super::{COMES_WITHIN, FINDS_OUT_WITHIN, Part, SENT_AGAIN_WITHIN, pause};
use crate::app::TestNode;
use crate::chaos::world::{Organization, Sink, World};

/// What the report calls it, and what it does when the request did not come again.
pub(super) const DONE: &str = "owner woken late";
pub(super) const MISSED: &str = "owner frozen";

/// Wakes owners of these sources too late, one after the other.
pub(super) async fn haunt(
    world: &World,
    (organization, sinks): (&Organization, &[&Sink]),
    end: Instant,
    mut random: StdRng,
) {
    while Instant::now() < end {
        let sink = sinks[random.random_range(0..sinks.len())];
        wake_late(world, organization, sink).await;
        pause(&mut random, 500..2_500).await;
    }
}

async fn wake_late(world: &World, organization: &Organization, sink: &Sink) {
    let hold = sink.custody.hold(Part::Answers);
    if !hold.came(1, COMES_WITHIN).await {
        return;
    }
    let Some(owner) = owner(world, organization.name, sink.model).await else {
        return;
    };
    owner.signal(Signal::SIGSTOP);
    // Whatever else is broken may keep it from coming.
    let late = hold.came(2, SENT_AGAIN_WITHIN).await;
    world.fault(if late { DONE } else { MISSED });
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
