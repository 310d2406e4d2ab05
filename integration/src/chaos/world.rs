//! Everything that a run is about: Postgres, nodes, organizations, endpoints, and proxies in between.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use coordinator::cluster::{Cluster, ClusterOptions, Durability};
use proto::v1;
use serde_json::json;
use sqlx::Connection;
use sqlx::postgres::{PgConnection, PgPool, PgPoolOptions};
use tempfile::TempDir;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::actors;
use super::line::Line;
use super::nemesis::Custody;
use super::proxy::{Proxy, Upstream};
use crate::app::{Flags, Tenant, TestNode, intent};
use crate::endpoint::{Endpoint, Ledger};
use crate::history::Position;
use crate::node::temporary_folder;

pub(super) const NODES: usize = 3;
/// How long a node that is silent keeps its sources.
pub(super) const LEASE: Duration = Duration::from_millis(1_500);
/// Managed rows.
pub(super) const MANAGED: &str = "notes";
/// How long a request at an endpoint may take.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
const DATABASE: &str = "chaos";

/// Rows of each model that all clients change.
pub(super) const CLASSES: [(&str, u32); 3] = [("h", 8), ("w", 56), ("c", 200)];

/// Their ids.
pub(super) fn row_ids() -> impl Iterator<Item = String> {
    let class = |(class, count): (&'static str, u32)| {
        (0..count).map(move |number| format!("{class}{number}"))
    };
    CLASSES.into_iter().flat_map(class)
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) nodes: Vec<tokio::sync::Mutex<TestNode>>,
    /// Between each node and Postgres.
    pub(super) links: Vec<Proxy>,
    pub(super) organizations: Vec<Organization>,
    pub(super) postgres: tokio::sync::Mutex<Option<Cluster>>,
    pub(super) pool: PgPool,
    /// Keys that were made since the start and are not revoked, by name.
    pub(super) keys: tokio::sync::Mutex<Vec<(String, String)>>,
    /// Clients and the nemesis stop.
    pub(super) over: CancellationToken,
    /// What was done to it, and when, in nanoseconds.
    faults: Mutex<Vec<(u64, &'static str)>>,
    /// How many subscribers were told to begin anew.
    resets: AtomicU64,
    /// For each takeover: seconds since the last owner had renewed its lease.
    takeovers: Mutex<Vec<f64>>,
    begun: Instant,
    calls: AtomicU64,
    options: ClusterOptions,
    _folder: TempDir,
}

/// A tenant, with a door at each node.
#[derive(Debug)]
pub(super) struct Organization {
    pub(super) name: &'static str,
    pub(super) doors: Vec<Tenant>,
    pub(super) sinks: Vec<Sink>,
    /// What was in the log before the retention passed over it.
    pub(super) kept: tokio::sync::Mutex<Vec<Position>>,
    /// The stream that some of its clients share.
    pub(super) line: Line,
}

/// A Data Source; its model has the same name.
#[derive(Debug)]
pub(super) struct Sink {
    pub(super) model: &'static str,
    pub(super) endpoint: Endpoint,
    pub(super) proxy: Proxy,
    /// What the nemesis holds there.
    pub(super) custody: Custody,
}

