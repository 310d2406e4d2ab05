//! What processes took of the machine, and what a commit costs in exact terms.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::allocations;
use super::ground::{Database, Ground};
use super::service::Service;

/// Ticks a second in `/proc`; fixed for programs on Linux.
const TICKS: f64 = 100.0;

/// What was used so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    at: Instant,
    /// Seconds of CPU of the nodes, and of Postgres.
    nodes: f64,
    postgres: f64,
    transactions: i64,
    wal: i64,
    /// Of memory, by the nodes; none where they do not count.
    allocations: Option<u64>,
}

/// What was used between two moments.
#[derive(Clone, Copy, Debug)]
pub(super) struct Used {
    pub(super) elapsed: Duration,
    pub(super) nodes: f64,
    pub(super) postgres: f64,
    pub(super) transactions: i64,
    pub(super) wal: i64,
    allocations: Option<u64>,
}

impl Usage {
    /// Counters of Postgres come in late: waits for so long first.
    pub(super) async fn now(
        ground: &Ground,
        service: &Service,
        late: Duration,
    ) -> anyhow::Result<Self> {
        tokio::time::sleep(late).await;
        let mut nodes = 0.0;
        for node in &service.nodes {
            nodes += cpu(node.pid())?;
        }
        let folder = &service.database.folder;
        let counts = service
            .nodes
            .iter()
            .map(|node| allocations::of(node.pid(), folder));
        let allocations = counts.sum();
        let (transactions, wal) = counters(&service.database).await?;
        Ok(Self {
            at: Instant::now(),
            nodes,
            postgres: postgres(ground)?,
            transactions,
            wal,
            allocations,
        })
    }

    /// As [`Usage::now`], less what was used before.
    pub(super) async fn since(
        self,
        ground: &Ground,
        service: &Service,
        late: Duration,
    ) -> anyhow::Result<Used> {
        let now = Self::now(ground, service, late).await?;
        Ok(Used {
            elapsed: now.at - self.at,
            nodes: now.nodes - self.nodes,
            postgres: now.postgres - self.postgres,
            transactions: now.transactions - self.transactions,
            wal: now.wal - self.wal,
            allocations: now
                .allocations
                .zip(self.allocations)
                .map(|(now, before)| now - before),
        })
    }
}

impl Used {
    /// All CPU, in cores.
    pub(super) fn cores(&self) -> f64 {
        (self.nodes + self.postgres) / self.elapsed.as_secs_f64()
    }

    /// For a person. Each statement is prepared before and a transaction of its own: one round trip.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub(super) fn per_commit(&self, commits: u64) -> String {
        let commits = commits.max(1) as f64;
        let allocations = self.allocations.map(|count| {
            let each = count as f64 / commits;
            format!(", {each:.0} allocations")
        });
        format!(
            "each commit: {:.3} statements (round trips), {:.0} bytes of WAL, {:.0} µs CPU of the \
             nodes, {:.0} µs of Postgres{}",
            self.transactions as f64 / commits,
            self.wal as f64 / commits,
            self.nodes * 1e6 / commits,
            self.postgres * 1e6 / commits,
            allocations.unwrap_or_default(),
        )
    }
}

/// Statements, since each is a transaction of its own, and bytes of WAL.
async fn counters(database: &Database) -> anyhow::Result<(i64, i64)> {
    let transactions =
        "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()";
    let wal = "SELECT (pg_current_wal_lsn() - '0/0')::bigint";
    Ok((
        database.number(transactions).await?,
        database.number(wal).await?,
    ))
}

/// Seconds of CPU that a process has used.
fn cpu(pid: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let mut times = fields.split_whitespace().skip(11);
    let mut next = || -> anyhow::Result<f64> {
        let field = times.next().context("a process has times")?;
        Ok(field.parse()?)
    };
    let (user, system) = (next()?, next()?);
    let (ended_user, ended_system) = (next()?, next()?);
    Ok((user + system + ended_user + ended_system) / TICKS)
}

/// The server and its children; of those that have ended, the server's own account.
fn postgres(ground: &Ground) -> anyhow::Result<f64> {
    let server = u32::try_from(ground.cluster.pid())?;
    let mut seconds = cpu(server)?;
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // A process may be gone before it is looked at.
        if parent(pid) == Some(server) {
            seconds += cpu(pid).unwrap_or_default();
        }
    }
    Ok(seconds)
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields = stat.rsplit(')').next()?;
    fields.split_whitespace().nth(1)?.parse().ok()
}

/// Resident memory of a process, in MiB.
pub(super) fn memory(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next());
    let kilobytes: u64 = kilobytes.context("a process has memory")?.parse()?;
    Ok(kilobytes / 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_a_parent_memory_and_used_time() {
        let own = std::process::id();
        assert_eq!(parent(own), Some(std::os::unix::process::parent_id()));
        assert!(memory(own).unwrap() > 0);
        assert!(cpu(own).unwrap() >= 0.0);
    }
}
