//! The only room that speaks SQL. One statement a file, in `store/sql`; each opens with its name,
//! which shows in `pg_stat_activity`.
//!
//! Statements hold no lock across a round trip (but for `round.rs`), and none joins two
//! organizations; two serve several at once, with a verdict for each. All work runs in spawned tasks
//! that request futures only await: a dropped call cannot leave a connection in the middle of a
//! transaction.

pub mod actions;
pub mod active_schema;
pub mod api_keys;
pub(crate) mod append;
pub mod attempts;
pub(crate) mod clock;
mod error;
pub mod feeds;
pub mod inbox;
pub mod log;
pub mod nodes;
pub mod organizations;
pub mod pending;
mod read;
mod receipts;
mod refusal;
pub mod retention;
pub mod round;
pub mod rows;
pub mod schemas;
#[cfg(test)]
pub(crate) mod scratch;
pub mod source_keys;
pub mod source_requests;
pub mod sources;

use std::future::Future;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{Connection, Executor};

pub use error::Error;

use crate::broken::{self, Control};

/// Connections of the log's readers.
const LOG_CONNECTIONS: u32 = 6;

/// The database, behind one pool for what must be quick and one for long reads.
#[derive(Clone, Debug)]
pub struct Store {
    /// Appends and the reads that they rest on: look-ups by key alone.
    pub(crate) ledger: PgPool,
    /// Lists, status and administration.
    pub(crate) reads: PgPool,
    /// Leases of nodes: nobody's slow query may cost this node its sources.
    pub(crate) leases: PgPool,
    /// The log's readers: nobody who subscribes may slow those who write.
    pub(crate) log: PgPool,
    /// What nodes tell each other.
    pub(crate) signals: PgPool,
    /// Organizations that one statement may serve.
    pub(crate) organizations_per_statement: usize,
}

impl Store {
    /// Opens the pools, `ledger` and `reads` connections large, without connecting yet.
    ///
    /// On the ledger's connections the planner may use nothing but indexes: a prepared look-up that
    /// was planned while its table was empty must not scan it for ever after.
    pub fn open(options: PgConnectOptions, ledger: u32, reads: u32) -> Self {
        let options = options
            .application_name("coordinator")
            .statement_cache_capacity(500);
        let settings = [
            // Rolling back outside a transaction, as each release does, is worth no message.
            ("client_min_messages", "error"),
            ("synchronous_commit", "on"),
            ("lock_timeout", "2s"),
            ("statement_timeout", "5s"),
            ("idle_in_transaction_session_timeout", "5s"),
            ("log_parameter_max_length_on_error", "0"),
        ];
        let by_index = [
            ("enable_seqscan", "off"),
            ("enable_hashjoin", "off"),
            ("enable_mergejoin", "off"),
            ("enable_bitmapscan", "off"),
            ("plan_cache_mode", "force_generic_plan"),
            // What may not be scanned is priced so high that it would be compiled.
            ("jit", "off"),
        ];
        // Partitions that cannot have what is looked for are left out only by a plan for its values.
        let by_value = [
            ("enable_seqscan", "off"),
            ("enable_bitmapscan", "off"),
            ("plan_cache_mode", "force_custom_plan"),
        ];
        let reads_options = options.clone().options(settings);
        let log_options = options.clone().options(settings).options(by_value);
        let ledger_options = options.options(settings).options(by_index);
        // Hints: nobody waits for the disk to have them.
        let signals_options = reads_options
            .clone()
            .application_name("coordinator signals")
            .options([("synchronous_commit", "off")]);
        Self {
            ledger: pool(ledger_options, ledger),
            leases: pool(reads_options.clone(), 2),
            log: pool(log_options, LOG_CONNECTIONS),
            signals: pool(signals_options, 1),
            organizations_per_statement: 1,
            reads: pool(reads_options, reads),
        }
    }

    /// The same, with so many organizations to a statement at most, and no more than it has places.
    /// Without it no statement serves two.
    #[must_use]
    pub fn sharing(self, organizations_per_statement: usize) -> Self {
        Self {
            organizations_per_statement: organizations_per_statement.min(append::PLACES),
            ..self
        }
    }

