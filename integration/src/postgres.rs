//! Postgres for tests: one cluster per process, one database per test.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use coordinator::cluster::{Cluster, ClusterOptions, Durability};
use sqlx::Connection;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use tokio::sync::OnceCell;

/// Has the migrations; copied for each test, never connected to again.
const BASE: &str = "base";
/// Waits for the end of its input, which is the end of the test process however that dies, then for
/// the end of the server, which follows it, and removes the folder.
const REAPER: &str = r#"
cat
while read -r server <"$1/data/postmaster.pid" && kill -0 "$server"; do sleep 0.1; done
rm -rf "$1"
"#;

static CLUSTER: OnceCell<Shared> = OnceCell::const_new();
static NUMBER: AtomicU32 = AtomicU32::new(1);

/// A database that no other test uses. It goes when the test process ends.
#[derive(Debug)]
pub struct TestDatabase {
    name: String,
    cluster: &'static Cluster,
}

#[derive(Debug)]
struct Shared {
    cluster: Cluster,
    /// Held, never written to.
    _reaper: ChildStdin,
}

impl TestDatabase {
    /// A database with the coordinator's tables.
    ///
    /// # Panics
    /// When there is no Postgres to be had; the message says what to install.
    pub async fn migrated() -> Self {
        Self::from_template(BASE).await
    }

    /// A database without tables.
    ///
    /// # Panics
    /// When there is no Postgres to be had; the message says what to install.
    pub async fn empty() -> Self {
        Self::from_template("template1").await
    }

    /// How any program on this machine reaches it.
    pub fn url(&self) -> String {
        self.cluster.url(&self.name)
    }

    /// How this process reaches it.
    pub fn connect_options(&self) -> PgConnectOptions {
        self.cluster.connect_options(&self.name)
    }

    /// A pool of connections to it.
    pub fn pool(&self, connections: u32) -> PgPool {
        PgPoolOptions::new()
            .max_connections(connections)
            .connect_lazy_with(self.connect_options())
    }

    async fn from_template(template: &str) -> Self {
        let shared = match CLUSTER.get_or_try_init(start).await {
            Ok(shared) => shared,
            Err(error) => panic!("no Postgres to test with: {error:#}"),
        };
        let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let made = shared.cluster.copy_database(&name, template).await;
        assert!(made.expect("the cluster runs"), "{name} is new");
        Self {
            name,
            cluster: &shared.cluster,
        }
    }
}

async fn start() -> anyhow::Result<Shared> {
    let folder = tempfile::Builder::new()
        .prefix("coordinator-test-")
        .tempdir()?
        .keep();
    let settings = [("max_connections", "500"), ("max_wal_size", "256MB")];
    let options = ClusterOptions {
        folder: folder.clone(),
        binaries: None,
        durability: Durability::Fast,
        settings: settings
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
    };
    let reaper = reaper(&folder)?;
    let shared = Shared {
        cluster: Cluster::start(options).await?,
        _reaper: reaper,
    };
    shared.cluster.create_database(BASE).await?;
    let mut connection = PgConnection::connect_with(&shared.cluster.connect_options(BASE)).await?;
    sqlx::migrate!("../migrations").run(&mut connection).await?;
    connection.close().await?;
    Ok(shared)
}

fn reaper(folder: &Path) -> io::Result<ChildStdin> {
    let mut reaper = Command::new("sh")
        .args(["-c", REAPER, "reaper"])
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    Ok(reaper.stdin.take().expect("it is piped"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_test_has_a_migrated_database_of_its_own() {
        let (one, other) = tokio::join!(TestDatabase::migrated(), TestDatabase::migrated());
        let insert = "CREATE TABLE mine ()";
        sqlx::query(insert).execute(&one.pool(1)).await.unwrap();
        sqlx::query(insert).execute(&other.pool(1)).await.unwrap();
        let heads: i64 = sqlx::query_scalar("SELECT count(*) FROM heads")
            .fetch_one(&one.pool(1))
            .await
            .unwrap();
        assert_eq!(heads, 0);
    }
}
