//! Rows of the coordinator's own, against a program that writes row, ledger and delta itself.

use std::sync::Arc;
use std::time::Duration;

use super::{Bench, Front, best, known, singles};
use crate::app::Tenant;
use crate::speed::fill;
use crate::speed::load::{Sample, open};
use crate::speed::pairs::Pairs;
use crate::speed::pgbench::{CLIENTS, Pgbench};
use crate::speed::report::Outcome;
use crate::speed::service::{MANAGED, Service};
use crate::speed::wire::{Calls, Streams};
use crate::speed::workload::Workload;

/// Of which the best counts.
const CALLERS: [usize; 3] = [16, 64, 256];
/// Of one commit of `bulk`.
const OPERATIONS: u64 = 100;
const BULK_CALLERS: [usize; 3] = [4, 16, 64];

const NAMES: [&str; 5] = [
    "managed_unary",
    "managed_stream",
    "managed_orgs",
    "managed_latency",
    "bulk",
];

pub(super) async fn run(bench: &Bench<'_>) -> anyhow::Result<()> {
    if !bench.wants_any(&NAMES) {
        return Ok(());
    }
    let direct = Pgbench::prepare(bench.ground, bench.size.keys).await?;
    let (clients, _) = best(&CLIENTS, async |clients| {
        direct.rate(clients, bench.size.probe).await
    })
    .await?;
    let group = Group {
        bench,
        direct,
        clients,
    };
    if bench.wants_any(&["managed_unary", "managed_stream", "managed_latency", "bulk"]) {
        group.one().await?;
    }
    if bench.report.wants("managed_orgs") {
        group.many().await?;
    }
    Ok(())
}

struct Group<'a> {
    bench: &'a Bench<'a>,
    direct: Pgbench,
    /// With which the other side is fastest.
    clients: usize,
}

/// One organization with rows.
struct One {
    service: Service,
    tenant: Arc<Tenant>,
    front: Front,
    keys: u64,
}

impl One {
    async fn prepare(bench: &Bench<'_>) -> anyhow::Result<Self> {
        let service = Service::start(bench.ground.migrated("managed").await?).await?;
        let tenant = Arc::new(service.organization("acme", &[]).await?);
        fill::rows(&service.database, "acme", bench.size.keys).await?;
        service.database.settle().await?;
        let front = Front::new(&[service.address()], &[Arc::clone(&tenant)]);
        Ok(Self {
            service,
            tenant,
            front,
            keys: bench.size.keys,
        })
    }

    async fn unary(&self, callers: usize, length: Duration) -> anyhow::Result<Sample> {
        self.front.closed(callers, length, singles(self.keys)).await
    }

    async fn bulk(&self, callers: usize, length: Duration) -> anyhow::Result<Sample> {
        let workload = Workload::new(MANAGED, self.keys, OPERATIONS);
        self.front.closed(callers, length, workload).await
    }

    async fn stream(&self, callers: usize, length: Duration) -> anyhow::Result<Sample> {
        let streams = Streams::open(&self.tenant, callers).await?;
        streams.closed(callers, length, singles(self.keys)).await
    }

    async fn at_rate(&self, rate: f64, length: Duration) -> anyhow::Result<Sample> {
        let calls = Calls::connect(self.service.address(), 512).await?;
        let workload = Arc::new(singles(self.keys));
        let key = Arc::new(self.tenant.key().to_owned());
        open(rate, length, move |_| {
            let (calls, workload, key) = (calls.clone(), Arc::clone(&workload), Arc::clone(&key));
            async move { calls.commit(&key, &workload.next()).await }
        })
        .await
    }
}

