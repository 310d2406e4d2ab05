//! The flusher of one organization: batch after batch, read, decided and appended.

use std::iter;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Arc;

use futures_util::FutureExt;
use time::OffsetDateTime;
use tokio::time::Instant;
use uuid::Uuid;

use super::ahead::{Ahead, Next};
use super::memory::Memory;
use super::several::may_share;
use super::{Shared, Submitted, answer, pace, touched};
use crate::broken::{self, Control, crash_point};
use crate::courier::departures::Departures;
use crate::decide::{self, Append, Command, Reply, State, Touched};
use crate::domain::OrganizationId;
use crate::store::Error;
use crate::store::append::{Batch, Statement};
use crate::store::clock::DatabaseClock;
use crate::store::round::{Appended, Round};

/// Races that a batch loses before it takes the head's lock first.
const PATIENCE: u32 = 2;

/// Batches that take the head's lock first after one that lost so many races, as long as batch follows
/// batch: another node writes to the organization too, and a race that is lost costs a read and an
/// append.
const WARY: u32 = 16;

/// Races that a batch may lose, and be tried again.
const LOSSES: u32 = 8;

/// Batches that are read although all that they touch is remembered, after one that was not and could not
/// be appended, or held what its append would not have answered for: another node writes too, or commits
/// come again.
const DOUBTS: u32 = 64;

/// A batch that was decided, and is to be appended.
pub(super) struct Decided {
    pub(super) round: Round,
    pub(super) state: State,
    pub(super) append: Append,
    /// Writes that append, if there is anything to write.
    pub(super) statement: Option<Statement>,
    pub(super) replies: Vec<Reply>,
    pub(super) departures: Departures,
}

impl Decided {
    /// What becomes of the commands in this state, which moves on.
    pub(super) fn new(
        organization: &OrganizationId,
        (round, mut state): (Round, State),
        commands: &[Command],
        departures: Departures,
    ) -> Result<Self, Error> {
        let (replies, append) = decide::decide(organization, &mut state, commands);
        let writes = !append.is_empty();
        let statement = writes.then(|| Statement::new(Batch::new(organization, &state, &append)));
        Ok(Self {
            statement: statement.transpose()?,
            round,
            state,
            append,
            replies,
            departures,
        })
    }
}

pub(super) struct Flusher<'a> {
    shared: &'a Arc<Shared>,
    pub(super) organization: OrganizationId,
    memory: Memory,
    /// A connection that the last batch left.
    spare: Option<Round>,
    /// The next batch, as far as it was dealt with while the last one was appended.
    ahead: Option<Ahead>,
    /// A statement that it shared with others went wrong: it shares no more.
    alone: bool,
    /// A batch may grow: it was not cut because it was too large.
    grows: bool,
    /// So many batches take the head's lock first unless they share statements, and nothing is decided
    /// ahead of its turn.
    wary: u32,
    /// So many batches are read whatever is remembered.
    doubts: u32,
}

impl<'a> Flusher<'a> {
    pub(super) fn new(shared: &'a Arc<Shared>, organization: OrganizationId) -> Self {
        Self {
            shared,
            organization,
            memory: Memory::default(),
            spare: None,
            ahead: None,
            alone: broken::is(Control::AcknowledgeEarly),
            grows: true,
            wary: 0,
            doubts: 0,
        }
    }

    /// The next batch; `None` ends the flusher.
    pub(super) fn next(&mut self) -> Option<(Submitted, Option<Decided>)> {
        self.grows = true;
        match self.ahead.take() {
            Some(Ahead { batch, decided }) => Some((batch, decided)),
            None => Some((self.shared.take(&self.organization)?, None)),
        }
    }

