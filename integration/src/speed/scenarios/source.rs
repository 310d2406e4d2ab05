//! Rows in a customer's database, against requests that nobody remembers.

use std::sync::Arc;
use std::time::Duration;

use super::{Bench, Front, best, known};
use crate::app::Tenant;
use crate::speed::bare;
use crate::speed::endpoint::{Manner, Plain};
use crate::speed::pairs::Pairs;
use crate::speed::report::Outcome;
use crate::speed::service::{At, Service};
use crate::speed::wire::Streams;
use crate::speed::workload::Workload;

const CALLERS: [usize; 2] = [64, 256];
/// Requests in flight at most.
const CAP: i32 = 256;
/// Callers of `source_slow`: enough that the cap is what bounds.
const WAITING: usize = 1_024;
const SLOW: Duration = Duration::from_millis(100);
/// In which a slow endpoint takes about ten thousand rows.
const SLOW_LENGTH: Duration = Duration::from_secs(6);

pub(super) async fn run(bench: &Bench<'_>) -> anyhow::Result<()> {
    if bench.report.wants("source") {
        prompt(bench).await?;
    }
    if bench.report.wants("source_slow") {
        slow(bench).await?;
    }
    Ok(())
}

/// One organization with one source.
pub(super) async fn service(
    bench: &Bench<'_>,
    endpoint: &Plain,
) -> anyhow::Result<(Service, Front)> {
    let (service, tenant) = tenant(bench, endpoint).await?;
    let front = Front::new(&[service.address()], &[Arc::new(tenant)]);
    Ok((service, front))
}

async fn tenant(bench: &Bench<'_>, endpoint: &Plain) -> anyhow::Result<(Service, Tenant)> {
    let service = Service::start(bench.ground.migrated("source").await?).await?;
    let at = At {
        source: "crm".to_owned(),
        url: endpoint.url(),
        in_flight: CAP,
    };
    let tenant = service.organization("acme", &[at]).await?;
    Ok((service, tenant))
}

/// New rows only.
pub(super) fn creates() -> Workload {
    Workload::new("crm", 0, 1)
}

async fn prompt(bench: &Bench<'_>) -> anyhow::Result<()> {
    let (size, ground) = (bench.size, bench.ground);
    let endpoint = Plain::start(Manner::Prompt)?;
    let (service, tenant) = tenant(bench, &endpoint).await?;
    let url = endpoint.url();
    let ours = async |callers, length| {
        let streams = Streams::open(&tenant, callers).await?;
        streams.closed(callers, length, creates()).await
    };
    let bare = async |callers, length| bare::rate(&url, "crm", callers, length).await;
    let probed = async |callers| anyhow::Ok(ours(callers, size.probe).await?.rate);
    let (callers, _) = best(&CALLERS, probed).await?;
    let probed = async |callers| anyhow::Ok(bare(callers, size.probe).await?.rate);
    let (others, _) = best(&CALLERS, probed).await?;
    let cost = bench.cost(&service, ours(callers, size.probe)).await?;
    let mut pairs = Pairs::default();
    for _ in 0..size.pairs {
        let rate = ours(callers, size.length).await?.rate;
        pairs.push(rate, bare(others, size.length).await?.rate);
    }
    let scenario = known("source");
    bench.report.add(&Outcome {
        scenario: scenario.name,
        unit: scenario.unit,
        target: scenario.target,
        pairs,
        notes: vec![
            format!("{callers} callers against {others} at a time"),
            cost,
        ],
    })?;
    service.end(ground).await
}

async fn slow(bench: &Bench<'_>) -> anyhow::Result<()> {
    let endpoint = Plain::start(Manner::Slow(SLOW))?;
    let (service, front) = service(bench, &endpoint).await?;
    let limit = f64::from(CAP) / SLOW.as_secs_f64();
    let mut pairs = Pairs::default();
    for _ in 0..bench.size.pairs {
        let sample = front.closed(WAITING, SLOW_LENGTH, creates()).await?;
        pairs.push(sample.rate, limit);
    }
    let measure = front.closed(WAITING, bench.size.probe, creates());
    let cost = bench.cost(&service, measure).await?;
    let scenario = known("source_slow");
    bench.report.add(&Outcome {
        scenario: scenario.name,
        unit: scenario.unit,
        target: scenario.target,
        pairs,
        notes: vec![cost],
    })?;
    service.end(bench.ground).await
}
