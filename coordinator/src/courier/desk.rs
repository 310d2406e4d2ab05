//! What is known on this node of one source's commits, and what the source allows.
//!
//! Looked at and moved on by whoever learns something first. The courier reads the inbox and starts what has waited;
//! the organization's flusher brings what was just accepted, some of which departs at once; an attempt
//! tells its own end.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backends::data_source::endpoint::{EndpointUrl, UrlFault};
use futures_util::FutureExt;
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use uuid::Uuid;

use super::Tools;
use super::attempt::{Attempt, Departure, End};
use super::board::Board;
use super::flight::{Flight, Flying};
use super::shares::{Share, Turn};
use super::slots::{Slot, Slots};
use crate::decide::{Command, Reply};
use crate::domain::{OrganizationId, SourceState};
use crate::store::Error;

/// How long a courier waits before it looks again after the database was away, or no key signs.
pub(super) const PAUSE: Duration = Duration::from_millis(500);

/// A courier looks again after so long although nothing happened.
const LONGEST_SLEEP: Duration = Duration::from_mins(1);

/// And not before.
const SHORTEST_SLEEP: Duration = Duration::from_millis(1);

/// How long a commit waits before it is looked whether an event of its row was taken in.
const EVENT_PAUSE: Duration = Duration::from_millis(20);

/// One source's commits on the node that owns it.
#[derive(Debug)]
pub struct Desk {
    pub(super) tools: Tools,
    pub(super) organization: OrganizationId,
    pub(super) source: String,
    pub(super) epoch: i64,
    pub(super) node: Uuid,
    pub(super) flight: Arc<Flight>,
    pub(super) slots: Arc<Slots>,
    /// Attempts, from before they are recorded until they have ended.
    pub(super) attempts: TaskTracker,
    /// The courier has something to do.
    pub(super) news: Notify,
    board: Mutex<Board>,
    /// The URL that was sent to last.
    endpoint: Mutex<Option<EndpointUrl>>,
}

impl Desk {
    pub(super) fn new(
        tools: Tools,
        (organization, source): (OrganizationId, String),
        (epoch, node): (i64, Uuid),
        flight: Arc<Flight>,
    ) -> Self {
        Self {
            tools,
            organization,
            source,
            epoch,
            node,
            slots: Arc::default(),
            attempts: TaskTracker::new(),
            news: Notify::new(),
            board: Mutex::new(Board::new(Arc::clone(&flight))),
            endpoint: Mutex::default(),
            flight,
        }
    }

    /// The URL, unless nothing may be sent there. It is read again only when it has changed.
    pub(super) fn endpoint(&self, url: &str) -> Result<EndpointUrl, UrlFault> {
        let mut last = self.endpoint.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = last.as_ref().filter(|last| last.as_str() == url) {
            return Ok(last.clone());
        }
        let read = EndpointUrl::parse(url, self.tools.endpoints.policy())?;
        Ok(last.insert(read).clone())
    }