impl Group<'_> {
    async fn one(&self) -> anyhow::Result<()> {
        let one = One::prepare(self.bench).await?;
        let (report, probe) = (self.bench.report, self.bench.size.probe);
        let mut maximum = None;
        if self.bench.wants_any(&["managed_unary", "managed_latency"]) {
            let unary = async |callers| anyhow::Ok(one.unary(callers, probe).await?.rate);
            maximum = Some(best(&CALLERS, unary).await?);
        }
        if let Some((callers, _)) = maximum
            && report.wants("managed_unary")
        {
            let measure = async |length| one.unary(callers, length).await;
            self.throughput("managed_unary", (callers, 1), &one.service, measure)
                .await?;
        }
        if report.wants("managed_stream") {
            let stream = async |callers| anyhow::Ok(one.stream(callers, probe).await?.rate);
            let (callers, _) = best(&CALLERS, stream).await?;
            let measure = async |length| one.stream(callers, length).await;
            self.throughput("managed_stream", (callers, 1), &one.service, measure)
                .await?;
        }
        if let Some((_, rate)) = maximum
            && report.wants("managed_latency")
        {
            self.latency(&one, rate / 2.0).await?;
        }
        if report.wants("bulk") {
            let bulk = async |callers| anyhow::Ok(one.bulk(callers, probe).await?.rate);
            let (callers, _) = best(&BULK_CALLERS, bulk).await?;
            let measure = async |length| one.bulk(callers, length).await;
            self.throughput("bulk", (callers, OPERATIONS), &one.service, measure)
                .await?;
        }
        one.service.end(self.bench.ground).await
    }

    async fn many(&self) -> anyhow::Result<()> {
        let (size, ground) = (self.bench.size, self.bench.ground);
        let service = Service::start(ground.migrated("organizations").await?).await?;
        let tenants = service.organizations(size.organizations).await?;
        let keys = size.keys / u64::from(size.organizations);
        for tenant in &tenants {
            fill::rows(&service.database, tenant.name(), keys).await?;
        }
        service.database.settle().await?;
        let front = Front::new(&[service.address()], &tenants);
        let measure = async |callers, length| front.closed(callers, length, singles(keys)).await;
        let probed = async |callers| anyhow::Ok(measure(callers, size.probe).await?.rate);
        let (callers, _) = best(&CALLERS, probed).await?;
        let measure = async |length| measure(callers, length).await;
        self.throughput("managed_orgs", (callers, 1), &service, measure)
            .await?;
        service.end(ground).await
    }

    /// Operations a second, ours and the other side's in turn.
    async fn throughput(
        &self,
        name: &'static str,
        (callers, operations): (usize, u64),
        service: &Service,
        measure: impl AsyncFn(Duration) -> anyhow::Result<Sample>,
    ) -> anyhow::Result<()> {
        let size = self.bench.size;
        let cost = self.bench.cost(service, measure(size.probe)).await?;
        #[expect(clippy::cast_precision_loss, reason = "operations are few")]
        let each = operations as f64;
        let mut pairs = Pairs::default();
        for _ in 0..size.pairs {
            let ours = measure(size.length).await?.rate * each;
            pairs.push(ours, self.direct.rate(self.clients, size.length).await?);
        }
        let scenario = known(name);
        self.bench.report.add(&Outcome {
            scenario: name,
            unit: scenario.unit,
            target: scenario.target,
            pairs,
            notes: vec![
                format!("{callers} callers against {} clients", self.clients),
                cost,
            ],
        })
    }

    /// Half as fast as we can, both sides: the worse of middle and tail.
    async fn latency(&self, one: &One, rate: f64) -> anyhow::Result<()> {
        let size = self.bench.size;
        let measure = one.at_rate(rate, size.probe);
        let cost = self.bench.cost(&one.service, measure).await?;
        let (mut middle, mut tail) = (Pairs::default(), Pairs::default());
        for _ in 0..size.pairs {
            let ours = one.at_rate(rate, size.length).await?;
            let other = self.direct.latency(self.clients, rate, size.length).await?;
            middle.push(milliseconds(ours.p50), milliseconds(other.p50));
            tail.push(milliseconds(ours.p99), milliseconds(other.p99));
        }
        let figures = format!(
            "at {rate:.0}/s: p50 {:.2} against {:.2} ms, p99 {:.2} against {:.2} ms",
            middle.ours().median,
            middle.against().median,
            tail.ours().median,
            tail.against().median,
        );
        let worse = middle.ratio().median > tail.ratio().median;
        let scenario = known("managed_latency");
        self.bench.report.add(&Outcome {
            scenario: scenario.name,
            unit: scenario.unit,
            target: scenario.target,
            pairs: if worse { middle } else { tail },
            notes: vec![figures, cost],
        })
    }
}

pub(super) fn milliseconds(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}