    /// Closes every connection after its work.
    pub async fn close(&self) {
        self.ledger.close().await;
        self.reads.close().await;
        self.leases.close().await;
        self.log.close().await;
        self.signals.close().await;
    }
}

impl Store {
    /// Connections in use now, by pool.
    pub fn in_use(&self) -> [(&'static str, u64); 2] {
        let in_use = |pool: &PgPool| {
            let idle = u32::try_from(pool.num_idle()).unwrap_or(u32::MAX);
            u64::from(pool.size().saturating_sub(idle))
        };
        [
            ("ledger", in_use(&self.ledger)),
            ("reads", in_use(&self.reads)),
        ]
    }
}

/// Runs database work to its end even if the caller stops waiting: a request's future may be dropped
/// at any await, and must not take a connection with it (see [`pool`]).
///
/// # Panics
/// When the work panics.
pub(crate) async fn detached<T, F>(
    pool: &PgPool,
    work: impl FnOnce(PgPool) -> F,
) -> Result<T, Error>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Error>> + Send + 'static,
{
    #[expect(
        clippy::disallowed_methods,
        reason = "ends by itself: it has a timeout"
    )]
    let task = tokio::spawn(in_time(work(pool.clone())));
    match task.await {
        Ok(outcome) => outcome.map_err(|error| told_apart(pool, error)),
        Err(failure) if failure.is_panic() => std::panic::resume_unwind(failure.into_panic()),
        Err(_) => Err(Error::Unavailable(sqlx::Error::WorkerCrashed)),
    }
}

/// Gives up on a database that is silent though its connection stands: a statement that is alive ends
/// by its own timeout before. The connection is closed when it is released.
pub(crate) async fn in_time<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let silent = |_| Err(Error::Unavailable(sqlx::Error::PoolTimedOut));
    tokio::time::timeout(SILENCE, work)
        .await
        .unwrap_or_else(silent)
}

/// A pool that had room and still gave no connection in time could not reach the database: that is
/// [`Error::Unavailable`], not [`Error::Exhausted`].
fn told_apart(pool: &PgPool, error: Error) -> Error {
    match error {
        Error::Exhausted if pool.size() < pool.options().get_max_connections() => {
            Error::Unavailable(sqlx::Error::PoolTimedOut)
        }
        error => error,
    }
}

/// A connection that was released longer ago is tried before it is used. One that broke since fails
/// its user, who is told that the database is away, and tries again.
const TRIED: Duration = Duration::from_secs(1);

/// How long a connection may be silent: a database, or the way to it, can vanish without a word, and
/// the connection then stands for hours. More than a statement and its connection may take.
const SILENCE: Duration = Duration::from_secs(8);

/// How long a connection may take to answer when it is tried or rolled back.
const SIGN_OF_LIFE: Duration = Duration::from_secs(2);

/// The same for one statement that takes no time.
async fn sign_of_life<T>(
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    let silent = |_| Err(sqlx::Error::PoolTimedOut);
    tokio::time::timeout(SIGN_OF_LIFE, answer)
        .await
        .unwrap_or_else(silent)
}

/// A pool that heals what a dropped future may have left behind: sqlx 0.9.0 can return a connection
/// inside a transaction that a dropped `begin` left open, so each release rolls back.
fn pool(options: PgConnectOptions, size: u32) -> PgPool {
    PgPoolOptions::new()
        .max_connections(size)
        .acquire_timeout(Duration::from_secs(2))
        .test_before_acquire(false)
        .before_acquire(|connection, released| {
            Box::pin(async move {
                if released.idle_for > TRIED {
                    sign_of_life(connection.ping()).await?;
                }
                Ok(true)
            })
        })
        .after_release(|connection, _| {
            Box::pin(async move {
                if !broken::is(Control::RequestFuture) {
                    sign_of_life(connection.execute("ROLLBACK")).await?;
                }
                Ok(true)
            })
        })
        .connect_lazy_with(options)
}

#[cfg(test)]
pub(crate) mod tests;