    /// Has a command of the organization's decided.
    pub(super) async fn submit(&self, command: Command) -> Result<Reply, Error> {
        self.tools
            .flushers
            .submit(&self.organization, command)
            .await
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts what may start, and says when to look again although nothing happened; none when the
    /// source is another's.
    pub(super) fn tend(self: &Arc<Self>, turn: &mut Turn) -> Option<Instant> {
        let mut board = self.lock();
        if board.fenced {
            return None;
        }
        let now = board.now();
        board.release(now);
        self.admit(&board);
        self.expire_what_is_over(&mut board);
        self.start_what_may(&mut board, turn);
        Some(self.next(&board, turn))
    }

    fn start_what_may(self: &Arc<Self>, board: &mut Board, turn: &mut Turn) {
        let now = board.now();
        let mut kept = Vec::new();
        self.slots.want(true);
        loop {
            let asked = self.may_start_asked(board, now);
            if !asked && !self.may_start(board, now) {
                break;
            }
            let Some(share) = turn.take() else {
                break;
            };
            let sequence = match board.standing.state {
                _ if asked => board.window.pop_asked(now),
                SourceState::Failing => board.window.probe(now),
                _ => board.window.pop(now),
            };
            let Some(sequence) = sequence else {
                break;
            };
            let limit = if asked {
                board.standing.cap
            } else {
                board.standing.allowed()
            };
            if self.start(board, sequence, (share, limit)) {
                board.pace.spend(Instant::now());
            } else {
                kept.push(sequence);
            }
        }
        for sequence in kept {
            board.window.wait(sequence, now + EVENT_PAUSE);
        }
        if !self.may_start(board, now) && !self.may_start_asked(board, now) {
            turn.pass();
        }
        self.slots.want(board.window.has_due(now));
    }

    /// Whether a commit is due, and nothing but a share of the node's requests is in its way.
    fn may_start(&self, board: &Board, now: OffsetDateTime) -> bool {
        self.has_room(board)
            && board.standing.opens().is_some_and(|opens| opens <= now)
            && board.window.is_due(now)
            && board.pace.wait(Instant::now()).is_zero()
    }

    /// The same of one that somebody asked for: it waits for no back-off.
    fn may_start_asked(&self, board: &Board, now: OffsetDateTime) -> bool {
        self.has_room_for_asked(board)
            && board.window.next_asked().is_some_and(|due| due <= now)
            && board.pace.wait(Instant::now()).is_zero()
    }

    /// Whether there is a slot, or a place to stand by for one.
    fn has_room(&self, board: &Board) -> bool {
        self.slots.begun() < board.standing.allowed() + self.slots.places()
    }

    fn has_room_for_asked(&self, board: &Board) -> bool {
        board.standing.opens().is_some()
            && self.slots.begun() < board.standing.cap + self.slots.places()
    }

    /// Says who of those that stand by may leave.
    fn admit(&self, board: &Board) {
        let standing = &board.standing;
        self.slots.allow(standing.allowed(), board.lets_stand_by());
    }

    /// Makes an attempt; `false` while an event of one of the commit's rows is taken in.
    fn start(
        self: &Arc<Self>,
        board: &Board,
        sequence: i64,
        (share, limit): (Share, usize),
    ) -> bool {
        let lanes = board.window.lanes(sequence).to_vec();
        let Some(flying) = Flight::depart(&self.flight, sequence, lanes) else {
            return false;
        };
        let slot = if self.slots.begun() < limit {
            Slots::take(&self.slots, share)
        } else {
            Slots::stand_by(&self.slots, share)
        };
        let seat = Seat {
            flying,
            slot: Some(slot),
            _token: self.attempts.token(),
        };
        self.fly(board, (sequence, None), seat);
        true
    }

    /// Has an attempt made, which is recorded already if it `departed`.
    pub(super) fn fly(
        self: &Arc<Self>,
        board: &Board,
        (sequence, departed): (i64, Option<Departure>),
        seat: Seat,
    ) {
        let attempt = Attempt {
            departed,
            seat: Some(seat),
            ..self.attempt(board, sequence)
        };
        let desk = Arc::clone(self);
        self.tools.tasks.spawn(async move {
            let run = AssertUnwindSafe(attempt.run()).catch_unwind();
            let end = run.await.unwrap_or(End::Unavailable);
            desk.ended(sequence, end);
        });
    }

    pub(super) fn attempt(self: &Arc<Self>, board: &Board, sequence: i64) -> Attempt {
        Attempt {
            desk: Arc::clone(self),
            sequence,
            terms: board.window.terms(sequence),
            weight: board.window.weight(sequence),
            revision: board.window.revision,
            departed: None,
            seat: None,
        }
    }

    /// When to look again although nothing happened.
    fn next(&self, board: &Board, turn: &Turn) -> Instant {
        let now = board.now();
        // What waits for a slot or a share is not waited for here: either says when it comes free.
        let free = self.has_room(board) && !turn.waits();
        let due = board.next_due().filter(|due| free || *due > now);
        let free = self.has_room_for_asked(board) && !turn.waits();
        let asked = board.window.next_asked();
        let asked = asked.filter(|due| free || *due > now);
        let next = due
            .into_iter()
            .chain(asked)
            .chain(board.next_expiry())
            .min();
        let wait = next.map_or(LONGEST_SLEEP, |next| {
            Duration::try_from(next - now).unwrap_or_default()
        });
        let soonest = Instant::now();
        // The window was read some time ago, so "due" may be a moment past: never spin on it.
        let wait = wait.max(board.pace.wait(soonest)).max(SHORTEST_SLEEP);
        soonest + wait.min(LONGEST_SLEEP)
    }

    /// Moves on after an attempt, or after a commit's time was said to be over.
    pub(super) fn ended(&self, sequence: i64, end: End) {
        let finished = matches!(end, End::Settled(None, _));
        let mut board = self.lock();
        let before = board.next();
        board.take(sequence, end);
        self.admit(&board);
        // Most commits that are finished leave nothing to do, now or earlier than was known.
        let next = board.next();
        let sooner = next.is_some_and(|next| before.is_none_or(|before| next < before));
        let due = board.window.has_due(board.now());
        let quiet = finished && !sooner && !due && !board.stale && !board.fenced;
        drop(board);
        if !quiet {
            self.news.notify_one();
        }
    }
}

/// What one attempt holds while it is under way.
#[derive(Debug)]
pub(super) struct Seat {
    /// Its rows, until it is settled.
    pub(super) flying: Flying,
    /// Its place among the source's requests, or among those that stand by, until it has its answer.
    pub(super) slot: Option<Slot>,
    /// The courier does not end without it.
    pub(super) _token: TaskTrackerToken,
}
