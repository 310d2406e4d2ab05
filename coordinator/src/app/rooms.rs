//! Opens the rooms behind the listeners, each with what it may use.

use std::net::SocketAddr;
use std::sync::Arc;

use backends::data_source::client::EndpointClient;
use backends::data_source::egress::EgressPolicy;
use secrecy::SecretString;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Identity, ServerTlsConfig};
use uuid::Uuid;

use crate::api::Rooms;
use crate::api::server::{Limits, Listeners, Server, Shutdown};
use crate::broken::WallClock;
use crate::config::Config;
use crate::courier::shares::Shares;
use crate::courier::{Couriers, Lease, Tools};
use crate::failure::Failure;
use crate::feed::LARGE_ANSWERS;
use crate::flush::Flushers;
use crate::keys::{KeyFault, KeyRing, MasterKeys};
use crate::lifecycle::Lifecycle;
use crate::log::Logs;
use crate::pages::PageTokens;
use crate::reads::Reads;
use crate::schemas::SchemaCache;
use crate::service::Service;
use crate::store::Store;
use crate::telemetry::metrics::Metrics;
use crate::verify::Verifier;
use crate::wake::Wake;

/// Opens every room. `own` are this process's listeners: no Data Source may be one of them, nor the
/// database.
pub(super) async fn open(
    config: &Config,
    store: &Store,
    lifecycle: &Lifecycle,
    (metrics, own): (Metrics, Vec<SocketAddr>),
) -> Result<Rooms, Failure> {
    let master = MasterKeys::parse(config.credentials.master_keys.expose())
        .map_err(|fault| Failure::config(format!("--master-keys: {fault}")))?;
    let pages = Arc::new(PageTokens::new(&master));
    let keys = Arc::new(KeyRing::new(store.clone(), master));
    match keys.check_master_keys().await {
        Ok(()) => {}
        Err(KeyFault::Master(fault)) => {
            return Err(Failure::config(format!("--master-keys: {fault}")));
        }
        Err(KeyFault::Store(error)) => return Err(Failure::unavailable(error.to_string())),
    }
    let egress = egress(config, own).await;
    let shares = shares(config);
    let tools = tools(store, lifecycle, (metrics, shares), (&keys, &egress))?;
    let reads = Reads::new(
        store.clone(),
        Arc::clone(&tools.schemas),
        tools.endpoints.clone(),
        Arc::clone(&keys),
        Arc::clone(&pages),
    );
    let verifier = Verifier::new(
        store.clone(),
        tools.endpoints.clone(),
        Arc::clone(&keys),
        Arc::clone(&tools.schemas),
    );
    let logs = Arc::new(Logs::new(&tools));
    let token = config.credentials.operator_token.expose();
    Ok(Rooms {
        service: Arc::new(service(config, lifecycle, tools)),
        reads,
        store: store.clone(),
        verifier,
        keys,
        egress,
        operator_token: (!token.is_empty()).then(|| SecretString::from(token.to_owned())),
        wait_cap: config.times.wait_cap,
        logs,
        pages,
    })
}

/// Where Data Sources may live. A database that is reached through a socket has no address.
async fn egress(config: &Config, mut own: Vec<SocketAddr>) -> EgressPolicy {
    let database = &config.database.options;
    if database.get_socket().is_none() {
        let host = (database.get_host(), database.get_port());
        own.extend(tokio::net::lookup_host(host).await.into_iter().flatten());
    }
    EgressPolicy {
        allowed_subnets: config.egress.allowed_subnets.clone(),
        allowed_ports: config.egress.allowed_ports.clone(),
        own_addresses: own,
    }
}

/// What organizations share out among themselves: requests in flight, and connections that look into
/// inboxes; of these, half are left for appends.
fn shares(config: &Config) -> (Shares, Shares) {
    let connections = usize::try_from(config.database.ledger_connections).unwrap_or(1);
    (
        Shares::new(config.delivery.attempts_in_flight),
        Shares::new(connections / 2),
    )
}

/// What couriers work with, and the service shares.
fn tools(
    store: &Store,
    lifecycle: &Lifecycle,
    (metrics, (attempts, looks)): (Metrics, (Shares, Shares)),
    (keys, egress): (&Arc<KeyRing>, &EgressPolicy),
) -> Result<Tools, Failure> {
    let wake = Arc::new(Wake::default());
    let tasks = lifecycle.tasks().clone();
    let schemas = Arc::new(SchemaCache::new(Arc::new(store.clone())));
    Ok(Tools {
        flushers: Flushers::new(
            store.clone(),
            Arc::clone(&schemas),
            Arc::clone(&wake),
            metrics.clone(),
            tasks.clone(),
        ),
        schemas,
        keys: Arc::clone(keys),
        endpoints: EndpointClient::builder(egress.clone())
            .clock(Arc::new(WallClock))
            .build()
            .map_err(|error| Failure::internal(format!("no HTTP client: {error}")))?,
        store: store.clone(),
        wake,
        attempts,
        looks,
        large_answers: Arc::new(Semaphore::new(LARGE_ANSWERS)),
        metrics,
        tasks,
    })
}

fn service(config: &Config, lifecycle: &Lifecycle, tools: Tools) -> Service {
    let lease = Lease {
        length: config.times.node_lease,
        renewal: config.times.node_renewal,
    };
    Service {
        store: tools.store.clone(),
        flushers: tools.flushers.clone(),
        schemas: Arc::clone(&tools.schemas),
        wake: Arc::clone(&tools.wake),
        metrics: tools.metrics.clone(),
        draining: lifecycle.soft().clone(),
        couriers: Couriers::new(tools, Uuid::new_v4(), lease),
    }
}

/// Serves until the lifecycle ends; then no new connection is taken, and each ends with its last
/// call.
pub(super) fn serve(
    config: &Config,
    lifecycle: &Lifecycle,
    rooms: Arc<Rooms>,
    listeners: Listeners,
) {
    let tls = config.listener.tls.as_ref().map(|(certificate, key)| {
        ServerTlsConfig::new().identity(Identity::from_pem(certificate, key.expose()))
    });
    let limits = Limits {
        streams: config.streams.all,
        streams_per_organization: config.streams.each,
        calls: config.calls.in_flight,
        calls_per_organization: config.calls.per_organization,
        ..Limits::default()
    };
    let server = Server::new(rooms, limits, tls);
    let shutdown = Shutdown {
        draining: lifecycle.soft().clone(),
        stop: CancellationToken::new(),
    };
    lifecycle.spawn("grace", {
        let (soft, hard) = (lifecycle.soft().clone(), lifecycle.hard().clone());
        let (stop, grace) = (shutdown.stop.clone(), config.times.drain_grace);
        async move {
            soft.cancelled().await;
            hard.run_until_cancelled(tokio::time::sleep(grace)).await;
            stop.cancel();
        }
    });
    let hard = lifecycle.hard().clone();
    lifecycle.spawn_vital("server", async move {
        let end = hard
            .run_until_cancelled(Box::pin(server.serve(listeners, shutdown)))
            .await;
        if let Some(Err(error)) = end {
            tracing::error!(%error, "the server ended");
        }
    });
}
