//! Statements that serve several organizations.
//!
//! To begin and to end a statement, and to wait for the disk, costs more than a few commits do. When many
//! organizations have a few each, their batches share statements: those that wait while one
//! runs are in the next, as commits are within an organization. Each batch has a verdict of its own,
//! as in a statement of its own; whatever goes wrong with a shared one, each batch is then dealt with
//! alone, and so are those that come after it without a pause. Nobody waits for another organization's
//! head (see `heads.sql`), nor long for a statement that others are in.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::oneshot;
use tokio::time::timeout;
use uuid::Uuid;

use super::Shared;
use crate::decide::{Append, Command, State, Touched};
use crate::domain::{OrganizationId, Route};
use crate::store::append::{Batch, Statement};
use crate::store::round::Several;
use crate::store::{Error, Store};

/// Statements of a kind that run at a time, at most. Until they are full only one does, of all: the more
/// it takes, the less each batch costs.
const AT_ONCE: usize = 2;

/// Commands of a batch that shares a statement, at most.
const COMMANDS: usize = 32;

/// Bytes of such a batch at most: a large one would hold up the small.
const WEIGHT: usize = 64 << 10;

/// Rows that such a batch touches at most.
const ROWS: usize = 64;

/// How long a batch waits for others' statement, which may have fallen silent, before it runs its own. Of
/// two appends that rest on one version of the head one does nothing, whichever it is.
const PATIENCE: Duration = Duration::from_secs(1);

/// Organizations that have commands at the same time, from which on they share statements.
const CROWD: usize = 4;

/// Whether a batch may share its statements: it is small, and touches managed rows and nothing else.
pub(super) fn may_share(commands: &[Command], touched: &Touched) -> bool {
    let managed = |command: &Command| match command {
        Command::Accept(accept) => accept.commit.route == Route::Managed,
        _ => false,
    };
    commands.len() <= COMMANDS
        && commands.iter().all(managed)
        && touched.viewed.is_empty()
        && touched.rows.len() <= ROWS
        && commands.iter().map(Command::weight).sum::<usize>() <= WEIGHT
}

/// What waits for shared statements.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    reads: Line<Read>,
    appends: Line<Write>,
    turn: Turn,
}

/// Whose statement runs, unless it was full at once: while it does, what waits for others of either kind
/// gathers. With the connection that they pass on, so that nobody who waits for the turn keeps one.
type Turn = tokio::sync::Mutex<Option<Several>>;

/// What waits for statements of a kind.
#[derive(Debug)]
struct Line<T>(Mutex<Waiting<T>>);

#[derive(Debug)]
struct Waiting<T> {
    items: Vec<T>,
    /// Statements that run.
    running: usize,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self(Mutex::new(Waiting {
            items: Vec::new(),
            running: 0,
        }))
    }
}

#[derive(Debug)]
struct Read {
    organization: OrganizationId,
    touched: Touched,
    answer: oneshot::Sender<State>,
}

#[derive(Debug)]
struct Write {
    organization: OrganizationId,
    /// As it was read, and moved on by the decisions.
    state: State,
    append: Append,
    answer: oneshot::Sender<(Option<Uuid>, Append)>,
}

/// One that shares a statement with others.
trait Sharer: Sized + Send + 'static {
    /// Whether nobody waits for its answer any more.
    fn is_given_up(&self) -> bool;

    /// Runs the statement, and answers each.
    fn serve(
        sharers: Vec<Self>,
        connection: &mut Several,
    ) -> impl Future<Output = Result<(), Error>> + Send;
}

impl<T: Sharer> Line<T> {
    /// Serves those who wait until nobody does. Whoever is not answered, since that failed, finds its
    /// sender dropped.
    async fn serve(&self, store: &Store, turn: &Turn) {
        let most = store.organizations_per_statement;
        loop {
            let (mut own, mut held);
            let connection = if self.is_full(most) {
                own = None;
                &mut own
            } else {
                held = turn.lock().await;
                &mut *held
            };
            let Some(sharers) = self.take(most) else {
                *connection = None;
                return;
            };
            let served = async {
                let several = match &mut *connection {
                    Some(several) => several,
                    None => connection.insert(store.several().await?),
                };
                T::serve(sharers, several).await
            };
            match AssertUnwindSafe(served).catch_unwind().await {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => {
                    tracing::warn!(%error, cause = ?error, "batches that shared a statement are run one by one");
                }
                Err(_) => {
                    tracing::error!("a statement for several organizations was ended by a panic");
                }
            }
            *connection = None;
        }
    }

