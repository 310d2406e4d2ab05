//! Builds the server: its services, its limits, its listeners, its end.

mod connection;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use proto::v1;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::ServerTlsConfig;
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, health_reporter};

use super::Rooms;
use super::admin::AdminApi;
use super::coordinator::CoordinatorApi;
use super::data_sources::DataSourcesApi;
use super::edge::EdgeLayer;
use super::log::LogApi;
use super::schemas::SchemasApi;

/// No message is larger, in either direction.
pub(super) const LARGEST_MESSAGE: usize = 4 << 20;

/// Calls at once on one connection. A client that keeps to it queues by itself; more is refused by
/// the transport, for the client to try again.
const CALLS_PER_CONNECTION: u32 = 256;

/// Calls that a connection may make the transport take back by mistakes of its own; then it is sent
/// away. The transport's own limit is taken off by tonic, unless one is set.
const MISTAKES_PER_CONNECTION: usize = 1_024;

/// Bytes of all headers of a call.
const HEADERS: u32 = 16 << 10;

/// A silent client is asked for a sign of life this often, and given this long.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));

/// How long a client may take for its TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// The services that health is told of, beside the server as a whole.
const SERVICES: [&str; 6] = [
    "",
    "ablo.coordinator.v1.Coordinator",
    "ablo.coordinator.v1.Log",
    "ablo.coordinator.v1.Schemas",
    "ablo.coordinator.v1.DataSources",
    "ablo.coordinator.v1.Admin",
];

/// What a node lets in at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Calls of all organizations; more are refused as `overloaded`.
    pub calls: usize,
    /// Calls of one organization; more are refused as `overloaded`.
    pub calls_per_organization: usize,
    /// Bytes of answers that wait for their callers to read them; more are not kept.
    pub unread: usize,
    /// Streams of all organizations; more are refused as `overloaded`.
    pub streams: usize,
    /// Streams of one organization; more are refused as `overloaded`.
    pub streams_per_organization: usize,
    /// Connections from one address; more are closed at once.
    pub connections_per_address: usize,
    /// How long a new connection may take to begin to speak.
    pub preface: Duration,
    /// How long a connection may be silent later; more than a live one needs to answer a ping.
    pub silence: Duration,
    /// After this a connection takes no new calls and ends with its last one, so that clients spread
    /// over new nodes.
    pub connection_age: Duration,
    /// How long its last call may take then: longer than any, unless the client does not read.
    pub connection_end: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            calls: 8_192,
            calls_per_organization: 4_096,
            unread: 96 << 20,
            streams: 16_384,
            streams_per_organization: 4_096,
            connections_per_address: 1_024,
            preface: Duration::from_secs(5),
            silence: Duration::from_mins(1),
            connection_age: Duration::from_mins(30),
            connection_end: Duration::from_mins(70),
        }
    }
}

/// Where calls come in.
#[derive(Debug)]
pub struct Listeners {
    /// Every service, but Admin when it has its own.
    pub api: TcpListener,
    /// Admin alone.
    pub admin: Option<TcpListener>,
}

/// When the server goes down, in two steps.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// Health says `NOT_SERVING`; calls are still answered, while load balancers look elsewhere.
    pub draining: CancellationToken,
    /// No connection is accepted any more, and each ends with its last call.
    pub stop: CancellationToken,
}

/// The gRPC server, ready to serve.
#[derive(Debug)]
pub struct Server {
    rooms: Arc<Rooms>,
    limits: Limits,
    tls: Option<ServerTlsConfig>,
}

impl Server {
    /// A server in front of these rooms; speaks TLS when given a certificate.
    pub fn new(rooms: Arc<Rooms>, limits: Limits, tls: Option<ServerTlsConfig>) -> Self {
        Self {
            rooms,
            limits,
            tls: tls.map(|tls| tls.timeout(HANDSHAKE)),
        }
    }

    /// Serves until it is stopped and the last connection has ended. A call may take as long as its
    /// deadline, so await this under one of your own.
    ///
    /// Fails at once when the TLS configuration is wrong.
    pub async fn serve(
        &self,
        listeners: Listeners,
        shutdown: Shutdown,
    ) -> Result<(), tonic::transport::Error> {
        let (reporter, health) = health_reporter();
        report(&reporter, ServingStatus::Serving).await;
        let api = self.organization_services(Routes::new(health.clone()));
        let edge = EdgeLayer::new(Arc::clone(&self.rooms), &self.limits);
        let stop = || shutdown.stop.clone().cancelled_owned();
        let (api, admin) = match listeners.admin {
            None => (self.admin(api), None),
            Some(listener) => (api, Some((listener, self.admin(Routes::new(health))))),
        };
        let admin = async {
            match admin {
                None => Ok(()),
                Some((listener, routes)) => {
                    let routes = with_reflection(routes);
                    Box::pin(self.serve_on(listener, routes, edge.clone(), stop())).await
                }
            }
        };
        let api =
            Box::pin(self.serve_on(listeners.api, with_reflection(api), edge.clone(), stop()));
        let lapsed = self.rooms.service.couriers.lapsed();
        tokio::try_join!(api, admin, tell_health(reporter, lapsed, shutdown.clone()))?;
        Ok(())
    }

