//! Rooms for the tests of the API.

use std::sync::Arc;
use std::time::Duration;

use backends::data_source::client::EndpointClient;
use backends::data_source::egress::EgressPolicy;
use secrecy::SecretString;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::Rooms;
use crate::courier::shares::Shares;
use crate::courier::{Couriers, Lease, Tools};
use crate::flush::Flushers;
use crate::keys::{KeyRing, MasterKeys};
use crate::log::Logs;
use crate::pages::PageTokens;
use crate::reads::Reads;
use crate::schemas::SchemaCache;
use crate::service::Service;
use crate::store::Store;
use crate::telemetry::metrics::Metrics;
use crate::verify::Verifier;
use crate::wake::Wake;

/// The operator's token in [`rooms`].
pub(super) const OPERATOR: &str = "operator-token";

/// Rooms over a store, with couriers that do not run.
#[expect(clippy::too_many_lines, reason = "every room once")]
pub(super) fn rooms(store: Store) -> Rooms {
    let master = MasterKeys::parse(&format!("m1:{}=", "A".repeat(43))).unwrap();
    let pages = Arc::new(PageTokens::new(&master));
    let keys = Arc::new(KeyRing::new(store.clone(), master));
    let egress = EgressPolicy::default();
    let endpoints = EndpointClient::new(egress.clone()).unwrap();
    let schemas = Arc::new(SchemaCache::new(Arc::new(store.clone())));
    let (metrics, tasks, wake) = (
        Metrics::noop(),
        TaskTracker::new(),
        Arc::new(Wake::default()),
    );
    let flushers = Flushers::new(
        store.clone(),
        Arc::clone(&schemas),
        Arc::clone(&wake),
        metrics.clone(),
        tasks.clone(),
    );
    let tools = Tools {
        store: store.clone(),
        flushers: flushers.clone(),
        schemas: Arc::clone(&schemas),
        keys: Arc::clone(&keys),
        endpoints: endpoints.clone(),
        wake: Arc::clone(&wake),
        attempts: Shares::new(16),
        looks: Shares::new(1),
        large_answers: Arc::new(Semaphore::new(1)),
        metrics: metrics.clone(),
        tasks,
    };
    let logs = Arc::new(Logs::new(&tools));
    let lease = Lease {
        length: Duration::from_secs(3),
        renewal: Duration::from_secs(1),
    };
    let verifier = verifier(&tools);
    let reads = Reads::new(
        store.clone(),
        Arc::clone(&schemas),
        endpoints,
        Arc::clone(&keys),
        Arc::clone(&pages),
    );
    let service = Service {
        store: store.clone(),
        flushers,
        schemas,
        couriers: Couriers::new(tools, Uuid::new_v4(), lease),
        wake,
        metrics,
        draining: CancellationToken::new(),
    };
    Rooms {
        service: Arc::new(service),
        reads,
        store,
        verifier,
        keys,
        egress,
        operator_token: Some(SecretString::from(OPERATOR)),
        wait_cap: Duration::from_secs(30),
        logs,
        pages,
    }
}

fn verifier(tools: &Tools) -> Verifier {
    Verifier::new(
        tools.store.clone(),
        tools.endpoints.clone(),
        Arc::clone(&tools.keys),
        Arc::clone(&tools.schemas),
    )
}