    /// Lets one wait, for a statement that serves so many; whether somebody must [`Self::serve`] it.
    fn push(&self, item: T, most: usize) -> bool {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.items.push(item);
        let full = waiting.items.len() > most * waiting.running;
        let calls = full && waiting.running < AT_ONCE;
        waiting.running += usize::from(calls);
        calls
    }

    /// Whether those who wait fill a statement that serves so many.
    fn is_full(&self, most: usize) -> bool {
        let waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.items.len() >= most
    }

    /// So many who waited longest of those that were not given up; `None` when there are none, or no more
    /// than the others that run will take.
    fn take(&self, most: usize) -> Option<Vec<T>> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.items.retain(|item| !item.is_given_up());
        let others = waiting.running - 1;
        if waiting.items.len() <= most * others {
            waiting.running = others;
            return None;
        }
        let count = waiting.items.len().min(most);
        Some(waiting.items.drain(..count).collect())
    }
}

impl Shared {
    /// Whether so many organizations have commands that they share statements.
    pub(super) fn is_crowded(&self) -> bool {
        self.store.organizations_per_statement > 1 && self.lock().len() >= CROWD
    }

    /// Reads what a batch touches; `None` when it must be read alone.
    pub(super) async fn read_shared(
        self: &Arc<Self>,
        organization: &OrganizationId,
        touched: &Touched,
    ) -> Option<State> {
        let (answer, state) = oneshot::channel();
        let read = Read {
            organization: organization.clone(),
            touched: touched.clone(),
            answer,
        };
        self.served(|sharing| &sharing.reads, read, state).await
    }

    /// Appends what was decided on a state: the epoch of the log that it was written to, if it was, which
    /// it is not when the head has moved; `None` when nobody knows, so that the batch must be dealt with
    /// alone.
    pub(super) async fn append_shared(
        self: &Arc<Self>,
        organization: &OrganizationId,
        state: State,
        append: Append,
    ) -> Option<(Option<Uuid>, Append)> {
        let (answer, written) = oneshot::channel();
        let write = Write {
            organization: organization.clone(),
            state,
            append,
            answer,
        };
        self.served(|sharing| &sharing.appends, write, written)
            .await
    }

    /// Lets one wait for a statement, and waits for its answer; `None` when there is none.
    async fn served<T: Sharer, A>(
        self: &Arc<Self>,
        line: fn(&Sharing) -> &Line<T>,
        sharer: T,
        answer: oneshot::Receiver<A>,
    ) -> Option<A> {
        if line(&self.sharing).push(sharer, self.store.organizations_per_statement) {
            let shared = Arc::clone(self);
            self.tasks.spawn(async move {
                let Sharing { turn, .. } = &shared.sharing;
                line(&shared.sharing).serve(&shared.store, turn).await;
            });
        }
        timeout(PATIENCE, answer).await.ok()?.ok()
    }
}

impl Sharer for Read {
    fn is_given_up(&self) -> bool {
        self.answer.is_closed()
    }

    async fn serve(reads: Vec<Self>, connection: &mut Several) -> Result<(), Error> {
        let wanted = reads.iter().map(|one| (&one.organization, &one.touched));
        let states = connection.read(&wanted.collect::<Vec<_>>()).await?;
        for (read, state) in reads.into_iter().zip(states) {
            if let Some(state) = state {
                drop(read.answer.send(state));
            }
        }
        Ok(())
    }
}

impl Sharer for Write {
    fn is_given_up(&self) -> bool {
        self.answer.is_closed()
    }

    async fn serve(writes: Vec<Self>, connection: &mut Several) -> Result<(), Error> {
        let batches = writes
            .iter()
            .map(|one| Batch::new(&one.organization, &one.state, &one.append));
        let statement = Statement::of_several(&batches.collect::<Vec<_>>())?;
        let written = connection.append(statement).await?;
        for (place, write) in writes.into_iter().enumerate() {
            let written = written.iter().find(|(at, _)| *at == place);
            let log_epoch = written.map(|(_, log_epoch)| *log_epoch);
            drop(write.answer.send((log_epoch, write.append)));
        }
        Ok(())
    }
}
