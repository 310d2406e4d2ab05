//! A private Postgres cluster: made, started, and stopped by this process, reached through a Unix
//! socket by nobody else.
//!
//! `coordinator dev` keeps one in its data folder; tests make one that is thrown away. Postgres
//! refuses to run as root, so a root process runs it as an unprivileged account (`account`). The
//! server is a direct child that is told to stop when its parent dies (`server`); whatever an
//! earlier process left behind is stopped or cleared at the next start (`folder`).

mod account;
mod binaries;
mod error;
mod folder;
mod server;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection, Executor};
use tokio::time::Instant;

use self::account::Account;
use self::binaries::Binaries;
pub use self::error::ClusterError;
use self::folder::Folder;
use self::server::Server;

/// The cluster's superuser; its only way in is the private socket.
const USER: &str = "coordinator";
/// Names the socket file; no port is opened.
const PORT: u16 = 5432;
/// Starting includes crash recovery, which may have much log to replay.
const READY_WITHIN: Duration = Duration::from_mins(2);
const READY_PAUSE: Duration = Duration::from_millis(20);

/// What a power cut may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Nothing that was committed.
    Kept,
    /// Everything. A crash of a process still costs nothing, so this serves tests.
    Fast,
}

/// How a cluster is made and started.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Belongs to the cluster alone; made if it is missing. When root starts the cluster, the folder
    /// is given to the account that Postgres runs as, and every folder above must be open to it.
    pub folder: PathBuf,
    /// Where `initdb` and `postgres` are; looked for when absent.
    pub binaries: Option<PathBuf>,
    /// What a power cut may cost.
    pub durability: Durability,
    /// Server settings, as in `postgresql.conf`, that win over the defaults.
    pub settings: Vec<(String, String)>,
}

/// A running cluster. Dropping it stops the server and blocks until that is done; [`Cluster::stop`]
/// does the same without blocking.
#[derive(Debug)]
pub struct Cluster {
    server: Server,
    folder: Folder,
}

impl Cluster {
    /// Starts the cluster in a folder, making it first if there is none, and returns when it takes
    /// connections. Nothing keeps running when this fails.
    pub async fn start(options: ClusterOptions) -> Result<Self, ClusterError> {
        let (server, folder) = blocking(move || launch(&options)).await?;
        let cluster = Self { server, folder };
        cluster.ready().await?;
        Ok(cluster)
    }

    /// How `psql` and any other client on this machine reaches a database of the cluster.
    pub fn url(&self, database: &str) -> String {
        let socket = self.folder.socket().display().to_string();
        format!(
            "postgres:///{}?host={}&user={USER}",
            encode(database),
            encode(&socket)
        )
    }

    /// How this process reaches a database of the cluster.
    pub fn connect_options(&self, database: &str) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(self.folder.socket())
            .port(PORT)
            .username(USER)
            .database(database)
            .ssl_mode(sqlx::postgres::PgSslMode::Disable)
    }

    /// Makes a database unless it exists; says whether it did.
    pub async fn create_database(&self, name: &str) -> Result<bool, ClusterError> {
        self.create(&format!("CREATE DATABASE {}", quote(name)))
            .await
    }

    /// Copies a database, which nobody may be connected to, unless the copy exists; says whether it
    /// did.
    pub async fn copy_database(&self, name: &str, template: &str) -> Result<bool, ClusterError> {
        self.create(&format!(
            "CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY",
            quote(name),
            quote(template)
        ))
        .await
    }

    /// Removes a database and ends its connections. A missing one is no error.
    pub async fn drop_database(&self, name: &str) -> Result<(), ClusterError> {
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quote(name));
        self.execute(&sql).await?;
        Ok(())
    }

    /// The server's process.
    pub fn pid(&self) -> i32 {
        self.server.pid()
    }

    /// Waits until the server ends, by whoever's hand.
    pub async fn ended(&self) -> ExitStatus {
        self.server.ended().await
    }

    /// Stops the server: open connections are cut, what was committed is kept.
    pub async fn stop(self) -> Result<(), ClusterError> {
        blocking(move || self.server.stop()).await
    }

    async fn ready(&self) -> Result<(), ClusterError> {
        let until = Instant::now() + READY_WITHIN;
        loop {
            let refused = match PgConnection::connect_with(&self.connect_options("postgres")).await
            {
                Ok(connection) => return Ok(connection.close().await?),
                Err(refused) => refused,
            };
            if let Some(status) = self.server.status() {
                return Err(ClusterError::Ended {
                    status,
                    log: self.folder.log_end(),
                });
            }
            if Instant::now() > until {
                let log = self.folder.log_end();
                return Err(ClusterError::NotReady {
                    source: refused,
                    log,
                });
            }
            tokio::time::sleep(READY_PAUSE).await;
        }
    }

    async fn create(&self, sql: &str) -> Result<bool, ClusterError> {
        match self.execute(sql).await {
            Ok(()) => Ok(true),
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42P04") => {
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn execute(&self, sql: &str) -> Result<(), sqlx::Error> {
        let mut connection = PgConnection::connect_with(&self.connect_options("postgres")).await?;
        connection.execute(AssertSqlSafe(sql)).await?;
        connection.close().await
    }
}

/// Everything up to the running process; blocks.
fn launch(options: &ClusterOptions) -> Result<(Server, Folder), ClusterError> {
    let account = Account::find()?;
    let folder = Folder::open(&options.folder, &account)?;
    folder.stop_stale_server()?;
    let binaries = Binaries::find(options.binaries.as_deref())?;
    let binaries = if let Some(wanted) = folder.version()? {
        binaries::of_version(&binaries, wanted, folder.path())?
    } else {
        folder.init(&binaries[0], &account, USER, options.durability)?;
        &binaries[0]
    };
    let mut command = account.command(binaries.postgres(), folder.path(), true);
    command.arg("-D").arg(folder.data());
    for (name, value) in settings(options, &folder) {
        command.arg("-c").arg(format!("{name}={value}"));
    }
    command.stdout(folder.new_log()?).stderr(folder.same_log()?);
    let server = Server::spawn(command).map_err(ClusterError::io("start", &binaries.postgres()))?;
    Ok((server, folder))
}

/// The cluster's own settings first, so that the caller's win.
fn settings(options: &ClusterOptions, folder: &Folder) -> Vec<(String, String)> {
    let socket = folder.socket().display().to_string().replace('"', "\"\"");
    let mut settings = vec![
        ("listen_addresses".to_owned(), String::new()),
        ("port".to_owned(), PORT.to_string()),
        (
            "unix_socket_directories".to_owned(),
            format!("\"{socket}\""),
        ),
        ("logging_collector".to_owned(), "off".to_owned()),
        ("log_destination".to_owned(), "stderr".to_owned()),
    ];
    if options.durability == Durability::Fast {
        settings.push(("fsync".to_owned(), "off".to_owned()));
        settings.push(("full_page_writes".to_owned(), "off".to_owned()));
    }
    settings.extend(options.settings.iter().cloned());
    settings
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ClusterError> + Send + 'static,
) -> Result<T, ClusterError> {
    tokio::task::spawn_blocking(work)
        .await
        .expect("starting and stopping a cluster does not panic")
}

fn quote(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

/// Percent-encodes all but RFC 3986's unreserved characters.
fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
