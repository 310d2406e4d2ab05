//! Copies that come too late: one is held on its way until its sender has given it up and sent
//! another, which is refused; then it is executed all the same.

use rand::rngs::StdRng;
use tokio::time::{Instant, sleep};

use super::{COMES_WITHIN, FINDS_OUT_WITHIN, Part, SENT_AGAIN_WITHIN, pause};
use crate::chaos::world::{Sink, World};

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
    world.fault("copy held up");
    // Whatever else is broken may keep the second from coming.
    if hold.came(2, SENT_AGAIN_WITHIN).await {
        sleep(FINDS_OUT_WITHIN).await;
    }
}