    /// One bad command never fails its neighbours: on an error that is not the database's absence,
    /// each is decided on its own.
    pub(super) async fn flush(&mut self, mut batch: Submitted, decided: Option<Decided>) {
        let flushed = self.decide(&mut batch, decided).await;
        let organization = &self.organization;
        match flushed {
            Ok(()) => {}
            Err(Error::TooSlow(cause)) if batch.commands.len() > 1 => {
                tracing::warn!(%organization, error = %cause, "a batch is cut in two");
                self.grows = false;
                let second = batch.split_off(batch.commands.len() / 2);
                Box::pin(self.flush(batch, None)).await;
                self.forget();
                Box::pin(self.flush(second, None)).await;
            }
            Err(error) if batch.commands.len() == 1 || !error.is_about_the_statement() => {
                tracing::warn!(%organization, %error, cause = ?error, "a batch was not appended");
                let rest = || Error::Unavailable(sqlx::Error::PoolTimedOut);
                let errors = iter::once(error).chain(iter::repeat_with(rest));
                answer(&mut batch.answers, errors.map(Err));
            }
            Err(error) => {
                tracing::warn!(%organization, %error, cause = ?error, "a batch is run one by one");
                self.grows = false;
                while !batch.commands.is_empty() {
                    let others = batch.split_off(1);
                    self.forget();
                    if let Err(error) = self.decide(&mut batch, None).await {
                        answer(&mut batch.answers, [Err(error)]);
                    }
                    batch = others;
                }
            }
        }
    }

