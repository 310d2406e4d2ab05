//! How a command reaches the coordinator, and as whom.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use proto::v1::admin_client::AdminClient;
use proto::v1::coordinator_client::CoordinatorClient;
use proto::v1::data_sources_client::DataSourcesClient;
use proto::v1::log_client::LogClient;
use proto::v1::schemas_client::SchemasClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};

use crate::config::Secret;
use crate::failure::Failure;

const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// The server's own bound on answers.
const MAX_ANSWER: usize = 4 << 20;

/// Flags that every question takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct Connection {
    /// The coordinator's address.
    #[arg(
        long,
        global = true,
        env = "COORDINATOR_SERVER",
        default_value = "http://127.0.0.1:7654",
        value_name = "URL"
    )]
    pub server: String,

    /// The API key; it decides the organization.
    #[arg(
        long,
        global = true,
        env = "COORDINATOR_KEY",
        hide_env_values = true,
        value_name = "KEY"
    )]
    pub key: Option<Secret>,

    /// The operator token, for `org` and `key`.
    #[arg(
        long,
        global = true,
        env = "COORDINATOR_OPERATOR_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    pub operator_token: Option<Secret>,

    /// A PEM file with the certificate authority of an https server.
    #[arg(long, global = true, env = "COORDINATOR_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,

    /// Print JSON, one value a line, for programs.
    #[arg(long, global = true)]
    pub json: bool,
}

/// A coordinator, and who asks it.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    channel: Channel,
    bearer: MetadataValue<Ascii>,
}

impl Connection {
    /// Connects with the API key.
    pub(super) async fn as_caller(&self) -> Result<Server, Failure> {
        let key = self.key.as_ref().filter(|key| !key.expose().is_empty());
        let missing = || Failure::config("--key (COORDINATOR_KEY): is required");
        self.connect(key.ok_or_else(missing)?).await
    }

    /// Connects with the operator token.
    pub(super) async fn as_operator(&self) -> Result<Server, Failure> {
        let token = self
            .operator_token
            .as_ref()
            .filter(|token| !token.expose().is_empty());
        let missing =
            || Failure::config("--operator-token (COORDINATOR_OPERATOR_TOKEN): is required");
        self.connect(token.ok_or_else(missing)?).await
    }

    async fn connect(&self, secret: &Secret) -> Result<Server, Failure> {
        let url = if self.server.contains("://") {
            self.server.clone()
        } else {
            format!("http://{}", self.server)
        };
        let wrong = |error: &dyn std::fmt::Display| {
            Failure::config(format!("--server (COORDINATOR_SERVER): {error}"))
        };
        let mut endpoint = Endpoint::from_shared(url.clone())
            .map_err(|error| wrong(&error))?
            .connect_timeout(CONNECT_WITHIN);
        if url.starts_with("https://") {
            endpoint = endpoint
                .tls_config(self.tls()?)
                .map_err(|error| wrong(&error))?;
        }
        let channel = endpoint.connect().await.map_err(|error| {
            Failure::unavailable(format!("{url} does not answer: {}", root_cause(&error)))
        })?;
        Server::new(channel, secret)
    }

    fn tls(&self) -> Result<ClientTlsConfig, Failure> {
        let path = self.ca.as_ref();
        let path = path.ok_or_else(|| Failure::config("--ca (COORDINATOR_CA): https needs it"))?;
        let authority = std::fs::read(path)
            .map_err(|error| Failure::config(format!("--ca: {}: {error}", path.display())))?;
        Ok(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority)))
    }
}

impl Server {
    /// Asks through a channel with a key or a token.
    pub(crate) fn new(channel: Channel, secret: &Secret) -> Result<Self, Failure> {
        let mut bearer: MetadataValue<Ascii> = format!("Bearer {}", secret.expose())
            .parse()
            .map_err(|_| Failure::config("the key has characters that a header cannot carry"))?;
        bearer.set_sensitive(true);
        Ok(Self { channel, bearer })
    }

    /// A message with the key or the token beside it.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request
            .metadata_mut()
            .insert("authorization", self.bearer.clone());
        request
    }

    /// Commits and reads.
    pub(crate) fn coordinator(&self) -> CoordinatorClient<Channel> {
        CoordinatorClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    /// The log.
    pub(crate) fn log(&self) -> LogClient<Channel> {
        LogClient::new(self.channel.clone())
    }

    /// Schemas.
    pub(crate) fn schemas(&self) -> SchemasClient<Channel> {
        SchemasClient::new(self.channel.clone())
    }

    /// Data Sources.
    pub(crate) fn data_sources(&self) -> DataSourcesClient<Channel> {
        DataSourcesClient::new(self.channel.clone())
    }

    /// Organizations and keys.
    pub(crate) fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel.clone())
    }
}

/// Everything that a list has, page by page; `page` takes a token and gives the next one.
pub(super) async fn every_page<T>(
    mut page: impl AsyncFnMut(String) -> Result<(Vec<T>, String), Status>,
) -> Result<Vec<T>, Failure> {
    let (mut all, mut token) = (Vec::new(), String::new());
    loop {
        let (things, next) = page(token).await?;
        all.extend(things);
        if next.is_empty() {
            return Ok(all);
        }
        token = next;
    }
}

/// The innermost cause: the outer ones say "transport error".
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
