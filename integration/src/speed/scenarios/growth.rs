//! Whether it slows down as its tables grow.

use std::time::Duration;

use super::source::{creates, service};
use super::{Bench, Front, known, singles};
use crate::speed::endpoint::{Manner, Plain};
use crate::speed::fill::{self, History};
use crate::speed::load::Sample;
use crate::speed::pairs::Pairs;
use crate::speed::report::Outcome;
use crate::speed::service::Service;

const CALLERS: usize = 64;

/// Rows of the side that has no past: commits change as many as there are.
const CHANGED: u64 = 10_000;

pub(super) async fn run(bench: &Bench<'_>) -> anyhow::Result<()> {
    if !bench.report.wants("growth") {
        return Ok(());
    }
    let endpoint = Plain::start(Manner::Prompt)?;
    let grown = Side::prepare(bench, &endpoint, bench.size.past).await?;
    let young = History {
        rows: CHANGED,
        deltas: 0,
        commits: 0,
        attempts: 0,
    };
    let young = Side::prepare(bench, &endpoint, young).await?;
    let (mut managed, mut source) = (Pairs::default(), Pairs::default());
    for _ in 0..bench.size.pairs {
        let length = bench.size.length;
        managed.push(
            grown.managed(length).await?.rate,
            young.managed(length).await?.rate,
        );
        source.push(
            grown.source(length).await?.rate,
            young.source(length).await?.rate,
        );
    }
    let probe = bench.size.probe;
    let costs = [
        bench.cost(&grown.service, grown.managed(probe)).await?,
        bench.cost(&grown.service, grown.source(probe)).await?,
    ];
    let (managed_ratio, source_ratio) = (managed.ratio().median, source.ratio().median);
    let scenario = known("growth");
    bench.report.add(&Outcome {
        scenario: scenario.name,
        unit: scenario.unit,
        target: scenario.target,
        pairs: if managed_ratio < source_ratio {
            managed
        } else {
            source
        },
        notes: vec![
            format!("managed {managed_ratio:.2}×, source {source_ratio:.2}×; the lesser counts"),
            format!("managed, grown, {}", costs[0]),
            format!("source, grown, {}", costs[1]),
        ],
    })?;
    grown.service.end(bench.ground).await?;
    young.service.end(bench.ground).await
}

struct Side {
    service: Service,
    front: Front,
    changed: u64,
}

impl Side {
    async fn prepare(bench: &Bench<'_>, endpoint: &Plain, past: History) -> anyhow::Result<Self> {
        let (service, front) = service(bench, endpoint).await?;
        fill::history(&service.database, ("acme", "crm"), past).await?;
        service.database.settle().await?;
        Ok(Self {
            service,
            front,
            changed: past.rows,
        })
    }

    async fn managed(&self, length: Duration) -> anyhow::Result<Sample> {
        let workload = singles(self.changed);
        self.front.closed(CALLERS, length, workload).await
    }

    async fn source(&self, length: Duration) -> anyhow::Result<Sample> {
        self.front.closed(CALLERS, length, creates()).await
    }
}
