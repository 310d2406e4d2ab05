//! Whether some customers' trouble costs the others anything.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use proto::v1;
use tokio::task::JoinSet;

use super::managed::milliseconds;
use super::{Bench, known};
use crate::app::Tenant;
use crate::speed::endpoint::{Manner, Plain};
use crate::speed::load::{Sample, closed, open};
use crate::speed::pairs::Pairs;
use crate::speed::report::Outcome;
use crate::speed::service::{At, Service};
use crate::speed::wire::Calls;
use crate::speed::workload::Workload;

/// Each has two healthy sources; the first three have one in trouble, too.
const ORGANIZATIONS: usize = 4;
const HEALTHY: [&str; 2] = ["east", "west"];
const TROUBLED: &str = "troubled";
const TROUBLES: [Manner; 3] = [
    Manner::BlackHole,
    Manner::Slow(Duration::from_secs(3)),
    Manner::Storm,
];
/// Callers of each healthy source.
const EACH: usize = 16;
/// Commits that wait for each troubled source from the start, and new ones a second.
const WAITING: usize = 300;
const TRICKLE: f64 = 50.0;
/// After which a change of a source has shown its effect.
const SETTLED: Duration = Duration::from_secs(3);

pub(super) async fn run(bench: &Bench<'_>) -> anyhow::Result<()> {
    if !bench.wants_any(&["isolation_rate", "isolation_p99"]) {
        return Ok(());
    }
    let town = Town::prepare(bench).await?;
    let (mut rate, mut tail) = (Pairs::default(), Pairs::default());
    for _ in 0..bench.size.pairs {
        town.set_trouble(true).await?;
        let beside = town.beside(bench.size.length).await?;
        town.set_trouble(false).await?;
        let alone = town.healthy(bench.size.length).await?;
        rate.push(beside.rate, alone.rate);
        tail.push(milliseconds(beside.p99), milliseconds(alone.p99));
    }
    town.set_trouble(true).await?;
    let measure = town.beside(bench.size.probe);
    let cost = bench.cost(&town.service, measure).await?;
    for (name, pairs) in [("isolation_rate", rate), ("isolation_p99", tail)] {
        let scenario = known(name);
        bench.report.add(&Outcome {
            scenario: scenario.name,
            unit: scenario.unit,
            target: scenario.target,
            pairs,
            notes: vec![format!("with them, {cost}")],
        })?;
    }
    town.service.end(bench.ground).await
}

/// Organizations, their endpoints, and who calls.
struct Town {
    service: Service,
    _endpoints: Vec<Plain>,
    tenants: Arc<Vec<Tenant>>,
    calls: Calls,
}

impl Town {
    async fn prepare(bench: &Bench<'_>) -> anyhow::Result<Self> {
        let service = Service::start(bench.ground.migrated("isolation").await?).await?;
        let (mut tenants, mut endpoints) = (Vec::new(), Vec::new());
        let prompt = Plain::start(Manner::Prompt)?;
        for number in 0..ORGANIZATIONS {
            let mut sources: Vec<_> = HEALTHY.iter().map(|name| at(name, &prompt)).collect();
            if let Some(trouble) = TROUBLES.get(number) {
                let endpoint = Plain::start(*trouble)?;
                sources.push(at(TROUBLED, &endpoint));
                endpoints.push(endpoint);
            }
            let name = format!("org-{number}");
            tenants.push(service.organization(&name, &sources).await?);
        }
        endpoints.push(prompt);
        let town = Self {
            calls: Calls::connect(service.address(), 1_024).await?,
            service,
            _endpoints: endpoints,
            tenants: Arc::new(tenants),
        };
        let mut sending = JoinSet::new();
        for tenant in &town.tenants[..TROUBLES.len()] {
            for _ in 0..WAITING {
                let (calls, key) = (town.calls.clone(), tenant.key().to_owned());
                sending.spawn(async move { calls.commit(&key, &queued(&TROUBLE.next())).await });
            }
        }
        for sent in sending.join_all().await {
            sent?;
        }
        Ok(town)
    }

    /// Lets the troubled sources take commits, or not.
    async fn set_trouble(&self, on: bool) -> anyhow::Result<()> {
        let name = format!("dataSources/{TROUBLED}");
        for tenant in &self.tenants[..TROUBLES.len()] {
            let mut sources = tenant.sources();
            if on {
                let enable = v1::EnableDataSourceRequest {
                    name: name.clone(),
                    ..v1::EnableDataSourceRequest::default()
                };
                sources.enable(enable).await?;
            } else {
                let disable = v1::DisableDataSourceRequest {
                    name: name.clone(),
                    reason: "not now".to_owned(),
                    ..v1::DisableDataSourceRequest::default()
                };
                sources.disable(disable).await?;
            }
        }
        tokio::time::sleep(SETTLED).await;
        Ok(())
    }

    async fn healthy(&self, length: Duration) -> anyhow::Result<Sample> {
        let workloads = HEALTHY.map(|name| Workload::new(name, 0, 1));
        let shared = Arc::new((self.calls.clone(), Arc::clone(&self.tenants), workloads));
        closed(
            ORGANIZATIONS * HEALTHY.len() * EACH,
            length,
            move |caller| {
                let shared = Arc::clone(&shared);
                async move {
                    let (calls, tenants, workloads) = &*shared;
                    let tenant = &tenants[caller % ORGANIZATIONS];
                    let workload = &workloads[caller / ORGANIZATIONS % HEALTHY.len()];
                    calls.commit(tenant.key(), &workload.next()).await
                }
            },
        )
        .await
    }

    /// The same while commits for the troubled sources keep coming.
    async fn beside(&self, length: Duration) -> anyhow::Result<Sample> {
        let (calls, tenants) = (self.calls.clone(), Arc::clone(&self.tenants));
        #[expect(clippy::cast_precision_loss, reason = "there are few")]
        let trickle = open(TRICKLE * TROUBLES.len() as f64, length, move |number| {
            let (calls, tenants) = (calls.clone(), Arc::clone(&tenants));
            async move {
                let tenant = &tenants[number % TROUBLES.len()];
                calls.commit(tenant.key(), &queued(&TROUBLE.next())).await
            }
        });
        let (beside, trickled) = tokio::join!(self.healthy(length), trickle);
        trickled?;
        beside
    }
}

/// All commits for the troubled sources.
static TROUBLE: LazyLock<Workload> = LazyLock::new(|| Workload::new(TROUBLED, 0, 1));

fn queued(commit: &v1::CommitRequest) -> v1::CommitRequest {
    v1::CommitRequest {
        wait: v1::Wait::Queued.into(),
        ..commit.clone()
    }
}

fn at(source: &str, endpoint: &Plain) -> At {
    At {
        source: source.to_owned(),
        url: endpoint.url(),
        in_flight: 32,
    }
}
