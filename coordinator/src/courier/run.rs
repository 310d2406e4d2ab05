//! The life of one courier.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::board::Board;
use super::desk::{Desk, PAUSE};
use super::shares::Turn;
use crate::broken::crash_point;
use crate::domain::SourceState;
use crate::store::Error;
use crate::store::clock::DatabaseClock;
use crate::store::inbox::Window as Read;

/// Commits read at a time.
const PAGE: i64 = 1_000;

/// Delivers one source's commits: reads what nobody told it of, and starts what has waited.
pub(super) struct Courier {
    desk: Arc<Desk>,
    /// This organization's shares of the node's requests in flight.
    turn: Turn,
}

impl Courier {
    pub(super) fn new(desk: Arc<Desk>) -> Self {
        Self {
            turn: Turn::new(desk.tools.attempts.clone(), desk.organization.clone()),
            desk,
        }
    }

    /// Delivers until it is stopped or fenced, then waits for what is in flight.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let desk = Arc::clone(&self.desk);
        let wake = Arc::clone(&desk.tools.wake);
        let mut waiter = wake.source(&desk.organization, &desk.source);
        let open = desk.tools.flushers.desks().open(&desk);
        while !stop.is_cancelled() {
            if desk.lock().stale {
                match self.read().await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        tracing::warn!(source.id = desk.source, %error, "an inbox was not read");
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                }
            }
            crash_point!("courier.read");
            let Some(next) = desk.tend(&mut self.turn) else {
                break;
            };
            tokio::select! {
                () = stop.cancelled() => break,
                () = waiter.rung() => desk.lock().stale = true,
                () = self.turn.come() => {}
                () = desk.slots.freed() => {}
                () = desk.news.notified() => {}
                () = tokio::time::sleep_until(next) => {}
            }
        }
        drop(open);
        self.turn.pass();
        desk.attempts.close();
        desk.attempts.wait().await;
    }

    /// Reads how the source stands and what the window has not seen; `false` when the source is
    /// gone or another's.
    async fn read(&mut self) -> Result<bool, Error> {
        let desk = &*self.desk;
        let mut anew = false;
        loop {
            let (after, limit) = {
                let window = &desk.lock().window;
                let limit = if window.has_room() { PAGE } else { 0 };
                (window.seen, limit)
            };
            let _look = desk.tools.looks.take(&desk.organization).await;
            let read = desk
                .tools
                .store
                .window(&desk.organization, &desk.source, after, limit);
            let Some(read) = read.await? else {
                return Ok(false);
            };
            if read.epoch != desk.epoch || read.owner != Some(desk.node) {
                tracing::info!(source.id = desk.source, epoch = desk.epoch, "fenced");
                return Ok(false);
            }
            let mut board = desk.lock();
            if board.window.revision != read.inbox_revision {
                // What was brought meanwhile is read with the rest.
                let begun = board.window.seen > 0;
                board.window.renew(read.inbox_revision);
                anew = true;
                if begun {
                    continue;
                }
            }
            let full = i64::try_from(read.entries.len()).is_ok_and(|count| count == limit);
            let sequence = read.inbox_sequence;
            desk.learn(&mut board, read);
            if limit > 0 && full {
                continue;
            }
            if limit > 0 {
                board.window.seen = board.window.seen.max(sequence);
                board.stale = false;
            }
            if anew {
                let window = &board.window;
                desk.flight.remember(|sequence| window.contains(sequence));
            }
            drop(board);
            desk.flight.open();
            return Ok(true);
        }
    }
}

impl Desk {
    /// Takes in how the source stands, and commits that follow what is known.
    fn learn(&self, board: &mut Board, read: Read) {
        board.clock = DatabaseClock::heard(read.now);
        board.standing.cap = read.max_in_flight;
        board.pace.limit(read.max_per_second);
        // An attempt that has ended since told more of how the source stands.
        if read.settled >= board.standing.settled {
            let known = board.standing.settled >= 0;
            board.standing.state = read.state;
            board.standing.backoff_until = read.backoff_until;
            board.standing.settled = read.settled;
            let back = board.recovered(read.recovery) && known;
            // What waited for an operator is ramped up like what waited for the endpoint.
            if back || read.state == SourceState::Failing {
                board.standing.ramp = 1;
            }
        }
        let seen = board.window.seen;
        for entry in read.entries.iter().filter(|it| it.sequence > seen) {
            let until = entry.open_until;
            if let Some(until) = until.filter(|_| !board.window.is_out(entry.sequence)) {
                let left = Duration::try_from(until - read.now).unwrap_or_default();
                self.flight.linger(&entry.lanes, Instant::now() + left);
            }
        }
        board.window.extend(read.entries, read.recovery);
    }
}
