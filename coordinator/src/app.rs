//! The process put together: what `serve` and `dev` run, and tests start in their own process.

mod rooms;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;

use crate::api::server::Listeners;
use crate::config::{Config, Database, Settings};
use crate::failure::Failure;
use crate::lifecycle::{Ending, Lifecycle};
use crate::migrate::{self, partitions};
use crate::retention;
use crate::store::Store;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::{self, Telemetry};
use crate::wake::signals;

/// A coordinator that serves.
#[derive(Debug)]
pub struct App {
    store: Store,
    address: SocketAddr,
    admin_address: Option<SocketAddr>,
}

/// Reads the settings, serves until a signal, drains.
pub(crate) async fn serve(settings: &Settings) -> Result<Ending, Failure> {
    let config =
        Config::read(settings).map_err(|mistakes| Failure::config(mistakes.to_string()))?;
    let telemetry = announce(&config)?;
    let lifecycle = Lifecycle::new();
    lifecycle
        .obey_signals()
        .map_err(|error| Failure::internal(format!("no signals: {error}")))?;
    let app = App::start(&config, &lifecycle, telemetry.metrics().clone()).await?;
    tracing::info!(listen = %app.address(), "serving on {}", app.address());
    let ending = app.until_stopped(&config, &lifecycle).await;
    tracing::info!(?ending, "stopped");
    telemetry.shutdown().await;
    Ok(ending)
}

/// Starts telemetry and says what should be known of the config.
pub(crate) fn announce(config: &Config) -> Result<Telemetry, Failure> {
    let telemetry = telemetry::start(&config.telemetry)
        .map_err(|error| Failure::internal(format!("no telemetry: {error}")))?;
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    Ok(telemetry)
}

impl App {
    /// Checks the database, opens every room and serves. When it returns, calls are answered.
    pub async fn start(
        config: &Config,
        lifecycle: &Lifecycle,
        metrics: Metrics,
    ) -> Result<Self, Failure> {
        let store = open(&config.database).await?;
        lifecycle.spawn_vital("partitions", {
            let (pool, retention) = (store.reads.clone(), config.retention);
            let soft = lifecycle.soft().clone();
            async move {
                soft.run_until_cancelled(partitions::keep(pool, retention))
                    .await;
            }
        });
        lifecycle.spawn_vital("retention", {
            let (store, metrics) = (store.clone(), metrics.clone());
            let (soft, span) = (lifecycle.soft().clone(), config.retention);
            async move {
                soft.run_until_cancelled(retention::keep(store, span, metrics))
                    .await;
            }
        });
        let listeners = Listeners {
            api: bind("listen", config.listener.address).await?,
            admin: match config.listener.admin {
                Some(address) => Some(bind("admin-listen", address).await?),
                None => None,
            },
        };
        let address = local(&listeners.api)?;
        let admin_address = listeners.admin.as_ref().map(local).transpose()?;
        let own: Vec<SocketAddr> = [Some(address), admin_address]
            .into_iter()
            .flatten()
            .collect();
        let rooms = rooms::open(config, &store, lifecycle, (metrics, own)).await?;
        lifecycle.spawn_vital("couriers", {
            let (couriers, soft) = (rooms.service.couriers.clone(), lifecycle.soft().clone());
            async move { couriers.run(soft).await }
        });
        lifecycle.spawn_vital("logs", {
            let (logs, keys) = (Arc::clone(&rooms.logs), Arc::clone(&rooms.keys));
            let soft = lifecycle.soft().clone();
            async move { logs.keep(&keys, &soft).await }
        });
        lifecycle.spawn_vital("signals", {
            let (store, wake) = (store.clone(), Arc::clone(&rooms.service.wake));
            let soft = lifecycle.soft().clone();
            async move { signals::carry(store, &wake, soft).await }
        });
        rooms::serve(config, lifecycle, Arc::new(rooms), listeners);
        Ok(Self {
            store,
            address,
            admin_address,
        })
    }

    /// Where it serves; the port is known even if the config left it open.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it serves `Admin`, when apart.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_address
    }

    /// Waits until a stop is asked for, and drains.
    pub async fn until_stopped(self, config: &Config, lifecycle: &Lifecycle) -> Ending {
        lifecycle.soft().cancelled().await;
        let ending = lifecycle.drain(config.times.drain_deadline).await;
        self.store.close().await;
        ending
    }
}

/// The store, on a schema that this program can run on, with room for the coming days.
async fn open(database: &Database) -> Result<Store, Failure> {
    let store = Store::open(
        database.options.clone(),
        database.ledger_connections,
        database.read_connections,
    )
    .sharing(database.organizations_per_statement);
    migrate::check(&store.reads)
        .await
        .map_err(Failure::from_schema)?;
    partitions::ensure(&store.reads)
        .await
        .map_err(|error| Failure::unavailable(format!("partitions could not be made: {error}")))?;
    Ok(store)
}

async fn bind(setting: &str, address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address)
        .await
        .map_err(|error| Failure::config(format!("--{setting}: {address}: {error}")))
}

fn local(listener: &TcpListener) -> Result<SocketAddr, Failure> {
    listener
        .local_addr()
        .map_err(|error| Failure::internal(error.to_string()))
}
