//! Commits that depart with their accept.
//!
//! Where the accepting node owns the source, no commit before one touches its rows, and the source's
//! limits allow, its first attempt is recorded by the append that accepts it, and leaves right after.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use time::OffsetDateTime;
use tokio::time::Instant;

use super::attempt::Departure;
use super::board::Board;
use super::desk::{Desk, Seat};
use super::flight::Flight;
use super::slots::Slots;
use crate::broken::{self, Control};
use crate::decide::{Append, Command, InboxEntry, Leave, Source, State, lanes};
use crate::domain::{OrganizationId, Route, SourceState};
use crate::store::inbox::Waiting;

/// The desks of the sources that this node owns.
#[derive(Debug, Default)]
pub struct Desks {
    open: Mutex<HashMap<(OrganizationId, String), Arc<Desk>>>,
}

/// A desk that is open. Dropping it closes it.
#[derive(Debug)]
pub(super) struct Open<'a> {
    desks: &'a Desks,
    desk: &'a Arc<Desk>,
}

/// What desks gave to commits of a batch before it was decided. Dropping it takes everything back.
#[derive(Debug, Default)]
pub struct Departures {
    sources: Vec<Departing>,
}

#[derive(Debug)]
struct Departing {
    desk: Arc<Desk>,
    /// By the commit's name.
    seats: HashMap<String, Seat>,
    /// From before the batch was read, or what is remembered was looked at.
    begun: Instant,
}

impl Desks {
    /// Lets commits of this source depart, until the answer is dropped.
    pub(super) fn open<'a>(&'a self, desk: &'a Arc<Desk>) -> Open<'a> {
        let key = (desk.organization.clone(), desk.source.clone());
        self.lock().insert(key, Arc::clone(desk));
        Open { desks: self, desk }
    }

    /// Finds commits of a batch that may depart with their accept, and tells `state` so.
    pub fn board(
        &self,
        organization: &OrganizationId,
        state: &mut State,
        (commands, begun): (&[Command], Instant),
    ) -> Departures {
        let mut by_source: HashMap<&str, Vec<(&str, Vec<i64>)>> = HashMap::new();
        for command in commands {
            let Command::Accept(accept) = command else {
                continue;
            };
            let commit = &accept.commit;
            let Route::Source(source) = &commit.route else {
                continue;
            };
            if !state.ledger.contains_key(&commit.client_tx_id) {
                let touched = if broken::is(Control::NoLanes) {
                    Vec::new()
                } else {
                    lanes(organization, &commit.operations)
                };
                let all = by_source.entry(source).or_default();
                all.push((&commit.client_tx_id, touched));
            }
        }
        let mut sources = Vec::new();
        for (name, commits) in by_source {
            let desk = self.find(organization, name);
            let Some((desk, source)) = desk.zip(state.sources.get(name)) else {
                continue;
            };
            let seats = desk.board(source, state.now, commits);
            let leave = Leave {
                node: desk.node,
                epoch: desk.epoch,
                revision: source.inbox_revision,
                commits: seats.keys().cloned().collect(),
            };
            state.leaves.insert(name.to_owned(), leave);
            sources.push(Departing { desk, seats, begun });
        }
        Departures { sources }
    }

    fn find(&self, organization: &OrganizationId, source: &str) -> Option<Arc<Desk>> {
        let open = self.lock();
        if open.is_empty() {
            return None;
        }
        open.get(&(organization.clone(), source.to_owned()))
            .cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(OrganizationId, String), Arc<Desk>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let key = (self.desk.organization.clone(), self.desk.source.clone());
        let mut open = self.desks.lock();
        if open
            .get(&key)
            .is_some_and(|one| Arc::ptr_eq(one, self.desk))
        {
            open.remove(&key);
        }
        drop(open);
        // Whoever found the desk open a moment ago gets no seat any more.
        self.desk.lock().fenced = true;
    }
}

impl Departures {
    /// The batch is durable: what departed leaves, what waits is known. Names the sources whose
    /// couriers need not be told of it.
    pub fn leave(self, append: &Append) -> HashSet<String> {
        let mut told = HashSet::new();
        for mut departing in self.sources {
            if departing.leave(append) {
                told.insert(departing.desk.source.clone());
            }
        }
        told
    }
}

