//! What a customer that is gone costs the others while a million commits wait for it.

use std::sync::Arc;
use std::time::Duration;

use super::source::creates;
use super::{Bench, Front, known};
use crate::speed::endpoint::{Manner, Plain};
use crate::speed::fill;
use crate::speed::pairs::Pairs;
use crate::speed::report::Outcome;
use crate::speed::service::{At, Service};
use crate::speed::usage::memory;

const CALLERS: usize = 64;
/// In which the source is found to be dead, and what waits for it has been read ahead.
const FOUND: Duration = Duration::from_secs(8);

pub(super) async fn run(bench: &Bench<'_>) -> anyhow::Result<()> {
    if !bench.report.wants("backlog") {
        return Ok(());
    }
    let endpoint = Plain::start(Manner::Prompt)?;
    let (loaded, loaded_front) = service(bench, &endpoint).await?;
    let (free, free_front) = service(bench, &endpoint).await?;
    let idle = memory(free.nodes[0].pid())?;
    fill::backlog(&loaded.database, ("gone", "gone"), bench.size.backlog).await?;
    loaded.database.settle().await?;
    tokio::time::sleep(FOUND).await;
    let mut pairs = Pairs::default();
    for _ in 0..bench.size.pairs {
        let length = bench.size.length;
        let with = loaded_front.closed(CALLERS, length, creates()).await?.rate;
        let without = free_front.closed(CALLERS, length, creates()).await?.rate;
        pairs.push(with, without);
    }
    let (with, without) = (memory(loaded.nodes[0].pid())?, memory(free.nodes[0].pid())?);
    let measure = loaded_front.closed(CALLERS, bench.size.probe, creates());
    let cost = bench.cost(&loaded, measure).await?;
    let scenario = known("backlog");
    bench.report.add(&Outcome {
        scenario: scenario.name,
        unit: scenario.unit,
        target: scenario.target,
        pairs,
        notes: vec![
            format!("resident memory {with} MiB, {without} MiB without it, {idle} MiB idle"),
            cost,
        ],
    })?;
    loaded.end(bench.ground).await?;
    free.end(bench.ground).await
}

/// An organization that is well, and one whose only endpoint is gone.
async fn service(bench: &Bench<'_>, endpoint: &Plain) -> anyhow::Result<(Service, Front)> {
    let service = Service::start(bench.ground.migrated("backlog").await?).await?;
    let at = |source: &str, url| At {
        source: source.to_owned(),
        url,
        in_flight: 256,
    };
    // Dropped at once: nobody listens there any more.
    let gone = Plain::start(Manner::Storm)?.url();
    service.organization("gone", &[at("gone", gone)]).await?;
    let well = at("crm", endpoint.url());
    let tenant = Arc::new(service.organization("acme", &[well]).await?);
    let front = Front::new(&[service.address()], &[tenant]);
    Ok((service, front))
}