    /// Reads, decides and appends until the head stood still for it, and answers. The first time, the
    /// batch may have been decided before. Each time that it did not, commands that have come since
    /// join the batch: the next race is then for all of them. On an error nobody was answered.
    async fn decide(
        &mut self,
        batch: &mut Submitted,
        mut decided: Option<Decided>,
    ) -> Result<(), Error> {
        let mut touched = touched(&batch.commands);
        let mut pace = pace::Pace::default();
        let mut lost = 0;
        // An attempt's end is not known.
        let mut open = false;
        loop {
            let locked = self.wary > 0;
            let attempt = match decided.take() {
                Some(decided) => Box::pin(self.append(batch, decided)).await,
                // One that lost waits for its head from then on, which a shared statement does not. To
                // share comes first: a lock that is waited for takes a connection for each batch.
                None if lost == 0 && self.shares(&batch.commands, &touched) => {
                    let Some(attempt) = Box::pin(self.share(batch, &touched)).await else {
                        self.alone = true;
                        open = true;
                        continue;
                    };
                    attempt
                }
                None => Box::pin(self.attempt(batch, &touched, locked)).await,
            };
            if !matches!(attempt, Ok(true)) {
                self.forget();
            }
            match attempt {
                Ok(true) => {
                    self.wary = self.wary.saturating_sub(1);
                    self.doubts = self.doubts.saturating_sub(1);
                    return Ok(());
                }
                Ok(false) | Err(Error::Conflict(_) | Error::Exists(_)) if lost < LOSSES => {
                    lost += 1;
                    self.shared.metrics.lost_race();
                    // A lock that does not hold, since the round takes too long, does not help; nor does
                    // one that statements for several organizations pass over.
                    self.wary = if locked || lost < PATIENCE {
                        0
                    } else {
                        WARY + 1
                    };
                    // Those who join late would have few chances.
                    let joining = (lost <= LOSSES / 2 && self.grows).then(|| self.joining(batch));
                    if let Some(joining) = joining.flatten() {
                        for command in &joining.commands {
                            command.touch(&mut touched);
                        }
                        touched.dedup();
                        batch.append(joining);
                        pace = pace::Pace::default();
                    }
                }
                Ok(false) => return Err(Error::Exhausted),
                Err(Error::Exhausted) if open => {
                    pace.wait_or(Error::Unavailable(sqlx::Error::PoolTimedOut))
                        .await?;
                }
                Err(error @ (Error::Unavailable(_) | Error::Exhausted)) => {
                    open = matches!(error, Error::Unavailable(_));
                    pace.wait_or(error).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Commands that join a batch, as far as they fit: what was taken ahead, if anything was, then what
    /// waits.
    fn joining(&mut self, batch: &Submitted) -> Option<Submitted> {
        if let Some(Ahead { batch: next, .. }) = &self.ahead {
            let fits = batch.room_for(&next.weights) == next.weights.len();
            let ahead = fits.then(|| self.ahead.take()).flatten();
            return ahead.map(|ahead| ahead.batch);
        }
        let mut waiting = self.shared.lock();
        let queue = &mut waiting.get_mut(&self.organization)?.submitted;
        let room = batch.room_for(&queue.weights);
        (room > 0).then(|| queue.take(room))
    }

    /// One round: whether the batch was appended and answered, which it was not when another node moved
    /// the head in between.
    pub(super) async fn attempt(
        &mut self,
        batch: &mut Submitted,
        touched: &Touched,
        locked: bool,
    ) -> Result<bool, Error> {
        let (shared, organization) = (self.shared, &self.organization);
        let commands = &batch.commands;
        crash_point!("round", commands);
        if locked {
            // It would be held while the lock is waited for.
            self.spare = None;
        }
        let mut round = match self.spare.take() {
            _ if locked => shared.store.locked_round(organization).await?,
            Some(spare) => spare,
            None => shared.store.round().await?,
        };
        let begun = Instant::now();
        let trusts = !locked && self.doubts == 0;
        let recalled = trusts.then(|| self.memory.recall(commands, touched));
        if let Some(state) = recalled.flatten() {
            let decided = self
                .decided(commands, touched, (round, state, begun))
                .await?;
            let held = decided.replies.iter().all(is_answered_for);
            if held && decided.statement.is_some() {
                let appended = Box::pin(self.append(batch, decided)).await;
                if !matches!(appended, Ok(true)) {
                    self.doubts = DOUBTS;
                }
                return appended;
            }
            if !held {
                self.doubts = DOUBTS;
            }
            round = decided.round;
        }
        let known = std::mem::take(&mut self.memory);
        let mut state = read(&mut round, organization, &known.unknown(touched)).await?;
        if !known.complete(&mut state) {
            state = read(&mut round, organization, touched).await?;
        }
        if locked && broken::is(Control::RequestFuture) {
            // Its transaction ends as one does that nobody commits.
            drop(round);
            round = shared.store.round().await?;
        }
        let decided = self
            .decided(commands, touched, (round, state, begun))
            .await?;
        let appended = Box::pin(self.append(batch, decided)).await?;
        if locked && appended {
            shared.metrics.head_lock();
        }
        Ok(appended)
    }

    /// What becomes of the batch in this state, which was looked at since `begun`.
    async fn decided(
        &self,
        commands: &[Command],
        touched: &Touched,
        (round, mut state, begun): (Round, State, Instant),
    ) -> Result<Decided, Error> {
        let (shared, organization) = (self.shared, &self.organization);
        if !touched.groups.is_empty() {
            let version = state.head.schema_version;
            state.schema = shared.schema(organization, version).await?;
        }
        let departures = shared
            .desks
            .board(organization, &mut state, (commands, begun));
        Decided::new(organization, (round, state), commands, departures)
    }

    /// Whether a batch is to share its statements.
    fn shares(&self, commands: &[Command], touched: &Touched) -> bool {
        !self.alone && self.shared.is_crowded() && may_share(commands, touched)
    }

    /// As [`Self::attempt`], in statements that serve several organizations; `None` when the batch must
    /// be dealt with alone.
    async fn share(
        &mut self,
        batch: &mut Submitted,
        touched: &Touched,
    ) -> Option<Result<bool, Error>> {
        let (shared, organization) = (self.shared, &self.organization);
        let Submitted {
            commands, answers, ..
        } = batch;
        // Others may need the connection, and what was remembered is not used.
        self.spare = None;
        self.memory = Memory::default();
        crash_point!("round", commands);
        let mut state = shared.read_shared(organization, touched).await?;
        let (replies, append) = decide::decide(organization, &mut state, commands);
        if append.is_empty() {
            answer(answers, replies.into_iter().map(Ok));
            return Some(Ok(true));
        }
        let (begun, now) = (Instant::now(), state.now);
        crash_point!("append", commands);
        let written = shared.append_shared(organization, state, append).await;
        let (log_epoch, append) = written?;
        if let Some(log_epoch) = log_epoch {
            let departures = Departures::default();
            self.appended(commands, (&append, (now, log_epoch)), (departures, begun));
            answer(answers, replies.into_iter().map(Ok));
        }
        Some(Ok(log_epoch.is_some()))
    }

    /// Appends what was decided and answers, and meanwhile deals with the next batch; `false` when
    /// another node moved the head in between.
    async fn append(&mut self, batch: &mut Submitted, decided: Decided) -> Result<bool, Error> {
        let Decided {
            round,
            mut state,
            append,
            statement,
            replies,
            departures,
        } = decided;
        let Submitted {
            commands, answers, ..
        } = batch;
        let replies = replies.into_iter().map(Ok);
        let shared = self.shared;
        let Some(statement) = statement else {
            answer(answers, replies);
            self.forget();
            self.memory = Memory::of(DatabaseClock::heard(state.now), state);
            return Ok(true);
        };
        let begun = Instant::now();
        crash_point!("append", commands);
        let accepts = matches!(commands.as_slice(), [Command::Accept(_), ..]);
        if accepts && broken::is(Control::AcknowledgeEarly) {
            answer(answers, replies);
            let later = (statement, append, state.now, departures);
            shared.append_later(&self.organization, round, later);
            return Ok(true);
        }
        let spare = self.spare.take();
        let appending = async {
            let appended = round.append(statement).await;
            if let Ok((Some(Appended { log_epoch, .. }), _)) = appended {
                let written = (&append, (state.now, log_epoch));
                self.appended(commands, written, (departures, begun));
                answer(answers, replies);
            }
            appended
        };
        // A panic costs this batch its answers, and not the next.
        let appending = AssertUnwindSafe(appending).catch_unwind();
        let (appended, ahead) = if self.ahead.is_none() && self.wary == 0 {
            let next = Next {
                shared,
                organization: &self.organization,
                enough: commands.len().div_ceil(2),
                base: (&state, &append),
            };
            next.beside(appending, spare).await
        } else {
            (appending.await, None)
        };
        self.ahead = ahead.or(self.ahead.take());
        let (appended, spare) = appended.unwrap_or_else(|panic| resume_unwind(panic))?;
        self.spare = spare;
        if let Some(Appended { clock, .. }) = appended {
            state.head.version += 1;
            self.memory = Memory::of(clock, state);
        }
        Ok(appended.is_some())
    }

    /// The batch is durable: whom it concerns is told.
    fn appended(
        &self,
        commands: &[Command],
        (append, written): (&Append, (OffsetDateTime, Uuid)),
        (departures, begun): (Departures, Instant),
    ) {
        let shared = self.shared;
        crash_point!("appended", commands);
        shared
            .metrics
            .append(commands.len() as u64, begun.elapsed());
        shared.metrics.deltas(append.deltas.len() as u64);
        shared.metrics.pending(append.pending_change());
        let told = departures.leave(append);
        let wake = &shared.wake;
        wake.appended(&self.organization, append, (written, &told));
        crash_point!("told", commands);
    }

    /// What was decided ahead rests on an append that did not come about, or was not the last; what is
    /// remembered may, too.
    pub(super) fn forget(&mut self) {
        self.memory = Memory::default();
        if let Some(ahead) = &mut self.ahead {
            ahead.decided = None;
        }
    }
}

/// Whether an append that is written shows that a reply holds which was decided without a read. It tells
/// that the head stood still, and that the names which it writes are new; a commit that is refused is
/// not among them, and may have been settled before. A start that comes too early by what is remembered may
/// be in time.
fn is_answered_for(reply: &Reply) -> bool {
    !matches!(
        reply,
        Reply::Refused(_) | Reply::SchemaMoved(_) | Reply::NotStartable(_)
    )
}

/// What the batch touches, as one snapshot shows it.
async fn read(
    round: &mut Round,
    organization: &OrganizationId,
    touched: &Touched,
) -> Result<State, Error> {
    let state = round.read(organization, touched).await?;
    state.ok_or_else(|| Error::Corrupt {
        table: "heads",
        column: "org_id",
        row: organization.to_string(),
    })
}
