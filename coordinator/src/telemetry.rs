//! What the process tells about itself: log lines to standard error, and traces and metrics over
//! OTLP when an endpoint is set. No other room names OpenTelemetry.

pub mod metrics;
#[cfg(test)]
mod tests;
pub mod trace;

use std::panic::PanicHookInfo;
use std::time::Duration;

use opentelemetry::metrics::MeterProvider;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{MetricExporter, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use self::metrics::Metrics;
use crate::config::{LogFormat, TelemetryConfig};

/// What a collector that does not answer may cost at the end of the process.
const SHUTDOWN_WITHIN: Duration = Duration::from_secs(3);
/// The instrumentation scope of every span and instrument.
const SCOPE: &str = "coordinator";

/// Running telemetry. Dropping it loses what was not flushed.
#[derive(Debug)]
pub struct Telemetry {
    exporters: Option<Exporters>,
    metrics: Metrics,
}

/// Where spans and numbers leave.
#[derive(Clone, Debug)]
struct Exporters {
    traces: SdkTracerProvider,
    meters: SdkMeterProvider,
}

/// Why telemetry could not start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The exporter was refused.
    #[error("the OTLP exporter could not be built")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// The log filter was refused.
    #[error("the log filter is not valid")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The process has a subscriber already.
    #[error("logging has been started before")]
    Started(#[from] tracing_subscriber::util::TryInitError),
}

/// Starts logging for the whole process, once, and exporting if an endpoint is set. Call it inside
/// the runtime: the exporter's connection lives there.
pub fn start(config: &TelemetryConfig) -> Result<Telemetry, TelemetryError> {
    let (telemetry, subscriber) = prepare(config, std::io::stderr)?;
    subscriber.try_init()?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(telemetry)
}

/// A panic ends its task, not the process; what it said goes where everything else is told.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("no message");
    let place = panic
        .location()
        .map(ToString::to_string)
        .unwrap_or_default();
    tracing::error!(place, "panicked at {place}: {message}");
}

impl Telemetry {
    /// The instruments.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Sends what has gathered, now.
    pub async fn flush(&self) {
        let Some(exporters) = self.exporters.clone() else {
            return;
        };
        outside_the_runtime(move || {
            warn_if_lost(exporters.traces.force_flush());
            warn_if_lost(exporters.meters.force_flush());
        })
        .await;
    }

    /// Sends what has gathered, and nothing after it.
    pub async fn shutdown(self) {
        let Some(exporters) = self.exporters else {
            return;
        };
        outside_the_runtime(move || {
            warn_if_lost(exporters.traces.shutdown_with_timeout(SHUTDOWN_WITHIN));
            warn_if_lost(exporters.meters.shutdown_with_timeout(SHUTDOWN_WITHIN));
        })
        .await;
    }
}

/// The exporters' calls block until their threads, which need the runtime, are done.
async fn outside_the_runtime(work: impl FnOnce() + Send + 'static) {
    if tokio::task::spawn_blocking(work).await.is_err() {
        tracing::warn!("flushing telemetry panicked");
    }
}

fn warn_if_lost(outcome: opentelemetry_sdk::error::OTelSdkResult) {
    if let Err(error) = outcome {
        tracing::warn!(%error, "some telemetry was lost");
    }
}

/// Everything but making it the process's own.
fn prepare<W>(
    config: &TelemetryConfig,
    writer: W,
) -> Result<(Telemetry, impl Subscriber + Send + Sync + use<W>), TelemetryError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let exporters = config
        .otlp_endpoint
        .as_ref()
        .map(|endpoint| exporters(endpoint.as_str(), &config.service_name))
        .transpose()?;
    let metrics = match &exporters {
        Some(exporters) => Metrics::new(&exporters.meters.meter(SCOPE)),
        None => Metrics::noop(),
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines = match config.format {
        LogFormat::Text => lines.with_ansi(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let spans = exporters.as_ref().map(|exporters| {
        tracing_opentelemetry::layer()
            .with_tracer(exporters.traces.tracer(SCOPE))
            // The exporter's own calls must not be traced, or each export would cause the next.
            .with_filter(EnvFilter::new("info,h2=off,hyper=off,tonic=off,tower=off"))
    });
    let subscriber = tracing_subscriber::registry()
        .with(spans)
        .with(lines.with_filter(EnvFilter::try_new(&config.filter)?));
    Ok((Telemetry { exporters, metrics }, subscriber))
}

fn exporters(endpoint: &str, service: &str) -> Result<Exporters, TelemetryError> {
    let resource = Resource::builder()
        .with_service_name(service.to_owned())
        .build();
    let spans = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .build()?;
    let numbers = MetricExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .build()?;
    Ok(Exporters {
        traces: SdkTracerProvider::builder()
            .with_resource(resource.clone())
            .with_batch_exporter(spans)
            .build(),
        meters: SdkMeterProvider::builder()
            .with_resource(resource)
            .with_periodic_exporter(numbers)
            .build(),
    })
}
