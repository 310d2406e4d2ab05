//! What it costs to be there.

use std::time::Duration;

use anyhow::ensure;

use super::{Bench, known};
use crate::speed::endpoint::{Manner, Plain};
use crate::speed::fill;
use crate::speed::followers::Followers;
use crate::speed::pairs::Pairs;
use crate::speed::report::Outcome;
use crate::speed::service::Service;
use crate::speed::usage::{Usage, memory};

/// Organizations that own the sources.
const ORGANIZATIONS: u32 = 10;
/// One source in so many has a feed, and there is one subscriber for so many.
const FEED: u64 = 100;
const SUBSCRIBER: u64 = 10;
/// How many times a measurement's length everything has been quiet before.
const QUIET: u32 = 5;
/// In which a node claims every source.
const PATIENCE: u32 = 120;

pub(super) async fn run(bench: &Bench<'_>) -> anyhow::Result<()> {
    if !bench.report.wants("idle") {
        return Ok(());
    }
    let service = Service::start(bench.ground.migrated("idle").await?).await?;
    let tenants = service.organizations(ORGANIZATIONS).await?;
    let endpoint = Plain::start(Manner::Prompt)?;
    let sources = bench.size.idle_sources;
    let feeds = sources / FEED;
    fill::sources(&service.database, sources, (feeds, &endpoint.url())).await?;
    service.database.settle().await?;
    claimed(&service).await?;
    let keys: Vec<_> = tenants.iter().map(|tenant| tenant.key()).collect();
    let subscribers = usize::try_from(sources / SUBSCRIBER)?;
    let followers = Followers::open(service.address(), &keys, subscribers).await?;
    // Feeds are read ever more seldom.
    tokio::time::sleep(bench.size.length * QUIET).await;
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
            "{sources} sources, {feeds} of them with a feed, and {subscribers} subscribers; \
             resident memory {resident} MiB"
        )],
    })?;
    drop(followers);
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