impl Departing {
    /// Whether the source's courier is this desk's, and knows now what it must.
    fn leave(&mut self, append: &Append) -> bool {
        let desk = &self.desk;
        let accepted = append.inbox.iter().filter(|it| it.source == desk.source);
        let accepted: Vec<&InboxEntry> = accepted.collect();
        let source = append.sources.get(&desk.source).map(|(source, _)| source);
        let (Some(first), Some(source)) = (accepted.first(), source) else {
            return false;
        };
        if !desk.owns(source) {
            return false;
        }
        let mut board = desk.lock();
        let mut leaving = Vec::new();
        for departed in &append.departed {
            if departed.source == desk.source
                && let Some(mut seat) = self.seats.remove(&departed.started.client_tx_id)
            {
                board.window.depart(departed.sequence);
                seat.flying.name(departed.sequence);
                leaving.push((departed, seat));
            }
        }
        let follows = board.window.seen + 1 >= first.sequence
            && board.window.revision == source.inbox_revision
            && board.window.has_room();
        if follows {
            let recovery = source.recovery();
            let waiting = accepted.iter().map(|entry| Waiting::of(entry)).collect();
            board.window.extend(waiting, recovery);
        } else {
            board.stale = true;
        }
        let busy = leaving.len() < accepted.len()
            || !follows
            || accepted.iter().any(|entry| entry.expires_at.is_some());
        for (departed, seat) in leaving {
            let departure = Departure {
                started: Arc::clone(&departed.started),
                commit: Arc::clone(&departed.commit),
                asked: self.begun,
            };
            desk.fly(&board, (departed.sequence, Some(departure)), seat);
        }
        drop(board);
        if busy {
            desk.news.notify_one();
        }
        true
    }
}

impl Desk {
    /// Seats for those of these commits, in their order, that may depart with their accept as the
    /// source stands in the batch's snapshot: only if everything before them is known here.
    fn board(
        self: &Arc<Self>,
        source: &Source,
        now: OffsetDateTime,
        commits: Vec<(&str, Vec<i64>)>,
    ) -> HashMap<String, Seat> {
        let mut board = self.lock();
        let mut seats = HashMap::new();
        if !self.boards(&board, source, now) {
            return seats;
        }
        // Of commits of this batch: none overtakes another.
        let mut taken = HashSet::new();
        for (name, lanes) in commits {
            let free = board.window.are_free(&lanes)
                && taken.is_disjoint(&lanes.iter().copied().collect());
            taken.extend(lanes.iter().copied());
            if !free || seats.contains_key(name) {
                continue;
            }
            let Some(seat) = self.seat(&mut board, lanes) else {
                break;
            };
            seats.insert(name.to_owned(), seat);
        }
        seats
    }

    /// Whether commits may depart at all: the source is well, nothing else waits for it, and the window
    /// has seen all of its inbox.
    fn boards(&self, board: &Board, source: &Source, now: OffsetDateTime) -> bool {
        self.owns(source)
            && source.inbox_revision == board.window.revision
            && source.inbox_sequence == board.window.seen
            && board.standing.state == SourceState::Enabled
            && board.standing.opens().is_some_and(|opens| opens <= now)
            && !board.window.has_due(now)
            && !board.fenced
    }

    fn owns(&self, source: &Source) -> bool {
        source.epoch == self.epoch && source.owner == Some(self.node)
    }

    /// A seat for a commit on these rows, if the source's limits and the node's allow one.
    fn seat(self: &Arc<Self>, board: &mut Board, lanes: Vec<i64>) -> Option<Seat> {
        let paced = board.pace.wait(Instant::now()).is_zero();
        if self.slots.begun() >= board.standing.allowed() || !paced {
            return None;
        }
        let share = self.tools.attempts.take_now(&self.organization)?;
        let flying = Flight::depart(&self.flight, 0, lanes)?;
        board.pace.spend(Instant::now());
        Some(Seat {
            flying,
            slot: Some(Slots::take(&self.slots, share)),
            _token: self.attempts.token(),
        })
    }
}
