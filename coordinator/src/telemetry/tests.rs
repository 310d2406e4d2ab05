//! A collector on the loopback receives what the process exports.

use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use super::*;

#[derive(Clone, Debug, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<Span>>>,
    metrics: Arc<Mutex<Vec<String>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let resources = request.into_inner().resource_spans;
        let spans = resources.into_iter().flat_map(|one| one.scope_spans);
        self.spans
            .lock()
            .unwrap()
            .extend(spans.flat_map(|scope| scope.spans));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let resources = request.into_inner().resource_metrics;
        let scopes = resources.into_iter().flat_map(|one| one.scope_metrics);
        let names = scopes
            .flat_map(|scope| scope.metrics)
            .map(|metric| metric.name);
        self.metrics.lock().unwrap().extend(names);
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_span_and_a_metric_reach_the_collector() {
    let collector = Collector::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let lifecycle = crate::lifecycle::Lifecycle::new();
    let (server, stop) = (collector.clone(), lifecycle.soft().clone());
    lifecycle.spawn("collector", async move {
        tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(server.clone()))
            .add_service(MetricsServiceServer::new(server))
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop.cancelled())
            .await
            .unwrap();
    });

    let config = TelemetryConfig {
        format: LogFormat::Json,
        filter: "off".to_owned(),
        otlp_endpoint: Some(endpoint.parse().unwrap()),
        service_name: "coordinator".to_owned(),
    };
    let (telemetry, subscriber) = prepare(&config, std::io::sink).unwrap();
    let remote = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let cause = "00-11111111111111111111111111111111-2222222222222222-01";
    let outgoing = tracing::subscriber::with_default(subscriber, || {
        let span = tracing::info_span!("attempt", commit.id = "c1");
        trace::adopt(&span, remote);
        trace::link(&span, cause);
        let _entered = span.enter();
        trace::current().unwrap()
    });
    assert_eq!(outgoing[..36], remote[..36]);
    telemetry.metrics().commit("managed", "confirmed");
    telemetry.shutdown().await;

    let spans = std::mem::take(&mut *collector.spans.lock().unwrap());
    let span = spans.iter().find(|span| span.name == "attempt").unwrap();
    assert_eq!(
        span.parent_span_id,
        [0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31]
    );
    assert_eq!(span.links[0].trace_id, [0x11; 16]);
    assert!(
        span.attributes
            .iter()
            .any(|attribute| attribute.key == "commit.id")
    );
    assert_eq!(*collector.metrics.lock().unwrap(), ["coordinator.commits"]);
    lifecycle.drain(Duration::from_secs(5)).await;
}

#[test]
fn every_instrument_records_without_a_collector() {
    let metrics = Metrics::noop();
    metrics.commit("source", "queued");
    metrics.attempt("applied", Duration::from_millis(3));
    metrics.pending(1);
    metrics.append(7, Duration::from_millis(1));
    metrics.lost_race();
    metrics.head_lock();
    metrics.deltas(7);
    metrics.connections("ledger", 3);
}
