//! The flusher of one organization: batch after batch, read, decided and appended.

use std::sync::Arc;

use tokio::time::Instant;

use super::ahead::{Ahead, Next};
use super::memory::Memory;
use super::several::may_share;
use super::{Answer, Shared, Submitted, fitting, pace, touched};
use crate::broken::{self, Control, crash_point};
use crate::courier::departures::Departures;
use crate::decide::{self, Append, Command, Reply, State, Touched};
use crate::domain::OrganizationId;
use crate::store::Error;
use crate::store::append::{Batch, Statement};
use crate::store::round::Round;

/// Lost races on a hot head after which the batch takes the head's lock first.
const PATIENCE: u32 = 4;

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
        }
    }

    /// The next batch; `None` ends the flusher.
    pub(super) fn next(&mut self) -> Option<(Vec<Submitted>, Option<Decided>)> {
        self.grows = true;
        match self.ahead.take() {
            Some(Ahead { batch, decided }) => Some((batch, decided)),
            None => Some((self.shared.take(&self.organization)?, None)),
        }
    }

    /// One bad command never fails its neighbours: on an error that is not the database's absence,
    /// each is decided on its own.
    pub(super) async fn flush(&mut self, batch: Vec<Submitted>, decided: Option<Decided>) {
        let (mut commands, mut replies): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .map(|one| (one.command, one.reply))
            .unzip();
        match self
            .decide(&mut commands, Some(&mut replies), decided)
            .await
        {
            Ok(answers) => {
                for (reply, answer) in replies.into_iter().zip(answers) {
                    answer_to(reply, Ok(answer));
                }
            }
            Err(Error::TooSlow(cause)) if commands.len() > 1 => {
                let organization = &self.organization;
                tracing::warn!(%organization, error = %cause, "a batch is cut in two");
                self.grows = false;
                let mut first: Vec<_> = commands
                    .into_iter()
                    .zip(replies)
                    .map(|(command, reply)| Submitted::new(command, reply))
                    .collect();
                let second = first.split_off(first.len() / 2);
                Box::pin(self.flush(first, None)).await;
                self.forget();
                Box::pin(self.flush(second, None)).await;
            }
            Err(error) if commands.len() == 1 || !error.is_about_the_statement() => {
                let organization = &self.organization;
                tracing::warn!(%organization, %error, cause = ?error, "a batch was not appended");
                let mut error = Some(error);
                for reply in replies {
                    let one = error
                        .take()
                        .unwrap_or(Error::Unavailable(sqlx::Error::PoolTimedOut));
                    answer_to(reply, Err(one));
                }
            }
            Err(error) => {
                let organization = &self.organization;
                tracing::warn!(%organization, %error, cause = ?error, "a batch is run one by one");
                for (command, reply) in commands.into_iter().zip(replies) {
                    self.forget();
                    let answer = self.decide(&mut vec![command], None, None).await;
                    answer_to(reply, answer.map(|mut answers| answers.remove(0)));
                }
            }
        }
    }

    /// Reads, decides and appends until the head stood still for it. The first time, the batch may
    /// have been decided before. Each time that it did not, commands that have come since join the
    /// batch, if they have where to be answered: the next race is then for all of them.
    async fn decide(
        &mut self,
        commands: &mut Vec<Command>,
        mut replies: Option<&mut Vec<Answer>>,
        mut decided: Option<Decided>,
    ) -> Result<Vec<Reply>, Error> {
        let mut touched = touched(commands);
        let mut pace = pace::Pace::default();
        let mut lost = 0;
        loop {
            let locked = lost >= PATIENCE;
            let attempt = match decided.take() {
                Some(decided) => Box::pin(self.append(commands, decided)).await,
                // One that lost waits for its head from then on, which a shared statement does not.
                None if lost == 0 && self.shares(commands, &touched) => {
                    let Some(attempt) = Box::pin(self.share(commands, &touched)).await else {
                        self.alone = true;
                        continue;
                    };
                    attempt
                }
                None => Box::pin(self.attempt(commands, &touched, locked)).await,
            };
            if !matches!(attempt, Ok(Some(_))) {
                self.forget();
            }
            match attempt {
                Ok(Some(replies)) => return Ok(replies),
                Ok(None) | Err(Error::Conflict(_) | Error::Exists(_)) if lost < 2 * PATIENCE => {
                    lost += 1;
                    self.shared.metrics.lost_race();
                    // Those who join late would have few chances.
                    let replies = replies.as_mut().filter(|_| lost <= PATIENCE && self.grows);
                    if let Some(replies) = replies {
                        for one in self.joining(commands) {
                            one.command.touch(&mut touched);
                            commands.push(one.command);
                            replies.push(one.reply);
                            pace = pace::Pace::default();
                        }
                        touched.dedup();
                    }
                }
                Ok(None) => return Err(Error::Exhausted),
                Err(error @ (Error::Unavailable(_) | Error::Exhausted)) => {
                    pace.wait_or(error).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Commands that join a batch, as far as they fit: what was taken ahead, if anything was, then what
    /// waits.
    fn joining(&mut self, commands: &[Command]) -> Vec<Submitted> {
        let weight = commands.iter().map(Command::weight).sum();
        let batch = (commands.len(), weight);
        if let Some(Ahead { batch: next, .. }) = &self.ahead {
            let fits = fitting(next, batch) == next.len();
            let ahead = fits.then(|| self.ahead.take()).flatten();
            return ahead.map_or_else(Vec::new, |ahead| ahead.batch);
        }
        let mut waiting = self.shared.lock();
        let queue = waiting.get_mut(&self.organization);
        queue.map_or_else(Vec::new, |queue| {
            let fit = fitting(&queue.commands, batch);
            queue.commands.drain(..fit).collect()
        })
    }

    /// One round; `None` when another node moved the head in between.
    pub(super) async fn attempt(
        &mut self,
        commands: &[Command],
        touched: &Touched,
        locked: bool,
    ) -> Result<Option<Vec<Reply>>, Error> {
        let (shared, organization) = (self.shared, &self.organization);
        crash_point!("round", named(commands));
        let mut round = match self.spare.take() {
            _ if locked => shared.store.locked_round(organization).await?,
            Some(spare) => spare,
            None => shared.store.round().await?,
        };
        let begun = Instant::now();
        let known = std::mem::take(&mut self.memory);
        let mut state = read(&mut round, organization, &known.unknown(touched)).await?;
        if !known.complete(&mut state) {
            state = read(&mut round, organization, touched).await?;
        }
        if !touched.groups.is_empty() {
            let version = state.head.schema_version;
            state.schema = shared.schema(organization, version).await?;
        }
        let departures = shared
            .desks
            .board(organization, &mut state, (commands, begun));
        if locked && broken::is(Control::RequestFuture) {
            // Its transaction ends as one does that nobody commits.
            drop(round);
            round = shared.store.round().await?;
        }
        let decided = Decided::new(organization, (round, state), commands, departures)?;
        let replies = self.append(commands, decided).await?;
        if locked && replies.is_some() {
            shared.metrics.head_lock();
        }
        Ok(replies)
    }

    /// Whether a batch is to share its statements.
    fn shares(&self, commands: &[Command], touched: &Touched) -> bool {
        !self.alone && self.shared.is_crowded() && may_share(commands, touched)
    }

    /// One round in statements that serve several organizations; `None` when it must be made alone.
    async fn share(
        &mut self,
        commands: &[Command],
        touched: &Touched,
    ) -> Option<Result<Option<Vec<Reply>>, Error>> {
        let (shared, organization) = (self.shared, &self.organization);
        // Others may need the connection, and what was remembered is not used.
        self.spare = None;
        self.memory = Memory::default();
        crash_point!("round", named(commands));
        let mut state = shared.read_shared(organization, touched).await?;
        let (replies, append) = decide::decide(organization, &mut state, commands);
        if append.is_empty() {
            return Some(Ok(Some(replies)));
        }
        let begun = Instant::now();
        crash_point!("append", named(commands));
        let written = shared.append_shared(organization, state, append).await;
        let (written, append) = written?;
        if !written {
            return Some(Ok(None));
        }
        self.appended(commands, &append, (Departures::default(), begun));
        Some(Ok(Some(replies)))
    }

    /// Appends what was decided, and meanwhile deals with the next batch; `None` when another node
    /// moved the head in between.
    async fn append(
        &mut self,
        commands: &[Command],
        decided: Decided,
    ) -> Result<Option<Vec<Reply>>, Error> {
        let Decided {
            round,
            state,
            append,
            statement,
            replies,
            departures,
        } = decided;
        let (shared, version) = (self.shared, state.head.version);
        let Some(statement) = statement else {
            self.forget();
            self.memory = Memory::of(state, version);
            return Ok(Some(replies));
        };
        let begun = Instant::now();
        crash_point!("append", named(commands));
        let accepts = matches!(commands, [Command::Accept(_), ..]);
        if accepts && broken::is(Control::AcknowledgeEarly) {
            let later = (statement, append, departures);
            shared.append_later(&self.organization, round, later);
            return Ok(Some(replies));
        }
        let appending = round.append(statement);
        let (appended, ahead) = if self.ahead.is_none() {
            let next = Next {
                shared,
                organization: &self.organization,
                enough: commands.len().div_ceil(2),
                base: (&state, &append),
            };
            next.beside(appending, self.spare.take()).await
        } else {
            (appending.await, None)
        };
        self.ahead = ahead.or(self.ahead.take());
        let (moved, spare) = appended?;
        self.spare = spare;
        if !moved {
            return Ok(None);
        }
        self.appended(commands, &append, (departures, begun));
        self.memory = Memory::of(state, version + 1);
        Ok(Some(replies))
    }

    /// The batch is durable: whom it concerns is told.
    fn appended(
        &self,
        commands: &[Command],
        append: &Append,
        (departures, begun): (Departures, Instant),
    ) {
        let shared = self.shared;
        crash_point!("appended", named(commands));
        shared
            .metrics
            .append(commands.len() as u64, begun.elapsed());
        shared.metrics.deltas(append.deltas.len() as u64);
        shared.metrics.pending(append.pending_change());
        let told = departures.leave(append);
        shared.wake.appended(&self.organization, append, &told);
        crash_point!("told", named(commands));
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

/// What a batch begins with.
#[cfg(feature = "broken")]
pub(super) fn named(commands: &[Command]) -> &'static str {
    commands.first().map_or("nothing", Command::name)
}

/// A caller that went away does not need its answer.
fn answer_to(reply: Answer, answer: Result<Reply, Error>) {
    drop(reply.send(answer));
}
