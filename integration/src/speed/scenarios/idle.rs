//! What it costs to be there.

use std::time::Duration;

use anyhow::ensure;

use super::{Bench, known};
use crate::speed::fill;
use crate::speed::pairs::Pairs;
use crate::speed::report::Outcome;
use crate::speed::service::Service;
use crate::speed::usage::{Usage, memory};

/// Organizations that own the sources.
const ORGANIZATIONS: u32 = 10;
const QUIET: Duration = Duration::from_secs(3);
/// In which a node claims every source.
const PATIENCE: u32 = 120;

pub(super) async fn run(bench: &Bench<'_>) -> anyhow::Result<()> {
    if !bench.report.wants("idle") {
        return Ok(());
    }
    let service = Service::start(bench.ground.migrated("idle").await?).await?;
    service.organizations(ORGANIZATIONS).await?;
    fill::sources(&service.database, bench.size.idle_sources).await?;
    service.database.settle().await?;
    claimed(&service).await?;
    tokio::time::sleep(QUIET).await;
    let mut pairs = Pairs::default();
    for _ in 0..bench.size.pairs {
        let usage = Usage::now(bench.ground, &service, Duration::ZERO).await?;
        tokio::time::sleep(bench.size.length * 2).await;
        let used = usage.since(bench.ground, &service, Duration::ZERO).await?;
        pairs.push(used.cores(), 1.0);
    }
    let resident = memory(service.nodes[0].pid())?;
    let scenario = known("idle");
    bench.report.add(&Outcome {
        scenario: scenario.name,
        unit: scenario.unit,
        target: scenario.target,
        pairs,
        notes: vec![format!(
            "{} sources; resident memory {resident} MiB; no feeds and no subscribers yet",
            bench.size.idle_sources
        )],
    })?;
    service.end(bench.ground).await
}

async fn claimed(service: &Service) -> anyhow::Result<()> {
    let unclaimed = "SELECT count(*) FROM data_sources WHERE owner IS NULL";
    for _ in 0..PATIENCE {
        if service.database.number(unclaimed).await? == 0 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let left = service.database.number(unclaimed).await?;
    ensure!(left == 0, "{left} sources are nobody's after {PATIENCE} s");
    Ok(())
}
