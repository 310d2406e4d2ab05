//! The next batch, read, decided and put into its statement while the append of the one before it is in flight.
//!
//! That append is taken to come about: what it writes is laid over what the read shows, unless that
//! shows it already. If it does not come about, what rests on it is dropped, and the batch is dealt
//! with like any other. So nothing is decided that would not have been otherwise; only the time of
//! the append is made use of. Done for batches of commits on managed rows alone, which touch
//! nothing but the head, the ledger and rows.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::FutureExt;

use super::flusher::Decided;
use super::{Shared, Submitted, touched};
use crate::broken::crash_point;
use crate::courier::departures::Departures;
use crate::decide::{Append, Command, State, Touched};
use crate::domain::{OrganizationId, Route};
use crate::store::round::Round;

/// A batch that was taken from the queue before its turn.
pub(super) struct Ahead {
    pub(super) batch: Submitted,
    /// What it comes to, if all before it was appended as expected.
    pub(super) decided: Option<Decided>,
}

/// What the next batch is, and rests on.
pub(super) struct Next<'a> {
    pub(super) shared: &'a Shared,
    pub(super) organization: &'a OrganizationId,
    /// It is taken when so many commands wait: batches of one would cost more than they save.
    pub(super) enough: usize,
    /// The state, moved on by the decisions whose append is in flight; and that append.
    pub(super) base: (&'a State, &'a Append),
}

impl Next<'_> {
    /// Waits for an append, and deals with the next batch meanwhile. A batch that was taken is dealt
    /// with to the end: its read must not be broken off.
    pub(super) async fn beside<T>(
        self,
        appending: impl Future<Output = T>,
        spare: Option<Round>,
    ) -> (T, Option<Ahead>) {
        let taken = AtomicBool::new(false);
        let mut looking = std::pin::pin!(self.look(spare, &taken));
        let mut appending = std::pin::pin!(appending);
        tokio::select! {
            biased;
            appended = &mut appending => {
                let ahead = if taken.load(Ordering::Relaxed) { looking.await } else { None };
                (appended, ahead)
            }
            ahead = &mut looking => (appending.await, ahead),
        }
    }

    async fn look(&self, spare: Option<Round>, taken: &AtomicBool) -> Option<Ahead> {
        let arrived = {
            let waiting = self.shared.lock();
            Arc::clone(&waiting.get(self.organization)?.arrived)
        };
        let batch = loop {
            if let Some(batch) = self.take() {
                break batch;
            }
            arrived.notified().await;
        };
        taken.store(true, Ordering::Relaxed);
        let decided = AssertUnwindSafe(self.decide(&batch.commands, spare)).catch_unwind();
        // What cannot be done ahead is done in its turn, and then it is told why.
        let decided = decided.await.ok().flatten();
        Some(Ahead { batch, decided })
    }

    /// The commits on managed rows that are first in the queue, if they are enough.
    fn take(&self) -> Option<Submitted> {
        let mut waiting = self.shared.lock();
        let queue = &mut waiting.get_mut(self.organization)?.submitted;
        let managed = |command: &&Command| match command {
            Command::Accept(accept) => accept.commit.route == Route::Managed,
            _ => false,
        };
        let count = queue.commands.iter().take_while(managed).count();
        (count >= self.enough.max(1)).then(|| queue.first(count))
    }

    async fn decide(&self, commands: &[Command], spare: Option<Round>) -> Option<Decided> {
        let touched = touched(commands);
        crash_point!("round", commands);
        let mut round = match spare {
            Some(spare) => spare,
            None => self.shared.store.spare_round().await?,
        };
        let read = round.read(self.organization, &touched).await;
        let mut state = read.ok()??;
        let (base, append) = self.base;
        if state.head.version == base.head.version {
            lay_over(&mut state, &touched, base, append);
        }
        let departures = Departures::default();
        Decided::new(self.organization, (round, state), commands, departures).ok()
    }
}

/// Moves a state that was read before an append to after it.
fn lay_over(state: &mut State, touched: &Touched, base: &State, append: &Append) {
    state.head = base.head;
    state.head.version += 1;
    state.grouped |= base.grouped;
    for name in &touched.commits {
        if let Some(entry) = base.ledger.get(name) {
            state.ledger.insert(name.clone(), entry.clone());
        }
    }
    for key in &touched.viewed {
        if let Some(at) = base.removed.get(key) {
            state.removed.insert(key.clone(), *at);
        }
    }
    for key in &touched.rows {
        match append.rows.get(key) {
            Some(Some(row)) => {
                state.rows.insert(key.clone(), row.clone());
            }
            Some(None) => {
                state.rows.remove(key);
            }
            None => {}
        }
    }
}
