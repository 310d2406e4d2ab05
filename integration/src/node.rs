//! A coordinator in a process of its own: its embedded default, Postgres included.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use proto::v1::coordinator_client::CoordinatorClient;
use sqlx::postgres::PgConnectOptions;
use tempfile::TempDir;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::attentive::Attentive;
use crate::process::{Launch, Process, Role};

/// A running `coordinator dev`. Dropping it kills it.
#[derive(Debug)]
pub struct Node {
    process: Process,
    database: PgConnectOptions,
}

/// A connection that carries an API key on every call.
pub type Authorized = InterceptedService<Attentive, Authorization>;

/// Adds an API key to a call.
#[derive(Clone)]
pub struct Authorization(MetadataValue<Ascii>);

impl Node {
    /// Starts a coordinator with its data in `folder`, on a free loopback port, and waits until it is
    /// ready. The executable must be one that calls [`crate::process::role`]; its log is
    /// `coordinator.log` beside the data.
    pub fn start(executable: PathBuf, folder: &Path) -> anyhow::Result<Self> {
        let data = folder.join("coordinator");
        let process = Process::start(&Launch {
            executable,
            role: Role::Coordinator,
            arguments: &[
                "dev".as_ref(),
                "--json".as_ref(),
                "--listen".as_ref(),
                "127.0.0.1:0".as_ref(),
                "--data-dir".as_ref(),
                data.as_os_str(),
            ],
            environment: &[],
            log: &folder.join("coordinator.log"),
        })?;
        let database = process
            .ready("database_url")?
            .parse()
            .context("its own database")?;
        Ok(Self { process, database })
    }

    /// Where it serves gRPC, as `host:port`.
    pub fn address(&self) -> anyhow::Result<&str> {
        self.process.ready("listen")
    }

    /// The API key of its organization.
    pub fn key(&self) -> anyhow::Result<&str> {
        self.process.ready("key")
    }

    /// Its own database, past the coordinator.
    pub fn database(&self) -> PgConnectOptions {
        self.database.clone()
    }

    /// Connects with its organization's key, for any of the generated clients.
    pub async fn connect(&self) -> anyhow::Result<Authorized> {
        let url = format!("http://{}", self.address()?);
        let channel = Endpoint::from_shared(url)?.connect().await?;
        let authorization = Authorization::bearer(self.key()?)?;
        Ok(authorization.over(channel))
    }

    /// Connects a client that writes and reads rows.
    pub async fn client(&self) -> anyhow::Result<CoordinatorClient<Authorized>> {
        Ok(CoordinatorClient::new(self.connect().await?))
    }

    /// Kills it as a crash would.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill()?;
        Ok(())
    }

    /// Asks it to stop and waits until it has, its Postgres included. Connections to it end in the
    /// meantime, which is what it waits for.
    pub async fn stop(self) -> anyhow::Result<()> {
        let process = self.process;
        tokio::task::spawn_blocking(|| process.stop())
            .await?
            .context("the coordinator")
    }
}

impl Authorization {
    /// With a key, or the operator's token.
    pub fn bearer(token: &str) -> anyhow::Result<Self> {
        Ok(Self(format!("Bearer {token}").parse()?))
    }

    /// A connection that carries it.
    pub fn over(self, channel: Channel) -> Authorized {
        InterceptedService::new(Attentive::new(channel), self)
    }
}

impl Interceptor for Authorization {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request
            .metadata_mut()
            .insert("authorization", self.0.clone());
        Ok(request)
    }
}

impl std::fmt::Debug for Authorization {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authorization(***)")
    }
}

/// A temporary folder for a node, open to the account that Postgres runs as when this is root.
pub fn temporary_folder(prefix: &str) -> io::Result<TempDir> {
    tempfile::Builder::new()
        .prefix(prefix)
        .permissions(Permissions::from_mode(0o755))
        .tempdir()
}