impl World {
    pub(super) async fn start(
        executable: &str,
        environment: Vec<(&'static str, String)>,
        seed: u64,
    ) -> anyhow::Result<Self> {
        let folder = temporary_folder("coordinator-chaos-")?;
        let options = options(folder.path().join("postgres"));
        let cluster = Cluster::start(options.clone()).await?;
        cluster.create_database(DATABASE).await?;
        let direct = cluster.connect_options(DATABASE);
        let mut connection = PgConnection::connect_with(&direct).await?;
        sqlx::migrate!("../migrations").run(&mut connection).await?;
        connection.close().await?;
        let socket = direct.get_socket().context("it is reached by a socket")?;
        let socket = socket.join(".s.PGSQL.5432");
        let (mut links, mut nodes) = (Vec::new(), Vec::new());
        for _ in 0..NODES {
            let link = Proxy::start(Upstream::Unix(socket.clone())).await?;
            let address = link.address();
            let url = format!("postgres://coordinator@{address}/{DATABASE}?sslmode=disable");
            let node = TestNode::start(executable, &url, flags(), environment.clone()).await;
            nodes.push(node);
            links.push(link);
        }
        let addresses: Vec<_> = nodes.iter().map(|it| it.address().to_owned()).collect();
        let mut organizations = Vec::new();
        for (name, models) in [
            ("acme", &["good", "flaky", "slow", "hostile"][..]),
            ("globex", &["good"][..]),
        ] {
            organizations.push(Organization::start(name, models, &addresses, seed).await?);
        }
        Ok(Self {
            nodes: nodes.into_iter().map(tokio::sync::Mutex::new).collect(),
            links,
            organizations,
            postgres: tokio::sync::Mutex::new(Some(cluster)),
            pool: PgPoolOptions::new()
                .max_connections(4)
                .connect_lazy_with(direct),
            keys: tokio::sync::Mutex::default(),
            over: CancellationToken::new(),
            faults: Mutex::default(),
            resets: AtomicU64::new(0),
            takeovers: Mutex::default(),
            begun: Instant::now(),
            calls: AtomicU64::new(0),
            options,
            _folder: folder,
        })
    }

    /// Nanoseconds since the run began, each given once.
    pub(super) fn moment(&self) -> u64 {
        let now = u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let before = self.calls.fetch_max(now, Ordering::SeqCst);
        if before < now {
            return now;
        }
        self.calls.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Takes note of a fault.
    pub(super) fn fault(&self, kind: &'static str) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.push((self.moment(), kind));
    }

    pub(super) fn faults(&self) -> Vec<(u64, &'static str)> {
        let faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.clone()
    }

    /// Takes note of a subscriber that was told to begin anew.
    pub(super) fn reset(&self) {
        self.resets.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn resets(&self) -> u64 {
        self.resets.load(Ordering::Relaxed)
    }

    /// Takes note of a takeover, so many seconds after the last owner's last sign of life.
    pub(super) fn taken_over(&self, after: f64) {
        let takeovers = self.takeovers.lock();
        takeovers
            .unwrap_or_else(PoisonError::into_inner)
            .push(after);
    }

    pub(super) fn takeovers(&self) -> Vec<f64> {
        let takeovers = self.takeovers.lock();
        takeovers.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Starts Postgres again in its folder.
    pub(super) async fn start_postgres(&self) -> anyhow::Result<Cluster> {
        Ok(Cluster::start(self.options.clone()).await?)
    }

    /// Memory of each node, in bytes.
    pub(super) async fn resident(&self) -> Vec<u64> {
        let mut resident = Vec::new();
        for node in &self.nodes {
            resident.push(node.lock().await.memory());
        }
        resident
    }
}

fn options(folder: PathBuf) -> ClusterOptions {
    let settings = [
        ("max_connections", "200"),
        ("max_wal_size", "256MB"),
        ("checkpoint_timeout", "30s"),
    ];
    ClusterOptions {
        folder,
        binaries: None,
        durability: Durability::Fast,
        settings: settings
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
    }
}

fn flags() -> Flags {
    Flags::default()
        .with("node-lease", format!("{}ms", LEASE.as_millis()))
        .with("node-renewal", "400ms")
        .with("drain-deadline", "5s")
}

impl Organization {
    async fn start(
        name: &'static str,
        models: &[&'static str],
        addresses: &[String],
        seed: u64,
    ) -> anyhow::Result<Self> {
        let tenant = Tenant::create(&addresses[0], name).await;
        let fields = json!({
            "type": "object",
            "properties": {"token": {"type": "string"}},
            "additionalProperties": false,
        });
        let mut document = json!({"models": {MANAGED: {"backing": "managed", "schema": fields}}});
        let mut sinks = Vec::new();
        for model in models.iter().copied() {
            let endpoint = Endpoint::start(tenant.key()).await?;
            let proxy = Proxy::start(Upstream::Tcp(endpoint.address())).await?;
            let url = format!("http://{}/ablo", proxy.address());
            let create = v1::CreateDataSourceRequest {
                data_source_id: model.to_owned(),
                data_source: Some(source(model, url)?),
                ..v1::CreateDataSourceRequest::default()
            };
            tenant.sources().create(create).await?;
            document["models"][model] = json!({"backing": {"dataSource": model}, "schema": fields});
            sinks.push(Sink {
                model,
                endpoint,
                proxy,
                custody: Custody::default(),
            });
        }
        tenant.push(&document.to_string()).await;
        for model in models.iter().copied().chain([MANAGED]) {
            let token = format!("{name}~rows-{model}");
            let creates = row_ids().map(|id| intent::create(model, &id, &json!({"token": token})));
            let receipt = tenant
                .settle(intent::commit(&token, creates.collect()))
                .await;
            ensure!(receipt.state() == v1::CommitState::Confirmed, "{receipt:?}");
        }
        for sink in &sinks {
            sink.endpoint.set_ledger(match sink.model {
                "good" | "flaky" => Ledger::WebhookId,
                "slow" => Ledger::CorrelationId,
                _ => Ledger::ClientTxId,
            });
            actors::play(sink, seed);
        }
        Ok(Self {
            name,
            doors: addresses.iter().map(|it| tenant.at(it)).collect(),
            sinks,
            kept: tokio::sync::Mutex::default(),
            line: Line::default(),
        })
    }
}

fn source(model: &str, url: String) -> anyhow::Result<v1::DataSource> {
    let delay = Duration::from_millis(50).try_into()?;
    Ok(v1::DataSource {
        name: format!("dataSources/{model}"),
        url,
        retry_policy: Some(v1::RetryPolicy {
            delays: vec![delay; 30],
        }),
        request_timeout: Some(REQUEST_TIMEOUT.try_into()?),
        max_in_flight: 16,
        feed_lag: Some(Duration::from_secs(5).try_into()?),
        ..v1::DataSource::default()
    })
}
