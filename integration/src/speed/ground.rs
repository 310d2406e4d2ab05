//! What everything runs on: one Postgres that keeps what it commits, and a database for each side.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, ensure};
use coordinator::cluster::{Cluster, ClusterOptions, Durability};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection, Executor};
use tempfile::TempDir;

use crate::node::temporary_folder;

/// Must be as said, or the figures are worth nothing.
const DURABLE: [(&str, &str); 4] = [
    ("fsync", "on"),
    ("synchronous_commit", "on"),
    ("full_page_writes", "on"),
    ("wal_sync_method", "fdatasync"),
];

/// What is set for both sides alike. The rest is as Postgres comes.
const SETTINGS: [(&str, &str); 4] = [
    ("max_connections", "300"),
    ("shared_buffers", "4GB"),
    ("max_wal_size", "8GB"),
    ("checkpoint_timeout", "15min"),
];

static NUMBER: AtomicU32 = AtomicU32::new(1);

/// A Postgres of its own. Dropping it stops it and removes what it held.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) cluster: Cluster,
    folder: TempDir,
}

/// A database on the ground.
#[derive(Clone, Debug)]
pub(super) struct Database {
    pub(super) name: String,
    pub(super) url: String,
    options: PgConnectOptions,
    /// Where files may be left as long as the ground is there.
    pub(super) folder: PathBuf,
}

impl Ground {
    pub(super) async fn prepare() -> anyhow::Result<Self> {
        let folder = temporary_folder("coordinator-speed-")?;
        let settings = SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let cluster = Cluster::start(ClusterOptions {
            folder: folder.path().join("postgres"),
            binaries: None,
            durability: Durability::Kept,
            settings: settings.to_vec(),
        })
        .await?;
        Ok(Self { cluster, folder })
    }

    /// Looks that Postgres keeps what it commits, and says how it is set.
    pub(super) async fn checked(&self) -> anyhow::Result<String> {
        let options = self.cluster.connect_options("postgres");
        let mut connection = PgConnection::connect_with(&options).await?;
        let mut said = Vec::new();
        for (name, wanted) in DURABLE {
            let value = setting(&mut connection, name).await?;
            ensure!(value == wanted, "{name} is {value}, not {wanted}");
            said.push(format!("{name} = {value}"));
        }
        for name in [
            "server_version",
            "shared_buffers",
            "max_wal_size",
            "wal_compression",
        ] {
            let value = setting(&mut connection, name).await?;
            said.push(format!("{name} = {value}"));
        }
        connection.close().await?;
        Ok(said.join(", "))
    }

    /// A new database without tables.
    pub(super) async fn empty(&self, purpose: &str) -> anyhow::Result<Database> {
        let name = format!("{purpose}_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        self.cluster.create_database(&name).await?;
        Ok(Database {
            url: self.cluster.url(&name),
            options: self.cluster.connect_options(&name),
            folder: self.folder().to_owned(),
            name,
        })
    }

    /// A new database with the coordinator's tables.
    pub(super) async fn migrated(&self, purpose: &str) -> anyhow::Result<Database> {
        let database = self.empty(purpose).await?;
        let migrated = coordinator::migrate::migrate(&database.options).await;
        migrated.map_err(|failure| anyhow::anyhow!("{failure:?}"))?;
        Ok(database)
    }

    /// Removes a database.
    pub(super) async fn clear(&self, database: Database) -> anyhow::Result<()> {
        Ok(self.cluster.drop_database(&database.name).await?)
    }

    /// Where files may be left for a while.
    pub(super) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }
}

impl Database {
    /// Runs statements, one after the other.
    pub(super) async fn run(&self, sql: &str) -> anyhow::Result<()> {
        let mut connection = PgConnection::connect_with(&self.options).await?;
        let ran = connection.execute(AssertSqlSafe(sql)).await;
        ran.with_context(|| sql.to_owned())?;
        connection.close().await?;
        Ok(())
    }

    /// One number.
    pub(super) async fn number(&self, sql: &str) -> anyhow::Result<i64> {
        let mut connection = PgConnection::connect_with(&self.options).await?;
        let number = sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_one(&mut connection)
            .await
            .with_context(|| sql.to_owned())?;
        connection.close().await?;
        Ok(number)
    }

    /// As after a quiet night: statistics are fresh, and nothing waits to be written.
    pub(super) async fn settle(&self) -> anyhow::Result<()> {
        self.run("VACUUM (ANALYZE)").await?;
        self.run("CHECKPOINT").await
    }
}

async fn setting(connection: &mut PgConnection, name: &str) -> Result<String, sqlx::Error> {
    sqlx::query_scalar("SELECT current_setting($1)")
        .bind(name)
        .fetch_one(connection)
        .await
}
