//! What can be set, as text: the one list from which flags, environment, help and README are made.

use clap::Args;

use super::secret::Secret;

/// The settings of `coordinator serve`, not judged yet.
///
/// Each field is a flag and an environment variable; the flag wins, and an empty text counts as
/// absent. Its first doc line is its help text and its row in the README.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// The Postgres to use, `postgres://user:password@host/database`; required.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub database_url: Option<Secret>,

    /// Where gRPC is served.
    #[arg(
        long,
        env = "COORDINATOR_LISTEN",
        default_value = "127.0.0.1:7654",
        value_name = "ADDR"
    )]
    pub listen: String,

    /// Where the `Admin` service is served; beside the others when absent.
    #[arg(long, env = "COORDINATOR_ADMIN_LISTEN", value_name = "ADDR")]
    pub admin_listen: Option<String>,

    /// What `Admin` calls must carry, at least 24 printable characters; this or its file is required.
    #[arg(
        long,
        env = "COORDINATOR_OPERATOR_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    pub operator_token: Option<Secret>,

    /// A file that holds the operator token.
    #[arg(long, env = "COORDINATOR_OPERATOR_TOKEN_FILE", value_name = "FILE")]
    pub operator_token_file: Option<String>,

    /// Keys that seal secrets at rest, `id:base64 of 32 bytes`, comma-separated, the current one first; these or their file are required.
    #[arg(
        long,
        env = "COORDINATOR_MASTER_KEYS",
        hide_env_values = true,
        value_name = "KEYS"
    )]
    pub master_keys: Option<Secret>,

    /// A file that holds the master keys, comma-separated or one a line.
    #[arg(long, env = "COORDINATOR_MASTER_KEYS_FILE", value_name = "FILE")]
    pub master_keys_file: Option<String>,

    /// Database connections for writes and look-ups by key.
    #[arg(
        long,
        env = "COORDINATOR_LEDGER_CONNECTIONS",
        default_value = "8",
        value_name = "N"
    )]
    pub ledger_connections: String,

    /// Database connections for lists, status and administration.
    #[arg(
        long,
        env = "COORDINATOR_READ_CONNECTIONS",
        default_value = "8",
        value_name = "N"
    )]
    pub read_connections: String,

    /// Organizations whose commits may share a database statement when many write at once, more than 64 counting as 64; 1 if the database is sharded by organization.
    #[arg(
        long,
        env = "COORDINATOR_ORGANIZATIONS_PER_STATEMENT",
        default_value = "64",
        value_name = "N"
    )]
    pub organizations_per_statement: String,

    /// The longest that a call may wait for its commit to be confirmed.
    #[arg(
        long,
        env = "COORDINATOR_WAIT_CAP",
        default_value = "30s",
        value_name = "SPAN"
    )]
    pub wait_cap: String,

    /// How long a stopping process may take to finish what it has begun.
    #[arg(
        long,
        env = "COORDINATOR_DRAIN_DEADLINE",
        default_value = "20s",
        value_name = "SPAN"
    )]
    pub drain_deadline: String,

    /// How long a stopping process still takes connections, after its health says `NOT_SERVING`: load balancers have looked elsewhere by then.
    #[arg(
        long,
        env = "COORDINATOR_DRAIN_GRACE",
        default_value = "1s",
        value_name = "SPAN"
    )]
    pub drain_grace: String,

    /// How long a silent node keeps its Data Sources; at most 8 s.
    #[arg(
        long,
        env = "COORDINATOR_NODE_LEASE",
        default_value = "3s",
        value_name = "SPAN"
    )]
    pub node_lease: String,

    /// How often a node renews its lease; twice this and 500 ms must fit in the lease.
    #[arg(
        long,
        env = "COORDINATOR_NODE_RENEWAL",
        default_value = "1s",
        value_name = "SPAN"
    )]
    pub node_renewal: String,

    /// Development only: private networks (CIDR) that Data Sources may live in, over http and on any port.
    #[arg(
        long,
        env = "COORDINATOR_ALLOW_SUBNETS",
        value_delimiter = ',',
        value_name = "CIDR"
    )]
    pub allow_subnet: Vec<String>,

    /// Ports that Data Sources may use.
    #[arg(
        long,
        env = "COORDINATOR_ALLOW_PORTS",
        default_value = "443",
        value_delimiter = ',',
        value_name = "PORT"
    )]
    pub allow_port: Vec<String>,

    /// A PEM file with the listener's certificate chain; plain text when absent.
    #[arg(long, env = "COORDINATOR_TLS_CERTIFICATE", value_name = "FILE")]
    pub tls_certificate: Option<String>,

    /// A PEM file with the certificate's private key.
    #[arg(long, env = "COORDINATOR_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<String>,

    /// Commit requests that one node has in flight at most, shared out between its organizations.
    #[arg(
        long,
        env = "COORDINATOR_ATTEMPTS_IN_FLIGHT",
        default_value = "2048",
        value_name = "N"
    )]
    pub attempts_in_flight: String,

    /// Subscriptions that one node serves at once; more are refused as `overloaded`.
    #[arg(
        long,
        env = "COORDINATOR_STREAMS",
        default_value = "16384",
        value_name = "N"
    )]
    pub streams: String,

    /// The same, of one organization.
    #[arg(
        long,
        env = "COORDINATOR_STREAMS_PER_ORGANIZATION",
        default_value = "4096",
        value_name = "N"
    )]
    pub streams_per_organization: String,

    /// Calls that one node has in hand at most; more are refused as `overloaded`.
    #[arg(
        long,
        env = "COORDINATOR_CALLS_IN_FLIGHT",
        default_value = "8192",
        value_name = "N"
    )]
    pub calls_in_flight: String,

    /// How many of them one organization may have.
    #[arg(
        long,
        env = "COORDINATOR_CALLS_IN_FLIGHT_PER_ORGANIZATION",
        default_value = "4096",
        value_name = "N"
    )]
    pub calls_in_flight_per_organization: String,

    /// Days that the log of changes is kept.
    #[arg(
        long,
        env = "COORDINATOR_DELTA_RETENTION_DAYS",
        default_value = "30",
        value_name = "DAYS"
    )]
    pub delta_retention_days: String,

    /// Days that delivery attempts are kept.
    #[arg(
        long,
        env = "COORDINATOR_ATTEMPT_RETENTION_DAYS",
        default_value = "30",
        value_name = "DAYS"
    )]
    pub attempt_retention_days: String,

    /// Days that a settled managed commit's id is kept; sent again later, it takes effect again.
    #[arg(
        long,
        env = "COORDINATOR_MANAGED_COMMIT_RETENTION_DAYS",
        default_value = "30",
        value_name = "DAYS"
    )]
    pub managed_commit_retention_days: String,

    /// Days that a settled commit's id of a Data Source is kept, at least 35; for good when absent.
    #[arg(
        long,
        env = "COORDINATOR_SOURCE_COMMIT_RETENTION_DAYS",
        value_name = "DAYS"
    )]
    pub source_commit_retention_days: Option<String>,

    /// Days that the ids of events from Data Sources are kept, at least 30.
    #[arg(
        long,
        env = "COORDINATOR_FEED_EVENT_RETENTION_DAYS",
        default_value = "35",
        value_name = "DAYS"
    )]
    pub feed_event_retention_days: String,

    /// Days that events that could not be taken in are kept.
    #[arg(
        long,
        env = "COORDINATOR_QUARANTINED_EVENT_RETENTION_DAYS",
        default_value = "35",
        value_name = "DAYS"
    )]
    pub quarantined_event_retention_days: String,

    /// Days that the record of operators' actions is kept.
    #[arg(
        long,
        env = "COORDINATOR_ACTION_RETENTION_DAYS",
        default_value = "400",
        value_name = "DAYS"
    )]
    pub action_retention_days: String,

    /// How the process logs, to standard error: `text` or `json`.
    #[arg(
        long,
        env = "COORDINATOR_LOG_FORMAT",
        default_value = "text",
        value_name = "FORMAT"
    )]
    pub log_format: String,

    /// What it logs: `tracing` directives, such as `info,coordinator=debug`.
    #[arg(
        long,
        env = "COORDINATOR_LOG",
        default_value = "info",
        value_name = "FILTER"
    )]
    pub log_filter: String,

    /// Where traces and metrics go, OTLP over gRPC without TLS; nowhere when absent.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,

    /// What this process calls itself in traces and metrics.
    #[arg(
        long,
        env = "OTEL_SERVICE_NAME",
        default_value = "coordinator",
        value_name = "NAME"
    )]
    pub service_name: String,
}
