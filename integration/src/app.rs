//! The coordinator under test: the real one, in this process ([`TestApp`]) or in one of its own that
//! can be killed ([`TestNode`]), met as its callers and its customers meet it ([`Tenant`]).
//!
//! Dropping a [`TestApp`] looks at what it leaves in its database, and fails the test if a write is
//! neither settled nor explained, or a session sits in an open transaction.

pub mod follower;
pub mod intent;
mod leftovers;
pub mod load;
mod node;
mod tenant;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Parser;
use coordinator::app::App;
use coordinator::config::{Config, Retention, Settings};
use coordinator::lifecycle::{Ending, Lifecycle};
use coordinator::migrate::partitions;
use coordinator::telemetry::metrics::Metrics;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use self::follower::Follower;
pub use self::node::TestNode;
pub use self::tenant::{Source, Tenant, TenantSchema, reason};
use crate::postgres::TestDatabase;

/// What a test waits for comes long before this, or never.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What `Admin` calls of the tests carry.
pub const OPERATOR_TOKEN: &str = "operator-token-of-the-tests";
/// Seals secrets in the tests' databases.
const MASTER_KEYS: &str = "tests:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

const TICK: Duration = Duration::from_millis(5);

/// Flags of `coordinator serve` for a node under test: loopback everywhere, and leases so short that
/// a test can wait for their end.
#[derive(Clone, Debug)]
pub struct Flags(BTreeMap<&'static str, String>);

impl Default for Flags {
    fn default() -> Self {
        let flags = [
            ("listen", "127.0.0.1:0"),
            ("operator-token", OPERATOR_TOKEN),
            ("master-keys", MASTER_KEYS),
            ("allow-subnet", "127.0.0.0/8"),
            ("drain-grace", "0s"),
            ("node-lease", "2s"),
            ("node-renewal", "300ms"),
        ];
        Self(flags.map(|(name, value)| (name, value.to_owned())).into())
    }
}

impl Flags {
    /// These flags with another value for one.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.0.insert(name, value.into());
        self
    }

    fn arguments(&self, database_url: &str) -> Vec<String> {
        let flags = self
            .0
            .iter()
            .map(|(name, value)| format!("--{name}={value}"));
        flags
            .chain([format!("--database-url={database_url}")])
            .collect()
    }

    fn config(&self, database_url: &str) -> anyhow::Result<Config> {
        let arguments = self.arguments(database_url);
        let line = Line::try_parse_from([String::new()].into_iter().chain(arguments))?;
        Ok(Config::read(&line.settings)?)
    }
}

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    settings: Settings,
}

/// A database, and coordinators in this process that share it.
#[derive(Debug)]
pub struct TestApp {
    url: String,
    options: PgConnectOptions,
    flags: Flags,
    nodes: Vec<Running>,
    leaves_pending: AtomicBool,
}

#[derive(Debug)]
struct Running {
    lifecycle: Lifecycle,
    address: SocketAddr,
    end: JoinHandle<Ending>,
}

impl TestApp {
    /// One node over a database of its own.
    pub async fn start() -> Self {
        Self::start_with(Flags::default()).await
    }

    /// As [`TestApp::start`], with these flags.
    pub async fn start_with(flags: Flags) -> Self {
        let mut app = Self::without_nodes(flags).await;
        app.add_node().await;
        app
    }

    /// A database that no node runs on yet.
    pub async fn without_nodes(flags: Flags) -> Self {
        let database = TestDatabase::migrated().await;
        Self::over(database.url(), database.connect_options(), flags)
    }

    /// Somebody else's database, with the coordinator's tables, that no node runs on yet.
    pub fn over(url: String, options: PgConnectOptions, flags: Flags) -> Self {
        Self {
            url,
            options,
            flags,
            nodes: Vec::new(),
            leaves_pending: AtomicBool::new(false),
        }
    }

