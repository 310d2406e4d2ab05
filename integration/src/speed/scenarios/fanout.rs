//! How soon everybody who follows an organization has seen a commit, against a server that hands it
//! on and keeps nothing.

use std::sync::Arc;

use super::managed::milliseconds;
use super::{Bench, known};
use crate::app::Tenant;
use crate::speed::broadcast::Broadcast;
use crate::speed::followers::Followers;
use crate::speed::load::Sample;
use crate::speed::pairs::Pairs;
use crate::speed::report::Outcome;
use crate::speed::service::{MANAGED, Service};
use crate::speed::usage::Usage;
use crate::speed::wire::Calls;
use crate::speed::workload::Workload;

/// Name, subscribers, commits a second.
const CROWDS: [(&str, usize, f64); 2] = [("fanout", 100, 200.0), ("fanout_wide", 1_000, 20.0)];

pub(super) async fn run(bench: &Bench<'_>) -> anyhow::Result<()> {
    let wanted = CROWDS.iter().filter(|(name, ..)| bench.report.wants(name));
    for (name, subscribers, rate) in wanted {
        measure(bench, name, (*subscribers, *rate)).await?;
    }
    Ok(())
}

async fn measure(
    bench: &Bench<'_>,
    name: &str,
    (subscribers, rate): (usize, f64),
) -> anyhow::Result<()> {
    let (size, ground) = (bench.size, bench.ground);
    let service = Service::start(ground.migrated("fanout").await?).await?;
    let tenant: Arc<Tenant> = Arc::new(service.organization("acme", &[]).await?);
    let ours = Side::prepare(service.address(), tenant.key(), subscribers).await?;
    let server = Broadcast::start()?;
    let bare = Side::prepare(&server.address(), "none", subscribers).await?;
    let (mut tail, mut middle) = (Pairs::default(), Pairs::default());
    let usage = Usage::now(ground, &service, size.late).await?;
    let mut total = 0;
    for _ in 0..size.pairs {
        let sample = ours.sample(bench, rate).await?;
        let other = bare.sample(bench, rate).await?;
        tail.push(milliseconds(sample.p99), milliseconds(other.p99));
        middle.push(milliseconds(sample.p50), milliseconds(other.p50));
        total += sample.total;
    }
    let used = usage.since(ground, &service, size.late).await?;
    let scenario = known(name);
    bench.report.add(&Outcome {
        scenario: scenario.name,
        unit: scenario.unit,
        target: scenario.target,
        pairs: tail,
        notes: vec![
            format!(
                "{subscribers} subscribers, {rate:.0}/s; p50 {:.2} against {:.2} ms",
                middle.ours().median,
                middle.against().median
            ),
            used.per_commit(total),
        ],
    })?;
    drop((ours, bare));
    service.end(ground).await
}

struct Side {
    calls: Calls,
    key: String,
    followers: Followers,
}

impl Side {
    async fn prepare(address: &str, key: &str, subscribers: usize) -> anyhow::Result<Self> {
        Ok(Self {
            calls: Calls::connect(address, 128).await?,
            key: key.to_owned(),
            followers: Followers::open(address, &[key], subscribers).await?,
        })
    }

    async fn sample(&self, bench: &Bench<'_>, rate: f64) -> anyhow::Result<Sample> {
        let workload = Workload::new(MANAGED, 0, 1);
        let pace = (rate, bench.size.length);
        self.followers
            .spread((&self.calls, &self.key), workload, pace)
            .await
    }
}
