//! The only room that reads the environment. Every mistake is reported at once; what comes out is
//! domain types whose relations hold.

mod parts;
mod reading;
mod secret;
mod settings;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use url::Url;

use self::reading::Reading;
pub use self::secret::Secret;
pub use self::settings::Settings;

/// How a coordinator runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its database.
    pub database: Database,
    /// Where it serves.
    pub listener: Listener,
    /// What opens its doors and seals its secrets.
    pub credentials: Credentials,
    /// How long things may take.
    pub times: Times,
    /// Where Data Sources may live.
    pub egress: Egress,
    /// How many are let in at a time.
    pub calls: Calls,
    /// How much is delivered at a time.
    pub delivery: Delivery,
    /// How many may follow logs.
    pub streams: Streams,
    /// How long history is kept.
    pub retention: Retention,
    /// What it tells about itself.
    pub telemetry: TelemetryConfig,
}

/// The database and the share of its connections that one node takes.
#[derive(Clone)]
pub struct Database {
    /// How to connect.
    pub options: PgConnectOptions,
    /// Connections for writes and look-ups by key.
    pub ledger_connections: u32,
    /// Connections for lists, status and administration.
    pub read_connections: u32,
    /// Organizations whose commits may share a statement.
    pub organizations_per_statement: usize,
}

/// Where the process serves.
#[derive(Clone, Debug)]
pub struct Listener {
    /// All services, `Admin` excepted when it has its own address.
    pub address: SocketAddr,
    /// The address of `Admin` alone.
    pub admin: Option<SocketAddr>,
    /// Certificate chain and private key, PEM; plain text when absent.
    pub tls: Option<(Vec<u8>, Secret)>,
}

/// What opens the doors, and what seals secrets at rest.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// What `Admin` calls carry.
    pub operator_token: Secret,
    /// Master keys, for [`MasterKeys::parse`](crate::keys::MasterKeys::parse), which takes them.
    pub master_keys: Secret,
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// The longest wait of a call for its commit.
    pub wait_cap: Duration,
    /// The longest that a stop may take.
    pub drain_deadline: Duration,
    /// How long a stopping process still takes connections.
    pub drain_grace: Duration,
    /// How long a silent node keeps its sources, by the clock of the database.
    pub node_lease: Duration,
    /// The pause between renewals.
    pub node_renewal: Duration,
}

/// Where Data Sources may live.
#[derive(Clone, Debug)]
pub struct Egress {
    /// Private networks that are allowed all the same; empty in production.
    pub allowed_subnets: Vec<IpNet>,
    /// Ports that may be used.
    pub allowed_ports: Vec<u16>,
}

/// How many calls one node lets in at a time.
#[derive(Clone, Copy, Debug)]
pub struct Calls {
    /// Of all organizations.
    pub in_flight: usize,
    /// Of each.
    pub per_organization: usize,
}

/// How much one node delivers at a time.
#[derive(Clone, Copy, Debug)]
pub struct Delivery {
    /// Commit requests in flight, over all Data Sources.
    pub attempts_in_flight: usize,
}

/// How many subscriptions one node serves at once.
#[derive(Clone, Copy, Debug)]
pub struct Streams {
    /// Of all organizations.
    pub all: usize,
    /// Of one organization.
    pub each: usize,
}

/// How many days history is kept.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// The log of changes.
    pub delta_days: u16,
    /// Delivery attempts.
    pub attempt_days: u16,
    /// Managed commits, from their settling on.
    pub managed_commit_days: u16,
    /// Commits of Data Sources, from their settling on; `None` for good.
    pub source_commit_days: Option<u16>,
    /// Names of events that were taken in.
    pub feed_event_days: u16,
    /// Events that could not be taken in.
    pub quarantined_event_days: u16,
    /// What operators did.
    pub action_days: u16,
}

/// What the process tells about itself, and to whom.
#[derive(Clone, Debug)]
pub struct TelemetryConfig {
    /// How log lines look.
    pub format: LogFormat,
    /// `tracing` directives, checked.
    pub filter: String,
    /// Where traces and metrics go, OTLP over gRPC.
    pub otlp_endpoint: Option<Url>,
    /// `service.name`.
    pub service_name: String,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Everything that is wrong with the settings, for a person. The process exits with 64.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Mistakes(Vec<String>);

impl Config {
    /// Judges the settings, files that they name included. The error lists every mistake and shows
    /// no secret.
    pub fn read(settings: &Settings) -> Result<Self, Mistakes> {
        let mut reading = Reading::default();
        let database = parts::database(&mut reading, settings);
        let listener = parts::listener(&mut reading, settings);
        let credentials = parts::credentials(&mut reading, settings);
        let times = parts::times(&mut reading, settings);
        let egress = parts::egress(&mut reading, settings);
        let calls = parts::calls(&mut reading, settings);
        let delivery = parts::delivery(&mut reading, settings);
        let streams = parts::streams(&mut reading, settings);
        let retention = parts::retention(&mut reading, settings);
        let telemetry = parts::telemetry(&mut reading, settings);
        reading.finish(|| {
            Some(Self {
                database: database?,
                listener: listener?,
                credentials: credentials?,
                times: times?,
                egress: egress?,
                calls: calls?,
                delivery: delivery?,
                streams: streams?,
                retention: retention?,
                telemetry: telemetry?,
            })
        })
    }

    /// What is allowed but should be known; each is logged as a warning at start.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.egress.allowed_subnets.is_empty() {
            warnings.push(format!(
                "Data Sources may live in {:?}: for development only",
                self.egress.allowed_subnets
            ));
        }
        if !self.database.is_verified() {
            warnings.push(format!(
                "the database on {} is reached without sslmode=verify-full: rows are readable",
                self.database.options.get_host()
            ));
        }
        let addresses = [Some(self.listener.address), self.listener.admin];
        for address in addresses.into_iter().flatten() {
            if self.listener.tls.is_none() && !address.ip().is_loopback() {
                warnings.push(format!(
                    "{address} is served without TLS: API keys are readable"
                ));
            }
        }
        warnings
    }
}

impl Database {
    /// Reads a URL. The error does not repeat it, since it may hold a password.
    pub fn parse_url(url: &str) -> Result<PgConnectOptions, String> {
        let url = Url::parse(url).map_err(|error| format!("not a URL: {error}"))?;
        if !["postgres", "postgresql"].contains(&url.scheme()) {
            return Err("not a postgres:// URL".to_owned());
        }
        url.as_str()
            .parse()
            .map_err(|_| "not a usable postgres:// URL".to_owned())
    }
}

impl Database {
    /// Whether it is on this machine, or proves who it is.
    fn is_verified(&self) -> bool {
        let host = self.options.get_host();
        let local = self.options.get_socket().is_some()
            || host.starts_with('/')
            || host == "localhost"
            || host
                .parse()
                .is_ok_and(|address: IpAddr| address.is_loopback());
        local || matches!(self.options.get_ssl_mode(), PgSslMode::VerifyFull)
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("host", &self.options.get_host())
            .field("database", &self.options.get_database())
            .field("ledger_connections", &self.ledger_connections)
            .field("read_connections", &self.read_connections)
            .finish_non_exhaustive()
    }
}