    /// Starts one more node in this process, and says where it serves.
    ///
    /// # Panics
    /// When it does not start.
    #[expect(
        clippy::disallowed_methods,
        reason = "it ends with the lifecycle that it waits for"
    )]
    pub async fn add_node(&mut self) -> String {
        let config = self
            .flags
            .config(&self.url)
            .expect("the tests' flags are right");
        let lifecycle = Lifecycle::new();
        let app = App::start(&config, &lifecycle, Metrics::noop())
            .await
            .expect("a node starts on a migrated database");
        let address = app.address();
        let end = tokio::spawn({
            let lifecycle = lifecycle.clone();
            async move { app.until_stopped(&config, &lifecycle).await }
        });
        self.nodes.push(Running {
            lifecycle,
            address,
            end,
        });
        address.to_string()
    }

    /// Starts a node in a process of its own; `executable` calls [`crate::process::role`] first.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn spawn_node(&self, executable: &str) -> TestNode {
        self.spawn_node_in(executable, Vec::new()).await
    }

    /// As [`TestApp::spawn_node`], with these variables on top of this process's.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn spawn_node_in(
        &self,
        executable: &str,
        environment: Vec<(&'static str, String)>,
    ) -> TestNode {
        TestNode::start(executable, &self.url, self.flags.clone(), environment).await
    }

    /// Where the first node serves.
    ///
    /// # Panics
    /// When there is no node.
    pub fn address(&self) -> String {
        let first = self.nodes.first();
        first.expect("a node was started").address.to_string()
    }

    /// Stops the first node as SIGTERM would, and says how that went.
    ///
    /// # Panics
    /// When there is no node.
    pub async fn stop(&mut self) -> Ending {
        assert!(!self.nodes.is_empty(), "a node was started");
        let node = self.nodes.remove(0);
        node.lifecycle.soft().cancel();
        node.end.await.expect("a node does not panic")
    }

    /// Stops the first node and starts another one.
    ///
    /// # Panics
    /// When not everything that had begun was finished.
    pub async fn restart(&mut self) -> String {
        assert_eq!(self.stop().await, Ending::Drained);
        self.add_node().await
    }

    /// An organization of this name with a key, at the first node.
    ///
    /// # Panics
    /// When the node refuses.
    pub async fn organization(&self, name: &str) -> Tenant {
        Tenant::create(&self.address(), name).await
    }

    /// An organization `acme` with the tests' schema and a source at this URL, at the first node.
    ///
    /// # Panics
    /// When the node refuses.
    pub async fn tenant(&self, endpoint: &crate::endpoint::Endpoint) -> Tenant {
        let tenant = self.organization("acme").await;
        endpoint.set_keys(&[tenant.key()]);
        tenant.prepare(&Source::at(endpoint)).await;
        tenant
    }

    /// How any program on this machine reaches the database.
    pub fn database_url(&self) -> &str {
        &self.url
    }

    /// A pool of connections to the database.
    pub fn pool(&self) -> PgPool {
        PgPoolOptions::new()
            .max_connections(2)
            .connect_lazy_with(self.options.clone())
    }

    /// The retention of the log passes: changes up to a position are made old, and dropped as nodes
    /// drop what is old.
    ///
    /// # Panics
    /// When the database refuses.
    pub async fn expire_log(&self, up_to: i64) {
        let expired = expire_log(&self.pool(), None, up_to).await;
        expired.expect("a partition that goes");
    }

    /// The test leaves commits that are not settled, and has a reason for it.
    pub fn leaves_pending(&self, _because: &'static str) {
        self.leaves_pending.store(true, Ordering::Relaxed);
    }
}

/// The retention of a log passes, or of all logs: see [`TestApp::expire_log`].
///
/// # Errors
/// When the database is away; then it may have passed all the same.
pub async fn expire_log(
    pool: &PgPool,
    organization: Option<&str>,
    up_to: i64,
) -> anyhow::Result<()> {
    let old = "CREATE TABLE IF NOT EXISTS deltas_20200101 PARTITION OF deltas
               FOR VALUES FROM ('2020-01-01 00:00Z') TO ('2020-01-02 00:00Z')";
    let age = "UPDATE deltas SET created_at = '2020-01-01 12:00Z'
               WHERE sync_id <= $1 AND org_id = coalesce($2, org_id)";
    // In one: a node that starts meanwhile drops the partition as well.
    let mut aged = pool.begin().await?;
    sqlx::query(old).execute(&mut *aged).await?;
    let moved = sqlx::query(age).bind(up_to).bind(organization);
    moved.execute(&mut *aged).await?;
    aged.commit().await?;
    let retention = Retention {
        delta_days: 30,
        attempt_days: 30,
        managed_commit_days: 30,
        source_commit_days: None,
        feed_event_days: 35,
        quarantined_event_days: 35,
        action_days: 400,
    };
    partitions::drop_expired(pool, retention).await?;
    Ok(())
}

impl Drop for TestApp {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let pending_allowed = self.leaves_pending.load(Ordering::Relaxed);
        if let Some(fault) = leftovers::fault(self.options.clone(), pending_allowed) {
            panic!("the test leaves something behind: {fault}");
        }
    }
}

/// Asks again and again until there is an answer.
///
/// # Panics
/// When there is none for [`PATIENCE`].
pub async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let patience = Patience::begin();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        patience.before_asking_again(what).await;
    }
}

/// How long a test asks for something that comes by itself.
#[derive(Debug)]
struct Patience(Instant);

impl Patience {
    fn begin() -> Self {
        Self(Instant::now() + PATIENCE)
    }

    async fn before_asking_again(&self, what: &str) {
        assert!(Instant::now() < self.0, "waited in vain for {what}");
        tokio::time::sleep(TICK).await;
    }
}
