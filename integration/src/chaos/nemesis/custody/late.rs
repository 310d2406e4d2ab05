//! Copies that come too late: one is held on its way until its sender has given it up and sent
//! another, which is refused; then it is executed all the same.

use rand::rngs::StdRng;
use tokio::time::{Instant, sleep};

use super::{COMES_WITHIN, FINDS_OUT_WITHIN, Part, SENT_AGAIN_WITHIN, pause};
use crate::chaos::world::{Sink, World};

/// What the report calls it, and what it does when no second copy came.
pub(super) const DONE: &str = "copy executed late";
pub(super) const MISSED: &str = "copy held up";

/// Holds copies on their way to an endpoint, one after the other.
pub(super) async fn hold_up(world: &World, sink: &Sink, end: Instant, mut random: StdRng) {
    while Instant::now() < end {
        execute_late(world, sink).await;
        pause(&mut random, 500..2_500).await;
    }
}

async fn execute_late(world: &World, sink: &Sink) {
    let hold = sink.custody.hold(Part::FirstCopy);
    if !hold.came(1, COMES_WITHIN).await {
        return;
    }
    // Whatever else is broken may keep the second from coming.
    let refused = hold.came(2, SENT_AGAIN_WITHIN).await;
    world.fault(if refused { DONE } else { MISSED });
    if refused {
        sleep(FINDS_OUT_WITHIN).await;
    }
}