    async fn serve_on(
        &self,
        listener: TcpListener,
        routes: Routes,
        edge: EdgeLayer,
        stop: impl Future<Output = ()>,
    ) -> Result<(), tonic::transport::Error> {
        let mut builder = tonic::transport::Server::builder()
            .max_concurrent_streams(CALLS_PER_CONNECTION)
            .http2_keepalive_interval(Some(KEEPALIVE.0))
            .http2_keepalive_timeout(Some(KEEPALIVE.1))
            .http2_max_local_error_reset_streams(Some(MISTAKES_PER_CONNECTION))
            .http2_max_header_list_size(HEADERS)
            // Without a grace: with one, the transport cuts the connection off instead of ending it.
            .max_connection_age(self.limits.connection_age);
        if let Some(tls) = &self.tls {
            builder = builder.tls_config(tls.clone())?;
        }
        let connections = connection::accepted(
            listener,
            self.limits.connections_per_address,
            connection::Patience {
                preface: self.limits.preface,
                silence: self.limits.silence,
                life: self.limits.connection_age + self.limits.connection_end,
            },
        );
        let server = builder.layer(edge).add_routes(routes);
        server.serve_with_incoming_shutdown(connections, stop).await
    }

    fn organization_services(&self, routes: Routes) -> Routes {
        let rooms = || Arc::clone(&self.rooms);
        let Limits {
            streams,
            streams_per_organization: each,
            ..
        } = self.limits;
        routes
            .add_service(LogApi::new(rooms(), streams, each))
            .add_service(
                v1::coordinator_server::CoordinatorServer::new(CoordinatorApi { rooms: rooms() })
                    .max_decoding_message_size(LARGEST_MESSAGE)
                    .max_encoding_message_size(LARGEST_MESSAGE),
            )
            .add_service(
                v1::schemas_server::SchemasServer::new(SchemasApi { rooms: rooms() })
                    .max_decoding_message_size(LARGEST_MESSAGE)
                    .max_encoding_message_size(LARGEST_MESSAGE),
            )
            .add_service(
                v1::data_sources_server::DataSourcesServer::new(DataSourcesApi { rooms: rooms() })
                    .max_decoding_message_size(LARGEST_MESSAGE)
                    .max_encoding_message_size(LARGEST_MESSAGE),
            )
    }
    fn admin(&self, routes: Routes) -> Routes {
        routes.add_service(
            v1::admin_server::AdminServer::new(AdminApi {
                rooms: Arc::clone(&self.rooms),
            })
            .max_decoding_message_size(LARGEST_MESSAGE)
            .max_encoding_message_size(LARGEST_MESSAGE),
        )
    }
}

/// Lets clients ask what there is to call.
fn with_reflection(routes: Routes) -> Routes {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .expect("the descriptors are generated and a test proves them fresh");
    routes.add_service(reflection)
}

async fn report(reporter: &HealthReporter, status: ServingStatus) {
    for service in SERVICES {
        reporter.set_service_status(service, status).await;
    }
}

/// Says `NOT_SERVING` while the node's lease has lapsed, since the database cannot be reached, and
/// once draining begins; lets go of those who watch once the server stops: a watcher would keep its
/// connection open for ever.
async fn tell_health(
    mut reporter: HealthReporter,
    mut lapsed: watch::Receiver<bool>,
    shutdown: Shutdown,
) -> Result<(), tonic::transport::Error> {
    let follow = async {
        while lapsed.changed().await.is_ok() {
            let status = if *lapsed.borrow_and_update() {
                ServingStatus::NotServing
            } else {
                ServingStatus::Serving
            };
            report(&reporter, status).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = follow => {}
        () = shutdown.draining.cancelled() => {}
        () = shutdown.stop.cancelled() => {}
    }
    report(&reporter, ServingStatus::NotServing).await;
    shutdown.stop.cancelled().await;
    for service in SERVICES {
        reporter.clear_service_status(service).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
