//! Whether a second node is worth having, and what it costs where it is not.

use super::{Bench, Front, known, singles};
use crate::speed::fill;
use crate::speed::pairs::Pairs;
use crate::speed::report::Outcome;
use crate::speed::service::Service;

const CALLERS: usize = 256;

pub(super) async fn run(bench: &Bench<'_>) -> anyhow::Result<()> {
    if !bench.wants_any(&["nodes", "nodes_hot"]) {
        return Ok(());
    }
    let size = bench.size;
    let mut service = Service::start(bench.ground.migrated("nodes").await?).await?;
    let tenants = service.organizations(size.organizations).await?;
    service.add_node().await?;
    let keys = size.keys / u64::from(size.organizations);
    for tenant in &tenants {
        fill::rows(&service.database, tenant.name(), keys).await?;
    }
    service.database.settle().await?;
    let one = [service.nodes[0].address()];
    let two = [service.nodes[0].address(), service.nodes[1].address()];
    for (name, tenants) in [("nodes", &tenants[..]), ("nodes_hot", &tenants[..1])] {
        if !bench.report.wants(name) {
            continue;
        }
        let (one, everywhere) = (Front::new(&one, tenants), Front::new(&two, tenants));
        // One hot organization is written at both nodes, many are each at one.
        let two = match name {
            "nodes" => everywhere.clone().faithful(),
            _ => everywhere.clone(),
        };
        let mut pairs = Pairs::default();
        for _ in 0..size.pairs {
            let both = two.closed(CALLERS, size.length, singles(keys)).await?;
            let single = one.closed(CALLERS, size.length, singles(keys)).await?;
            pairs.push(both.rate, single.rate);
        }
        let measure = two.closed(CALLERS, size.probe, singles(keys));
        let cost = bench.cost(&service, measure).await?;
        let mut notes = vec![format!("over both, {cost}")];
        if name == "nodes" {
            let rate = everywhere
                .closed(CALLERS, size.length, singles(keys))
                .await?
                .rate;
            notes.push(format!("{rate:.0} /s with each organization at both nodes"));
        }
        let scenario = known(name);
        bench.report.add(&Outcome {
            scenario: scenario.name,
            unit: scenario.unit,
            target: scenario.target,
            pairs,
            notes,
        })?;
    }
    service.end(bench.ground).await
}
