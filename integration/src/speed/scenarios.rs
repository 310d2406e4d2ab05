//! What is measured, and what it is to reach.

mod backlog;
mod fanout;
mod growth;
mod idle;
mod isolation;
mod managed;
mod nodes;
mod source;

use std::sync::Arc;
use std::time::Duration;

use super::ground::Ground;
use super::load::{Sample, closed};
use super::report::Target;
use super::report::Target::{AtLeast, AtMost};
use super::service::{MANAGED, Service};
use super::usage::Usage;
use super::wire::Calls;
use super::workload::Workload;
use super::{Report, Size};
use crate::app::Tenant;

/// One line of the report.
#[derive(Clone, Copy, Debug)]
struct Scenario {
    name: &'static str,
    unit: &'static str,
    target: Target,
}

const fn scenario(name: &'static str, unit: &'static str, target: Target) -> Scenario {
    Scenario { name, unit, target }
}

/// Two cores.
const SCENARIOS: [Scenario; 16] = [
    scenario("managed_unary", "/s", AtLeast(1.0, 1.4)),
    scenario("managed_stream", "/s", AtLeast(1.4, 2.0)),
    scenario("managed_orgs", "/s", AtLeast(0.7, 1.4)),
    scenario("managed_latency", "ms", AtMost(1.5, 1.0)),
    scenario("bulk", "/s", AtLeast(5.0, 8.0)),
    scenario("source", "/s", AtLeast(0.2, 0.35)),
    scenario("source_slow", "/s", AtLeast(0.9, 0.98)),
    scenario("isolation_rate", "/s", AtLeast(0.9, 1.0)),
    scenario("isolation_p99", "ms", AtMost(1.5, 1.1)),
    scenario("fanout", "ms", AtMost(2.0, 1.2)),
    scenario("fanout_wide", "ms", AtMost(2.0, 1.2)),
    scenario("growth", "/s", AtLeast(0.85, 0.95)),
    scenario("backlog", "/s", AtLeast(0.9, 1.0)),
    scenario("idle", "cores", AtMost(0.03, 0.01)),
    scenario("nodes", "/s", AtLeast(0.95, 1.1)),
    scenario("nodes_hot", "/s", AtLeast(0.7, 0.9)),
];

/// The scenarios, in the order of the report.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    SCENARIOS.iter().map(|scenario| scenario.name)
}

/// Measures what the report wants, group by group; each begins and ends with nothing but Postgres.
pub(super) async fn run(ground: &Ground, size: Size, report: &Report) -> anyhow::Result<()> {
    let bench = Bench {
        ground,
        size,
        report,
    };
    Box::pin(managed::run(&bench)).await?;
    Box::pin(source::run(&bench)).await?;
    Box::pin(isolation::run(&bench)).await?;
    Box::pin(fanout::run(&bench)).await?;
    Box::pin(growth::run(&bench)).await?;
    Box::pin(backlog::run(&bench)).await?;
    Box::pin(idle::run(&bench)).await?;
    Box::pin(nodes::run(&bench)).await
}

/// What every scenario works with.
#[derive(Clone, Copy, Debug)]
struct Bench<'a> {
    ground: &'a Ground,
    size: Size,
    report: &'a Report,
}

impl Bench<'_> {
    fn wants_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.report.wants(name))
    }

    /// What each commit of a measurement costs the service, for a person.
    async fn cost(
        &self,
        service: &Service,
        measure: impl Future<Output = anyhow::Result<Sample>>,
    ) -> anyhow::Result<String> {
        let usage = Usage::now(self.ground, service, self.size.late).await?;
        let sample = measure.await?;
        let used = usage.since(self.ground, service, self.size.late).await?;
        Ok(used.per_commit(sample.total))
    }
}

/// A scenario by its name.
fn known(name: &str) -> Scenario {
    let found = SCENARIOS.iter().find(|scenario| scenario.name == name);
    *found.expect("scenarios name themselves as the list does")
}

/// The candidate with the highest figure, and that.
async fn best<T: Copy>(
    candidates: &[T],
    measure: impl AsyncFn(T) -> anyhow::Result<f64>,
) -> anyhow::Result<(T, f64)> {
    let mut best = (candidates[0], f64::MIN);
    for candidate in candidates {
        let figure = measure(*candidate).await?;
        if figure > best.1 {
            best = (*candidate, figure);
        }
    }
    Ok(best)
}

/// Who commits, and where.
#[derive(Clone, Debug)]
struct Front {
    addresses: Vec<String>,
    keys: Arc<Vec<String>>,
    /// Each organization keeps to one node.
    faithful: bool,
}

impl Front {
    fn new(addresses: &[&str], tenants: &[Arc<Tenant>]) -> Self {
        let keys = tenants.iter().map(|tenant| tenant.key().to_owned());
        Self {
            addresses: addresses.iter().map(ToString::to_string).collect(),
            keys: Arc::new(keys.collect()),
            faithful: false,
        }
    }

    /// As it is where each organization's front-ends hold a connection to one node.
    fn faithful(self) -> Self {
        Self {
            faithful: true,
            ..self
        }
    }

    /// So many callers, spread over nodes and organizations, each with one call after the other.
    async fn closed(
        &self,
        in_flight: usize,
        length: Duration,
        workload: Workload,
    ) -> anyhow::Result<Sample> {
        let mut nodes = Vec::new();
        for address in &self.addresses {
            let each = in_flight.div_ceil(self.addresses.len());
            nodes.push(Calls::connect(address, each).await?);
        }
        let shared = Arc::new((nodes, Arc::clone(&self.keys), workload));
        let faithful = self.faithful;
        closed(in_flight, length, move |caller| {
            let shared = Arc::clone(&shared);
            async move {
                let (nodes, keys, workload) = &*shared;
                let (node, organization) = if faithful {
                    let organization = caller % keys.len();
                    (organization % nodes.len(), organization)
                } else {
                    // Every organization is called at every node.
                    (caller % nodes.len(), caller / nodes.len() % keys.len())
                };
                let key = &keys[organization];
                nodes[node].commit(key, &workload.next()).await
            }
        })
        .await
    }
}

/// Single commits on managed rows.
fn singles(keys: u64) -> Workload {
    Workload::new(MANAGED, keys, 1)
}
