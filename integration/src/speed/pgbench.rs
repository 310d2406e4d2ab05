//! What one would otherwise do: write row, ledger and delta oneself, one transaction for each write.
//! Postgres's own benchmark does that, in C, with one prepared statement.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use hdrhistogram::Histogram;

use super::ground::{Database, Ground};
use super::load::Sample;
use super::workload::{TEXT, run};

/// The statement, with a place for the text of each row.
const SCRIPT: &str = include_str!("pgbench.sql");

/// Tables as one would make them for this alone: the same rows, ledger and log, without
/// organizations, models or partitions.
const TABLES: &str = "
CREATE TABLE rows (id text COLLATE \"C\" PRIMARY KEY, row jsonb NOT NULL) WITH (fillfactor = 90);
CREATE TABLE ledger (
    client_tx_id text        COLLATE \"C\" PRIMARY KEY,
    commit_id    uuid        NOT NULL,
    fingerprint  bytea       NOT NULL,
    participant  text        NOT NULL,
    state        text        NOT NULL,
    accepted_at  timestamptz NOT NULL
);
CREATE TABLE deltas (
    sync_id      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    created_at   timestamptz NOT NULL,
    client_tx_id text        NOT NULL,
    kind         text        NOT NULL,
    row_id       text        NOT NULL,
    row          jsonb       NOT NULL
)";

/// The numbers of clients of which the best counts.
pub(super) const CLIENTS: [usize; 4] = [8, 16, 32, 64];

/// A database to be written to directly.
#[derive(Debug)]
pub(super) struct Pgbench {
    database: Database,
    program: PathBuf,
    folder: PathBuf,
    keys: u64,
}

impl Pgbench {
    /// Tables with so many rows.
    pub(super) async fn prepare(ground: &Ground, keys: u64) -> anyhow::Result<Self> {
        let program = program(ground.cluster.pid())?;
        let database = ground.empty("direct").await?;
        database.run(TABLES).await?;
        let fill = format!(
            "INSERT INTO rows SELECT 'k' || n, jsonb_build_object('text', '{TEXT}', 'number', n) \
             FROM generate_series(0, {}) AS n",
            keys - 1
        );
        database.run(&fill).await?;
        database.settle().await?;
        let folder = ground.folder().join("pgbench");
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("script.sql"), SCRIPT.replace("TEXT", TEXT))?;
        Ok(Self {
            database,
            program,
            folder,
            keys,
        })
    }

    /// As fast as so many clients can.
    pub(super) async fn rate(&self, clients: usize, length: Duration) -> anyhow::Result<f64> {
        let said = self.run(clients, length, &[]).await?;
        let rate = said
            .lines()
            .find_map(|line| line.strip_prefix("tps = "))
            .and_then(|rest| rest.split(' ').next());
        rate.and_then(|rate| rate.parse().ok())
            .with_context(|| format!("pgbench said no rate: {said}"))
    }

    /// How long writes take when so many are due a second.
    pub(super) async fn latency(
        &self,
        clients: usize,
        rate: f64,
        length: Duration,
    ) -> anyhow::Result<Sample> {
        let prefix = self.folder.join(format!("log-{}", run()));
        let log = format!("--log-prefix={}", prefix.display());
        let rate = format!("--rate={rate:.0}");
        let said = self.run(clients, length, &[&rate, "--log", &log]).await?;
        let (latencies, reached) = logged(&prefix)?;
        if latencies.is_empty() {
            bail!("pgbench logged nothing: {said}");
        }
        let quantile = |part| Duration::from_micros(latencies.value_at_quantile(part));
        Ok(Sample {
            rate: reached / length.as_secs_f64(),
            p50: quantile(0.5),
            p99: quantile(0.99),
            total: latencies.len(),
        })
    }

    async fn run(&self, clients: usize, length: Duration, more: &[&str]) -> anyhow::Result<String> {
        let seconds = length.as_secs().max(1);
        let mut command = Command::new(&self.program);
        command
            .args(["--no-vacuum", "--protocol=prepared", "--jobs=2"])
            .args([format!("--client={clients}"), format!("--time={seconds}")])
            .arg(format!(
                "--file={}",
                self.folder.join("script.sql").display()
            ))
            .args(["--define=n=0", &format!("--define=run={}", run())])
            .arg(format!("--define=keys={}", self.keys))
            .args(more)
            .arg(&self.database.url)
            .stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            bail!("pgbench: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(said)
    }
}

/// Stands beside the server that runs.
fn program(server: i32) -> anyhow::Result<PathBuf> {
    let server = fs::read_link(format!("/proc/{server}/exe"))?;
    let program = server.with_file_name("pgbench");
    if !program.exists() {
        bail!("{} is missing: it comes with Postgres", program.display());
    }
    Ok(program)
}

/// The third column of each line is a transaction's time, from when it was due.
fn logged(prefix: &Path) -> anyhow::Result<(Histogram<u64>, f64)> {
    let mut latencies = Histogram::new_with_bounds(1, 600_000_000, 3)?;
    let mut count = 0.0;
    let folder = prefix.parent().context("a log has a folder")?;
    let stem = prefix.file_name().context("a log has a name")?;
    let stem = format!("{}.", stem.to_string_lossy());
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy());
        if !name.is_some_and(|name| name.starts_with(&stem)) {
            continue;
        }
        for line in fs::read_to_string(&path)?.lines() {
            let micros = line.split(' ').nth(2).and_then(|text| text.parse().ok());
            latencies.saturating_record(micros.unwrap_or(1).max(1));
            count += 1.0;
        }
        fs::remove_file(&path)?;
    }
    Ok((latencies, count))
}
